//! The Responses door: what streams, to the byte, and what is told whole. [`kept`] is what is shown again, [`background`] what nobody waits
//! for, [`history`] what came before.

mod background;
mod history;
mod kept;

use std::time::Duration;

use proto::v1::{Entry, Failure, FinishReason, Reason, Role, TokenLogprob, ToolCallDelta, Usage, entry::Event};
use serde_json::{Value, json};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
    stored::Stored,
};

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hello", "", ", \"you\"\n"]);
    entries.push(finished(FinishReason::Stop, 3));
    entries
}

fn event(event: Event) -> Entry {
    Entry {
        tokens: 1,
        event: Some(event),
        ..Entry::default()
    }
}

fn call(index: u32, id: &str, arguments: &str) -> Entry {
    event(Event::ToolCall(Box::new(ToolCallDelta {
        index,
        id: id.to_owned(),
        name: if id.is_empty() { String::new() } else { "weather".to_owned() },
        arguments: arguments.to_owned(),
    })))
}

fn tools() -> Vec<Entry> {
    vec![
        event(Event::Reasoning("hm".to_owned())),
        event(Event::Reasoning(" so".to_owned())),
        Entry::text("Let me look.", 7),
        call(0, "call_1", "{\"city\""),
        call(0, "", ":\"Oslo\"}"),
        call(1, "call_2", "{}"),
        finished(FinishReason::ToolCalls, 6),
    ]
}

/// Asks for what is not stored: then nothing in it differs from run to run but the answer's name.
async fn unkept(mut body: Value, entries: Vec<Entry>) -> Whole {
    body["store"] = false.into();
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async {
        client::post(gateway.address, "/v1/responses", &body.to_string())
            .await
            .whole()
            .await
    };
    let (mut response, request) = tokio::join!(post, router.say(entries));
    assert!(!request.keep);
    response.body = response.body.replace(&request.stream_id, "ID");
    response
}

fn ask() -> Value {
    json!({"model": "tiny", "input": "hi"})
}

fn stream() -> Value {
    json!({"model": "tiny", "input": "hi", "stream": true})
}

#[tokio::test]
async fn a_streamed_response_is_openais_to_the_byte() {
    let response = unkept(stream(), hello()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    insta::assert_snapshot!(response.body);
}

#[tokio::test]
async fn a_whole_response_is_openais_object() {
    let mut body = ask();
    body["instructions"] = "Be brief.".into();
    body["metadata"] = json!({"topic": "trees"});
    let response = unkept(body, hello()).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&response.json()).unwrap());
}

#[tokio::test]
async fn thoughts_texts_and_calls_are_items_that_follow_each_other() {
    let mut body = stream();
    body["tools"] = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}}]);
    insta::assert_snapshot!(unkept(body, tools()).await.body);
}

#[tokio::test]
async fn what_was_cut_is_incomplete() {
    let mut entries = texts(&["Hel"]);
    entries.push(finished(FinishReason::Length, 1));
    insta::assert_snapshot!(unkept(stream(), entries).await.body);
}

#[tokio::test]
async fn what_broke_ends_with_an_error_and_a_failed_response_and_without_done() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::WorkerLost, "the worker died")));
    insta::assert_snapshot!(unkept(stream(), entries).await.body);
}

#[tokio::test]
async fn a_whole_response_that_breaks_off_is_an_http_error() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::Timeout, "no token came in time")));
    let response = unkept(ask(), entries).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (504, &"timeout".into()));
}

#[tokio::test]
async fn log_probabilities_come_with_their_token_and_with_the_text() {
    let mut body = stream();
    body["include"] = json!(["message.output_text.logprobs"]);
    let likely = |token: &str, logprob| TokenLogprob {
        token: token.to_owned(),
        logprob,
        bytes: token.as_bytes().to_vec(),
        top: Vec::new(),
    };
    let mut entries = texts(&["é"]);
    entries[0].logprobs = vec![TokenLogprob {
        top: vec![likely("é", -0.5), likely("e", f32::NEG_INFINITY)],
        ..likely("é", -0.5)
    }];
    entries.push(finished(FinishReason::Stop, 1));
    insta::assert_snapshot!(unkept(body, entries).await.body);
}

fn id(response: &Whole) -> String {
    response.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn the_tokens_of_an_input_are_counted_without_a_response() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let count = async |body: Value| {
        client::post(gateway.address, "/v1/responses/input_tokens", &body.to_string())
            .await
            .whole()
            .await
    };
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]);
    for body in [
        json!({"input": "hi"}),
        json!({"model": "tiny", "input": [{"role": "user", "content": "hi"}], "instructions": "Be brief.", "tools": tools}),
    ] {
        let counted = count(body).await;
        assert_eq!(
            (counted.status, counted.json()),
            (200, json!({"object": "response.input_tokens", "input_tokens": 7}))
        );
    }
    let asked = router.counted().await;
    assert_eq!((asked[0].model.as_str(), asked[1].model.as_str()), ("", "tiny"));
    let said: Vec<_> = asked[1]
        .messages
        .iter()
        .map(|message| (message.role(), message.text.as_str()))
        .collect();
    assert_eq!(said, [(Role::System, "Be brief."), (Role::User, "hi")]);
    assert_eq!(asked[1].tools[0].name, "f");
    let wrong = count(json!({"model": "tiny"})).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("input")));
}

#[tokio::test]
async fn there_is_no_compaction() {
    let gateway = Gateway::before(&[]).await;
    let nothing = client::post(gateway.address, "/v1/responses/compact", r#"{"model":"tiny","input":"hi"}"#)
        .await
        .whole()
        .await;
    assert_eq!((nothing.status, &nothing.json()["error"]["code"]), (404, &json!("not_found")));
    let method = client::request(gateway.address, "PUT", "/v1/responses/resp_x", "").await;
    assert_eq!(method.status, 405, "what is there still says what it takes");
}

#[tokio::test]
async fn a_response_of_no_named_model_bears_the_one_that_answered() {
    let response = unkept(json!({"input": "hi"}), hello()).await;
    assert_eq!((response.status, &response.json()["model"]), (200, &json!(crate::router::MODEL)));
}
