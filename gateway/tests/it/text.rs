//! The legacy door `/v1/completions`, byte for byte.

use proto::v1::{Entry, Failure, FinishReason, Reason, TokenLogprob};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
};

const PATH: &str = "/v1/completions";

fn masked(whole: &Whole) -> String {
    let id = whole.header("x-stream-id").unwrap_or("-");
    whole.body.replace(id, "ID")
}

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hello", "", ", \"you\"\n"]);
    entries.push(finished(FinishReason::Length, 3));
    entries
}

async fn complete(body: &str, entries: Vec<Entry>) -> (Whole, proto::v1::ChatRequest) {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async { client::post(gateway.address, PATH, body).await.whole().await };
    tokio::join!(post, router.say(entries))
}

#[tokio::test]
async fn a_whole_text_is_openais_object() {
    let (response, request) = complete(r#"{"prompt":"Say"}"#, hello()).await;
    assert!(request.raw && request.messages.is_empty(), "nothing stands around the prompt");
    assert_eq!((request.prompt.as_str(), request.max_tokens), ("Say", Some(16)));
    insta::assert_snapshot!(masked(&response));
}

#[tokio::test]
async fn a_streamed_text_is_openais_to_the_byte() {
    let body = r#"{"prompt":[15,16,17],"stream":true,"max_tokens":3,"stream_options":{"include_usage":true}}"#;
    let (response, request) = complete(body, hello()).await;
    assert_eq!((request.prompt.as_str(), request.prompt_tokens.as_slice()), ("", &[15, 16, 17][..]));
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    insta::assert_snapshot!(masked(&response));
}

#[tokio::test]
async fn the_prompt_is_repeated_where_asked_for() {
    let (whole, _) = complete(r#"{"prompt":["Say: "],"echo":true}"#, hello()).await;
    assert_eq!(whole.json()["choices"][0]["text"], "Say: Hello, \"you\"\n");
    let (streamed, _) = complete(r#"{"prompt":"Say: ","echo":true,"stream":true,"best_of":1,"suffix":""}"#, hello()).await;
    insta::assert_snapshot!(masked(&streamed));
}

#[tokio::test]
async fn log_probabilities_stand_side_by_side() {
    let likely = |token: &str, logprob| TokenLogprob {
        token: token.to_owned(),
        logprob,
        bytes: token.as_bytes().to_vec(),
        top: Vec::new(),
    };
    let mut entries = texts(&["é", "!"]);
    entries[0].logprobs = vec![TokenLogprob {
        top: vec![likely("é", -0.5), likely("e", f32::NEG_INFINITY)],
        ..likely("é", -0.5)
    }];
    entries[1].logprobs = vec![likely("!", -1.0)];
    entries.push(finished(FinishReason::Stop, 2));
    let (whole, request) = complete(r#"{"prompt":"x","logprobs":2}"#, entries.clone()).await;
    let sampling = request.sampling.unwrap();
    assert_eq!((sampling.logprobs, sampling.top_logprobs), (true, 2));
    let (streamed, _) = complete(r#"{"prompt":"x","logprobs":2,"stream":true}"#, entries).await;
    insta::assert_snapshot!(format!("{}\n{}", masked(&whole), masked(&streamed)));
}

#[tokio::test]
async fn the_answers_to_several_prompts_come_in_their_order() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let head = |body: &str| {
        format!(
            "POST {PATH} HTTP/1.1\nidempotency-key: k\ncontent-type: application/json\ncontent-length: {}",
            body.len()
        )
    };
    let body = r#"{"prompt":["a","b"],"max_tokens":1}"#;
    let post = async { client::send(gateway.address, &head(body), body.as_bytes()).await.whole().await };
    let say = async {
        let (first, second) = (router.started().await, router.started().await);
        assert_ne!(first.1.stream_id, second.1.stream_id, "each is an answer of its own");
        for (received, request) in [second, first] {
            received.admit(&request.stream_id).await;
            let mut entries = texts(&[&request.prompt.to_uppercase()]);
            entries.push(finished(FinishReason::Length, 1));
            received.entries(0, entries).await;
        }
    };
    let (response, ()) = tokio::join!(post, say);
    let object = response.json();
    assert_eq!(
        (&object["choices"][0]["text"], &object["choices"][1]["text"]),
        (&"A".into(), &"B".into())
    );
    assert_eq!(
        (&object["choices"][1]["index"], &object["usage"]["total_tokens"]),
        (&1.into(), &12.into())
    );
}

#[tokio::test]
async fn one_answer_of_several_that_fails_fails_the_request() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async { client::post(gateway.address, PATH, r#"{"prompt":["a","b"]}"#).await.whole().await };
    let say = async {
        let (first, second) = (router.started().await, router.started().await);
        first.0.admit(&first.1.stream_id).await;
        second.0.refuse(Failure::new(Reason::QueueFull, "the queue is full")).await;
        loop {
            let received = router.next().await;
            if received.is_detach(false) {
                break;
            }
        }
    };
    let (response, ()) = tokio::join!(post, say);
    assert_eq!((response.status, &response.json()["error"]["code"]), (503, &"queue_full".into()));
}

#[tokio::test]
async fn what_cannot_be_done_is_refused_by_its_name() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    for (body, param) in [
        ("{}", "prompt"),
        (r#"{"prompt":""}"#, "prompt"),
        (r#"{"prompt":[]}"#, "prompt"),
        (r#"{"prompt":["a",5]}"#, "prompt[1]"),
        (r#"{"prompt":[-1]}"#, "prompt[0]"),
        (r#"{"prompt":["a","b"],"stream":true}"#, "prompt"),
        (r#"{"prompt":"a","suffix":"z"}"#, "suffix"),
        (r#"{"prompt":"a","best_of":2}"#, "best_of"),
        (r#"{"prompt":"a","echo":true,"logprobs":1}"#, "echo"),
        (r#"{"prompt":[5],"echo":true}"#, "echo"),
        (r#"{"prompt":"a","stream_options":{}}"#, "stream_options"),
        (r#"{"prompt":"a","max_tokens":0}"#, "max_tokens"),
        (r#"{"prompt":"a","logprobs":21}"#, "logprobs"),
    ] {
        let response = client::post(gateway.address, PATH, body).await.whole().await;
        assert_eq!(
            (response.status, &response.json()["error"]["param"]),
            (400, &param.into()),
            "{body}"
        );
    }
    let many = format!(r#"{{"prompt":[{}]}}"#, vec!["\"a\""; 17].join(","));
    let response = client::post(gateway.address, PATH, &many).await.whole().await;
    assert_eq!(response.json()["error"]["param"], "prompt");
}
