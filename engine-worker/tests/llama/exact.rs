//! An answer that goes on elsewhere is the one that it would have been: cut at every position, and compared entry by entry.

use engine_worker::llama::{Llama, Settings};
use proto::v1::{ChatRequest, JsonSchema, ResponseFormat, response_format::Format};

use crate::ask::{ask, begin, comparable, engine, greedy, load, resume, seeded, text, with_sampling};

/// Makes the engine forget what it has in its cache.
async fn forget(engine: &Llama, seats: u32) {
    let mut other = ChatRequest {
        n: seats,
        ..greedy("%", 1)
    };
    other.messages[0].text = "?".into();
    ask(engine, &other).await;
}

/// Cuts the answer at every `step`-th position and lets an engine with an empty cache go on.
pub(crate) async fn cut(request: &ChatRequest, step: usize) {
    let seats = request.n.max(1);
    let (first, second) = (engine(seats).await, engine(seats).await);
    let unbroken = comparable(ask(&first, request).await);
    println!("{:?}", text(&unbroken, 0));
    assert!(unbroken.len() > 8, "too short to show anything");
    for position in (0..unbroken.len()).step_by(step) {
        forget(&second, seats).await;
        let rest = begin(&second, resume(request, &unbroken[..position])).await.unwrap().rest().await;
        assert_eq!(comparable(rest), unbroken[position..], "cut at {position}");
    }
    // And once more where the cache has it all.
    for position in (0..unbroken.len()).step_by(6 * step) {
        let rest = begin(&first, resume(request, &unbroken[..position])).await.unwrap().rest().await;
        assert_eq!(comparable(rest), unbroken[position..], "cut at {position}, cached");
    }
}

#[tokio::test]
async fn a_greedy_answer_goes_on_as_it_would_have() {
    cut(&greedy("Why is the sky blue?", 16), 1).await;
}

#[tokio::test]
async fn a_seeded_answer_goes_on_as_it_would_have() {
    let request = with_sampling(seeded("Tell me of the sea, with some emoji 🌊", 16, 7), |sampling| {
        sampling.frequency_penalty = Some(0.5);
        sampling.presence_penalty = Some(0.2);
        sampling.repetition_penalty = Some(1.1);
        sampling.logprobs = true;
        sampling.top_logprobs = 3;
    });
    cut(&request, 1).await;
}

#[tokio::test]
async fn an_answer_with_held_text_goes_on_as_it_would_have() {
    let request = greedy("Why is the sky blue?", 16);
    let engine = engine(1).await;
    let whole = text(&ask(&engine, &request).await, 0);
    // Stop strings that begin often, one that is met, and one that the answer ends within.
    let words: Vec<&str> = whole.split(' ').collect();
    let met = format!("{} {} {}", words[7], words[8], words[9]);
    let never = format!(" {} and never this", words[2]);
    let stops = |stop: Vec<String>| with_sampling(request.clone(), |sampling| sampling.stop = stop);
    cut(&stops(vec![met, never]), 1).await;
    let last = whole
        .chars()
        .rev()
        .take(6)
        .collect::<Vec<_>>()
        .into_iter()
        .rev()
        .collect::<String>();
    cut(&stops(vec![format!("{last} but not this")]), 1).await;
}

#[tokio::test]
async fn an_answer_whose_end_released_held_text_goes_on_as_it_would_have() {
    // The model ends by itself, within what might have been a stop string.
    let request = greedy("Name three fruits.", 60);
    let engine = engine(1).await;
    let entries = ask(&engine, &request).await;
    let whole = text(&entries, 0);
    let last: String = whole.chars().skip(whole.chars().count() - 3).collect();
    let request = with_sampling(request, |sampling| sampling.stop = vec![format!("{last} and more")]);
    let held = ask(&engine, &request).await;
    assert_eq!(held[held.len() - 2].tokens, 0, "the last text came without a token");
    assert_eq!(text(&held, 0), whole);
    cut(&request, 1).await;
}

