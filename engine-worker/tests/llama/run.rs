//! Answers as a user sees them.

use engine_worker::{
    engine::Engine,
    llama::{Llama, Settings},
};
use proto::v1::{
    ChatRequest, EmbedRequest, FinishReason, JsonObject, JsonSchema, Message, ResponseFormat, Role, entry::Event, response_format::Format,
};

use crate::ask::{ask, begin, ends, engine, greedy, load, refused, seeded, text, whole, with_sampling};

#[tokio::test]
async fn a_question_is_answered_token_by_token() {
    let engine = engine(2).await;
    let entries = ask(&engine, &greedy("Hi", 40)).await;
    assert!(text(&entries, 0).contains("ello"), "{}", text(&entries, 0));
    let tokens = &entries[..entries.len() - 1];
    assert!(tokens.iter().all(|entry| entry.tokens == 1 && entry.token_ids.len() == 1));
    let usage = entries.last().unwrap().usage().unwrap();
    assert_eq!(usage.completion_tokens as usize, tokens.len());
    assert!(usage.prompt_tokens > 10);
    assert_eq!(ends(&entries)[0].reason(), FinishReason::Stop);
    let model = &engine.models()[0];
    assert_eq!(
        (model.id.as_str(), model.context_length, model.chat, model.continuation),
        ("SmolLM2-135M-Instruct.Q4_1", 2048, true, true)
    );
}

#[tokio::test]
async fn a_follow_up_prefills_only_what_is_new_and_answers_the_same() {
    let say = |role: Role, text: &str| Message {
        role: role.into(),
        text: text.into(),
        ..Message::default()
    };
    let (kept, fresh) = (engine(2).await, engine(2).await);
    let first = greedy("Name three fruits.", 24);
    let answer = text(&ask(&kept, &first).await, 0);
    ask(&kept, &greedy("Something else entirely", 4)).await;
    let mut second = ChatRequest {
        prompt: "And three more?".into(),
        ..first.clone()
    };
    second.messages.push(say(Role::User, &first.prompt));
    second.messages.push(say(Role::Assistant, &answer));
    let (again, anew) = (ask(&kept, &second).await, ask(&fresh, &second).await);
    assert_eq!(text(&again, 0), text(&anew, 0));
    let cached = |entries: &[proto::v1::Entry]| entries.last().unwrap().usage().unwrap();
    assert_eq!(cached(&anew).cached_tokens, 0);
    assert!(
        cached(&again).cached_tokens + 20 > cached(&again).prompt_tokens,
        "{:?}",
        cached(&again)
    );
}

#[tokio::test]
async fn a_stop_string_ends_the_answer_and_is_no_part_of_it() {
    let engine = engine(1).await;
    let whole = text(&ask(&engine, &greedy("Count from one to ten in words.", 60)).await, 0);
    let stop: String = whole.chars().skip(20).take(9).collect();
    let stopped = ask(
        &engine,
        &with_sampling(greedy("Count from one to ten in words.", 60), |sampling| {
            sampling.stop = vec![stop.clone()];
        }),
    )
    .await;
    assert_eq!(text(&stopped, 0), whole[..whole.find(&stop).unwrap()]);
    assert_eq!(
        (ends(&stopped)[0].reason(), ends(&stopped)[0].stop.as_str()),
        (FinishReason::Stop, stop.as_str())
    );
}

#[tokio::test]
async fn json_is_what_the_schema_says() {
    let engine = engine(2).await;
    let schema = r#"{"type":"object","properties":{"city":{"type":"string","maxLength":20},"people":{"type":"integer"}},"required":["city","people"],"additionalProperties":false}"#;
    let ask_for = |format: Format, seed: u64| ChatRequest {
        response_format: Some(ResponseFormat { format: Some(format) }),
        ..seeded("Tell me about a city.", 120, seed)
    };
    for seed in 0..3 {
        let format = Format::JsonSchema(JsonSchema {
            schema: schema.into(),
            ..JsonSchema::default()
        });
        let said = text(&ask(&engine, &ask_for(format, seed)).await, 0);
        let value: serde_json::Value = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}"));
        assert!(value["city"].is_string() && value["people"].is_i64(), "{said}");
    }
    let said = text(
        &ask(&engine, &ask_for(Format::Grammar("root ::= \"yes\" | \"no\"".into()), 1)).await,
        0,
    );
    assert!(said == "yes" || said == "no", "{said}");
    let said = text(&ask(&engine, &ask_for(Format::JsonObject(JsonObject {}), 1)).await, 0);
    assert!(said.starts_with('{'), "{said}");
}

