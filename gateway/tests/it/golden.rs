//! Each door's wire format, byte for byte.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Finished, Reason, TokenLogprob, ToolCallDelta, Usage, entry::Event};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
};

/// The answer's name differs in each run.
fn masked(whole: &Whole) -> String {
    let id = whole.header("x-stream-id").unwrap_or("-");
    whole.body.replace(id, "ID")
}

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hello", "", ", \"you\"\n"]);
    entries.push(finished(FinishReason::Stop, 3));
    entries
}

async fn stream(path: &str, entries: Vec<Entry>) -> Whole {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let (response, _) = tokio::join!(client::get(gateway.address, path), router.say(entries));
    response
}

async fn complete(body: &str, entries: Vec<Entry>) -> Whole {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async { client::post(gateway.address, "/v1/chat/completions", body).await.whole().await };
    let (response, _) = tokio::join!(post, router.say(entries));
    response
}

const STREAM: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;

#[tokio::test]
async fn a_streamed_completion_is_openais_to_the_byte() {
    let response = complete(STREAM, hello()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    assert_eq!(response.header("cache-control"), Some("no-cache, no-transform"));
    assert_eq!(response.header("x-accel-buffering"), Some("no"));
    insta::assert_snapshot!(masked(&response));
}

#[tokio::test]
async fn usage_comes_once_at_the_end_and_only_where_asked_for() {
    let body =
        r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":true}}"#;
    insta::assert_snapshot!(masked(&complete(body, hello()).await));
}

#[tokio::test]
async fn a_whole_completion_is_openais_object() {
    let response = complete(r#"{"messages":[{"role":"user","content":"hi"}]}"#, hello()).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    insta::assert_snapshot!(masked(&response));
}

fn call(piece: ToolCallDelta) -> Entry {
    Entry {
        tokens: 1,
        event: Some(Event::ToolCall(Box::new(piece))),
        ..Entry::default()
    }
}

fn tools() -> Vec<Entry> {
    let thought = Entry {
        tokens: 1,
        event: Some(Event::Reasoning("hm".to_owned())),
        ..Entry::default()
    };
    let begin = ToolCallDelta {
        id: "call_1".to_owned(),
        name: "weather".to_owned(),
        arguments: "{\"city\"".to_owned(),
        index: 0,
    };
    let more = ToolCallDelta {
        arguments: ":\"Oslo\"}".to_owned(),
        ..ToolCallDelta::default()
    };
    vec![thought, call(begin), call(more), finished(FinishReason::ToolCalls, 3)]
}

#[tokio::test]
async fn a_tool_call_is_named_in_its_first_piece_only() {
    insta::assert_snapshot!(masked(&complete(STREAM, tools()).await));
}

#[tokio::test]
async fn a_whole_answer_of_calls_has_no_content() {
    insta::assert_snapshot!(masked(&complete(r#"{"messages":[{"role":"user","content":"hi"}]}"#, tools()).await));
}

#[tokio::test]
async fn thoughts_are_counted_among_the_tokens_and_by_themselves() {
    let usage = Usage {
        prompt_tokens: 5,
        completion_tokens: 4,
        reasoning_tokens: 3,
        cached_tokens: 2,
    };
    let end = Entry {
        event: Some(Event::Finished(Box::new(Finished {
            usage: Some(usage),
            ..Finished::default()
        }))),
        ..Entry::default()
    };
    let whole = complete(r#"{"messages":[{"role":"user","content":"hi"}]}"#, vec![end]).await.json();
    let usage = &whole["usage"];
    assert_eq!((&usage["completion_tokens"], &usage["total_tokens"]), (&4.into(), &9.into()));
    assert_eq!(usage["completion_tokens_details"]["reasoning_tokens"], 3);
    assert_eq!(usage["prompt_tokens_details"]["cached_tokens"], 2);
}

#[tokio::test]
async fn choices_are_told_apart_by_their_index() {
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"n":2}"#;
    let mut entries = texts(&["a", "b"]);
    entries[1].choice = 1;
    let end = |choice, reason: FinishReason| ChoiceEnd {
        choice,
        reason: reason.into(),
        ..ChoiceEnd::default()
    };
    let finished = Finished {
        choices: vec![end(0, FinishReason::Stop), end(1, FinishReason::Length)],
        usage: Some(Usage::default()),
        ..Finished::default()
    };
    entries.push(Entry {
        event: Some(Event::Finished(Box::new(finished))),
        ..Entry::default()
    });
    insta::assert_snapshot!(masked(&complete(body, entries).await));
}

#[tokio::test]
async fn log_probabilities_come_with_their_token() {
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"logprobs":true,"top_logprobs":1}"#;
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
    insta::assert_snapshot!(masked(&complete(body, entries).await));
}

#[tokio::test]
async fn an_answer_that_breaks_off_ends_with_an_error_and_without_done() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::WorkerLost, "the worker died")));
    let response = complete(STREAM, entries).await;
    assert_eq!(response.status, 200);
    insta::assert_snapshot!(masked(&response));
}

#[tokio::test]
async fn an_answer_that_somebody_cancelled_is_not_done() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::cancelled(Usage::default()));
    insta::assert_snapshot!(masked(&complete(STREAM, entries).await));
}

#[tokio::test]
async fn a_whole_answer_that_somebody_cancelled_is_not_asked_for_again() {
    let entries = vec![Entry::cancelled(Usage::default())];
    let response = complete(r#"{"messages":[{"role":"user","content":"hi"}]}"#, entries).await;
    assert_eq!((response.status, response.header("x-should-retry")), (409, Some("false")));
}

#[tokio::test]
async fn a_whole_answer_that_breaks_off_is_an_http_error() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::Timeout, "no token came in time")));
    let response = complete(r#"{"messages":[{"role":"user","content":"hi"}]}"#, entries).await;
    assert_eq!(response.status, 504);
    assert_eq!(response.json()["error"]["code"], "timeout");
}

#[tokio::test]
async fn the_token_door_sends_one_event_for_each_entry() {
    let short = stream("/stream?prompt=hi", hello()).await;
    let long = stream("/v1/chat/completions/stream?prompt=hi", hello()).await;
    assert_eq!(short.body, long.body);
    insta::assert_snapshot!(masked(&short));
}

#[tokio::test]
async fn the_event_door_names_its_events() {
    insta::assert_snapshot!(masked(&stream("/v1/chat/stream?q=hi", hello()).await));
}

#[tokio::test]
async fn the_event_door_tells_of_a_failure() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::WorkerLost, "the worker died")));
    insta::assert_snapshot!(masked(&stream("/v1/chat/stream?q=hi", entries).await));
}

#[tokio::test]
async fn the_chat_door_answers_with_one_message_or_a_stream() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = |body| async move { client::post(gateway.address, "/chat", body).await.whole().await };
    let (whole, request) = tokio::join!(post(r#"{"message":"hi","max_tokens":7}"#), router.say(hello()));
    assert_eq!((request.prompt.as_str(), request.max_tokens), ("hi", Some(7)));
    let id = whole.json()["stream_id"].as_str().unwrap().to_owned();
    insta::assert_snapshot!(whole.body.replace(&id, "ID"));
    let (streamed, request) = tokio::join!(
        post(r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#),
        router.say(hello())
    );
    assert_eq!(request.messages[0].text, "hi");
    assert_eq!(
        streamed.body,
        "data: {\"token\":\"Hello\"}\n\ndata: {\"token\":\"\"}\n\ndata: {\"token\":\", \\\"you\\\"\\n\"}\n\ndata: [DONE]\n\n"
    );
}