#[tokio::test]
async fn an_answer_of_a_schema_goes_on_as_it_would_have() {
    let schema = r#"{"type":"object","properties":{"name":{"type":"string","maxLength":6},"age":{"type":"integer"}},"required":["name","age"],"additionalProperties":false}"#;
    let format = ResponseFormat {
        format: Some(Format::JsonSchema(JsonSchema {
            name: "person".into(),
            schema: schema.into(),
            strict: true,
        })),
    };
    for request in [
        greedy("Describe a person as JSON.", 60),
        seeded("Describe a person as JSON.", 60, 3),
    ] {
        let request = ChatRequest {
            response_format: Some(format.clone()),
            ..request
        };
        cut(&request, 1).await;
    }
}

#[tokio::test]
async fn choices_go_on_as_they_would_have_in_the_same_order() {
    let request = ChatRequest {
        n: 2,
        ..seeded("Name an animal.", 8, 5)
    };
    cut(&request, 1).await;
}

/// Past 512 cells llama.cpp would share the sum over a single row's cells out to its threads, and so round as their number says.
#[tokio::test]
async fn a_long_conversation_goes_on_as_it_would_have() {
    let prompt = format!(
        "{} Sum this up.",
        "The quick brown fox jumps over the lazy dog, and the dog sleeps on. ".repeat(32)
    );
    let request = with_sampling(greedy(&prompt, 16), |sampling| sampling.logprobs = true); // the slightest difference shows there
    let settings = Settings {
        llama_seats: 1,
        llama_context: 1024,
        llama_threads: Some(2),
        ..Settings::default()
    };
    let engine = load(settings).await;
    let unbroken = comparable(ask(&engine, &request).await);
    for position in [2, 12] {
        forget(&engine, 1).await;
        let rest = begin(&engine, resume(&request, &unbroken[..position])).await.unwrap().rest().await;
        assert_eq!(comparable(rest), unbroken[position..], "cut at {position}");
    }
}

#[tokio::test]
async fn an_answer_among_others_is_the_one_that_it_would_be_alone() {
    let prompts = [
        "Why is the sky blue?",
        "Hi",
        "Count to ten.",
        "What is Rust?",
        "Tell me a joke.",
        "Who are you?",
        "Name a colour.",
        "Write a haiku.",
    ];
    let solo = engine(1).await;
    let mut alone = Vec::new();
    for prompt in prompts {
        alone.push(comparable(ask(&solo, &greedy(prompt, 24)).await));
    }
    let together = engine(8).await;
    let requests = prompts.map(|prompt| greedy(prompt, 24));
    for _ in 0..2 {
        let answers = futures_util::future::join_all(requests.iter().map(|request| ask(&together, request))).await;
        for (answer, alone) in answers.into_iter().zip(&alone) {
            assert_eq!(&comparable(answer), alone);
        }
    }
}

#[tokio::test]
async fn choices_that_have_ended_stay_ended_where_the_others_go_on() {
    let request = ChatRequest {
        n: 3,
        ..seeded("Tell me of the sea.", 12, 5)
    };
    let engine = engine(3).await;
    let free = ask(&engine, &request).await;
    let (said, others) = (text(&free, 1), text(&free, 0) + &text(&free, 2));
    let own = said.split(' ').skip(2).find(|word| !word.is_empty() && !others.contains(word));
    let met = own.unwrap().to_owned(); // a word that only one of the choices says
    let request = with_sampling(request, |sampling| sampling.stop = vec![met]);
    let entries = ask(&engine, &request).await;
    let ended: Vec<usize> = (0..entries.len()).filter(|&at| entries[at].end.is_some()).collect();
    assert_eq!(ended.len(), 3, "the end of each choice is told when it comes");
    assert!(ended[0] + 2 < ended[2], "they end at different times: {ended:?}");
    cut(&request, 2).await;
}