#[tokio::test]
async fn an_answer_goes_on_from_what_the_assistant_has_begun_to_say() {
    let engine = engine(2).await;
    let begun = |text: &str, format: Option<Format>| {
        let mut request = greedy("", 60);
        for (role, text) in [(Role::User, "Name a city and its people."), (Role::Assistant, text)] {
            request.messages.push(Message {
                role: role.into(),
                text: text.into(),
                ..Message::default()
            });
        }
        request.continue_final_message = true;
        request.response_format = format.map(|format| ResponseFormat { format: Some(format) });
        request
    };
    // To the letter what follows where the assistant has begun.
    let written = "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nName a city and its people.<|im_end|>\n<|im_start|>assistant\nIt is called";
    let raw = ChatRequest {
        raw: true,
        prompt: written.into(),
        messages: Vec::new(),
        ..greedy("", 60)
    };
    let said = text(&ask(&engine, &begun("It is called", None)).await, 0);
    assert_eq!(said, text(&ask(&engine, &raw).await, 0));
    // What was begun counts for the shape, too.
    let schema = || {
        Format::JsonSchema(JsonSchema {
            schema: r#"{"type":"object","properties":{"city":{"type":"string","maxLength":9}},"required":["city"],"additionalProperties":false}"#
                .into(),
            ..JsonSchema::default()
        })
    };
    let said = text(&ask(&engine, &begun("{\"city\": \"P", Some(schema()))).await, 0);
    let whole: serde_json::Value =
        serde_json::from_str(&format!("{{\"city\": \"P{said}")).unwrap_or_else(|error| panic!("{error}: {said}"));
    assert!(whole["city"].as_str().unwrap().starts_with('P'), "{whole}");
    let failure = refused(&engine, &begun("Well,", Some(schema()))).await;
    assert_eq!(failure.param, "messages", "{failure:?}");
}

#[tokio::test]
async fn choices_differ_and_the_first_is_that_of_a_single_one() {
    let engine = engine(4).await;
    let request = seeded("Invent a name for a ship.", 16, 11);
    let single = ask(&engine, &request).await;
    let several = ask(&engine, &ChatRequest { n: 4, ..request }).await;
    assert_eq!(text(&several, 0), text(&single, 0));
    let texts: std::collections::HashSet<String> = (0..4).map(|choice| text(&several, choice)).collect();
    assert!(texts.len() > 1, "{texts:?}");
    assert_eq!(ends(&several).iter().map(|end| end.choice).collect::<Vec<_>>(), [0, 1, 2, 3]);
}

#[tokio::test]
async fn log_probabilities_come_with_each_token() {
    let engine = engine(1).await;
    let request = with_sampling(greedy("Hi", 6), |sampling| {
        sampling.logprobs = true;
        sampling.top_logprobs = 4;
    });
    let entries = ask(&engine, &request).await;
    for entry in &entries[..entries.len() - 1] {
        let [logprob] = entry.logprobs.as_slice() else {
            panic!("{entry:?}")
        };
        assert!(logprob.logprob <= 0.0 && logprob.top.len() == 4);
        assert_eq!(logprob.top[0].logprob, logprob.logprob, "greedy takes the most likely");
        assert_eq!(logprob.bytes, entry.token.as_bytes());
    }
}

