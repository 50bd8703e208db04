//! The door in Anthropic's wire format.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Finished, Reason, Role, ToolCallDelta, Usage, entry::Event};
use serde_json::{Value, json};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
};

const ASK: &str = r#"{"model":"tiny","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}"#;
const STREAM: &str = r#"{"model":"tiny","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;

async fn ask(body: &str, entries: Vec<Entry>) -> Whole {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async { client::post(gateway.address, "/v1/messages", body).await.whole().await };
    let (response, request) = tokio::join!(post, router.say(entries));
    assert_eq!((request.max_tokens, request.messages[0].role()), (Some(9), Role::User));
    response
}

fn thought_and_called() -> Vec<Entry> {
    let call = |index: u32, id: &str, name: &str, arguments: &str| Entry {
        tokens: 1,
        event: Some(Event::ToolCall(Box::new(ToolCallDelta {
            index,
            id: id.to_owned(),
            name: name.to_owned(),
            arguments: arguments.to_owned(),
        }))),
        ..Entry::default()
    };
    let thought = Entry {
        tokens: 1,
        event: Some(Event::Reasoning("hm".to_owned())),
        ..Entry::default()
    };
    let mut entries = vec![thought];
    entries.extend(texts(&["Let me", " see."]));
    entries.extend([
        call(0, "c1", "weather", "{\"city\""),
        call(0, "", "", ":\"Oslo\"}"),
        call(1, "c2", "time", "{}"),
        finished(FinishReason::ToolCalls, 6),
    ]);
    entries
}

fn masked(whole: &Whole) -> String {
    whole.body.replace(whole.header("x-stream-id").unwrap_or("-"), "ID")
}

#[tokio::test]
async fn blocks_follow_each_other_each_opened_filled_and_closed() {
    let response = ask(STREAM, thought_and_called()).await;
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    insta::assert_snapshot!(masked(&response));
    for event in response.body.split_terminator("\n\n") {
        let (name, data) = event.strip_prefix("event: ").unwrap().split_once("\ndata: ").unwrap();
        assert_eq!(serde_json::from_str::<Value>(data).unwrap()["type"], name);
    }
}

#[tokio::test]
async fn a_whole_message_has_the_same_blocks() {
    let response = ask(ASK, thought_and_called()).await.json();
    assert_eq!(
        response["content"],
        json!([
            {"type": "thinking", "thinking": "hm", "signature": ""},
            {"type": "text", "text": "Let me see.", "citations": null},
            {"type": "tool_use", "id": "c1", "name": "weather", "input": {"city": "Oslo"}, "caller": {"type": "direct"}},
            {"type": "tool_use", "id": "c2", "name": "time", "input": {}, "caller": {"type": "direct"}},
        ])
    );
    assert_eq!(
        (&response["stop_reason"], &response["stop_sequence"]),
        (&json!("tool_use"), &Value::Null)
    );
    assert_eq!((&response["type"], &response["role"]), (&json!("message"), &json!("assistant")));
    assert_eq!(response["usage"]["output_tokens"], 6);
}

#[tokio::test]
async fn the_stop_string_that_was_met_is_told() {
    let met = Finished {
        choices: vec![ChoiceEnd {
            reason: FinishReason::Stop.into(),
            stop: "END".to_owned(),
            ..ChoiceEnd::default()
        }],
        usage: Some(Usage {
            prompt_tokens: 10,
            cached_tokens: 4,
            completion_tokens: 1,
            ..Usage::default()
        }),
        ..Finished::default()
    };
    let entries = || {
        let mut entries = texts(&["a"]);
        entries.push(Entry {
            event: Some(Event::Finished(Box::new(met.clone()))),
            ..Entry::default()
        });
        entries
    };
    let whole = ask(ASK, entries()).await.json();
    assert_eq!(
        (&whole["stop_reason"], &whole["stop_sequence"]),
        (&json!("stop_sequence"), &json!("END"))
    );
    let usage = &whole["usage"];
    assert_eq!(
        (&usage["input_tokens"], &usage["cache_read_input_tokens"], &usage["output_tokens"]),
        (&json!(6), &json!(4), &json!(1))
    );
    let streamed = ask(STREAM, entries()).await.body;
    assert!(
        streamed.contains(r#""delta":{"stop_reason":"stop_sequence","stop_sequence":"END","#),
        "{streamed}"
    );
}

#[tokio::test]
async fn an_answer_that_broke_off_ends_with_an_error_and_no_stop() {
    let mut entries = texts(&["a"]);
    entries.push(Entry::failed(Failure::new(Reason::WorkerLost, "the worker was lost")));
    let body = ask(STREAM, entries).await.body;
    assert!(
        body.ends_with(
            "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"api_error\",\"message\":\"the worker was lost\"}}\n\n"
        ),
        "{body}"
    );
    assert!(!body.contains("message_stop"), "{body}");
}

#[tokio::test]
async fn an_input_is_counted_without_an_answer() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async |head: &str, body: &str| {
        let head = format!(
            "POST /v1/messages/count_tokens HTTP/1.1\n{head}content-type: application/json\ncontent-length: {}",
            body.len()
        );
        client::send(gateway.address, &head, body.as_bytes()).await.whole().await
    };
    let ask = r#"{"model":"tiny","messages":[{"role":"user","content":"hi"}],"tools":[{"name":"f","input_schema":{}}]}"#;
    let counted = post("anthropic-version: 2023-06-01\n", ask).await;
    assert_eq!((counted.status, counted.body.as_str()), (200, r#"{"input_tokens":7}"#));
    let wrong = post("", r#"{"model":"tiny"}"#).await;
    assert_eq!((wrong.status, &wrong.json()["type"]), (400, &json!("error")));
    let version = post("anthropic-version: newest\n", ask).await;
    assert_eq!(version.status, 400);
    assert!(version.body.contains("anthropic-version"), "{}", version.body);
}

#[tokio::test]
async fn errors_have_anthropics_shape_and_status() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let wrong = client::post(gateway.address, "/v1/messages", r#"{"model":"tiny","messages":[]}"#)
        .await
        .whole()
        .await;
    assert_eq!(wrong.status, 400);
    assert_eq!(
        (&wrong.json()["type"], &wrong.json()["error"]["type"]),
        (&json!("error"), &json!("invalid_request_error"))
    );
    let post = async { client::post(gateway.address, "/v1/messages", ASK).await.whole().await };
    let full = Failure {
        retry_after_ms: 1500,
        ..Failure::new(Reason::QueueFull, "the queue is full")
    };
    let refuse = async {
        let (received, _) = router.started().await;
        received.refuse(full).await;
    };
    let (busy, ()) = tokio::join!(post, refuse);
    assert_eq!((busy.status, busy.header("retry-after")), (529, Some("2")));
    assert_eq!(busy.json()["error"]["type"], "overloaded_error");
    assert_eq!(busy.json()["request_id"], busy.header("request-id").unwrap());
    let nowhere = client::get(gateway.address, "/v1/messages/nowhere").await;
    assert_eq!((nowhere.status, &nowhere.json()["error"]["type"]), (404, &json!("not_found_error")));
}