#[tokio::test]
async fn a_cancelled_answer_ends_at_once_and_its_slot_is_free() {
    let engine = engine(1).await;
    let mut running = begin(&engine, whole(&greedy("Write a very long story.", 1500))).await.unwrap();
    for _ in 0..3 {
        running.next().await.unwrap();
    }
    running.cancel.cancel();
    let made = running.reader.journal().len();
    let rest = running.rest().await;
    assert!(matches!(rest.last().unwrap().event, Some(Event::Cancelled(_))));
    assert!(rest.len() <= made as usize + 2 - 3 + 1, "{} entries after {made}", rest.len());
    assert_eq!(ask(&engine, &greedy("Hi", 2)).await.len(), 3, "the slot is free");
}

#[tokio::test]
async fn a_long_prompt_does_not_hold_up_who_runs() {
    let engine = engine(2).await;
    let mut running = begin(&engine, whole(&greedy("Write a very long story.", 1500))).await.unwrap();
    running.next().await.unwrap();
    let prompt = "The quick brown fox jumps over the lazy dog. ".repeat(80);
    let before = running.reader.journal().len();
    let mut long = begin(&engine, whole(&greedy(&prompt, 4))).await.unwrap();
    long.next().await.unwrap();
    let meanwhile = running.reader.journal().len() - before;
    assert!(meanwhile >= 10, "{meanwhile} tokens while some 800 were prefilled");
    running.cancel.cancel();
}

#[tokio::test]
async fn an_answer_ends_when_the_context_is_full() {
    let engine = load(Settings {
        llama_seats: 1,
        llama_context: 64,
        ..Settings::default()
    })
    .await;
    for request in [
        greedy("Write a very long story.", 1000),
        ChatRequest {
            max_tokens: None,
            ..greedy("Write a very long story.", 1)
        },
    ] {
        let entries = ask(&engine, &request).await;
        let usage = entries.last().unwrap().usage().unwrap();
        assert_eq!(usage.prompt_tokens + usage.completion_tokens, 64);
        assert_eq!(ends(&entries)[0].reason(), FinishReason::Length);
    }
}

#[tokio::test]
async fn vectors_of_the_chat_model_have_length_one_and_like_texts_are_near() {
    let engine = load(Settings {
        llama_seats: 1,
        llama_context: 2048,
        llama_threads: Some(1),
        llama_vectors: Some("chat".into()),
        ..Settings::default()
    })
    .await;
    let inputs = [
        "The cat sits on the mat.",
        "A cat is sitting on a mat.",
        "Stock prices fell sharply on Monday.",
    ];
    let embed = |inputs: &[&str]| EmbedRequest {
        inputs: inputs.iter().map(|&input| input.to_owned()).collect(),
        ..EmbedRequest::default()
    };
    let response = engine.embed(embed(&inputs)).await.unwrap();
    let vectors: Vec<&[f32]> = response.embeddings.iter().map(|one| one.values.as_slice()).collect();
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
    assert!(
        vectors
            .iter()
            .all(|vector| (dot(vector, vector) - 1.0).abs() < 1e-3 && vector.len() == 576)
    );
    assert!(dot(vectors[0], vectors[1]) > dot(vectors[0], vectors[2]));
    assert!(response.usage.unwrap().prompt_tokens > 15);
    assert_eq!(engine.embed(embed(&[])).await.unwrap_err().param, "input");
    let long = "word ".repeat(3000);
    assert_eq!(
        engine.embed(embed(&[&long])).await.unwrap_err().reason(),
        proto::v1::Reason::ContextLengthExceeded
    );
}

#[tokio::test]
async fn load_is_told() {
    let engine: std::sync::Arc<Llama> = engine(1).await;
    assert_eq!((engine.vitals().kv_cells, engine.vitals().kv_used), (2048, 0));
    let mut running = begin(&engine, whole(&greedy("Write a very long story.", 1500))).await.unwrap();
    running.next().await.unwrap();
    running.next().await.unwrap();
    assert!(engine.vitals().kv_used > 10 && engine.vitals().last_step_age.is_some());
    running.cancel.cancel();
    running.rest().await;
    engine.stop().await;
    assert_eq!(engine.vitals().last_step_age, None);
    let late = begin(&engine, whole(&greedy("Hi", 2))).await.unwrap().rest().await;
    assert!(matches!(&late[0].event, Some(Event::Failed(_))), "a stopped engine says so");
}
