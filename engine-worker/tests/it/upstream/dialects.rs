//! OpenAI's Responses and Anthropic's Messages as upstreams: how they are asked, and that what they stream is an answer.

use std::time::Duration;

use engine_worker::openai::{Continues, Dialect, Openai, Settings};
use proto::v1::{Entry, FinishReason, Reason, Usage, entry::Event};
use serde_json::json;

use super::server::{Does, answer, worker_with};
use crate::harness::{Got, load_until, said, whole};

const MESSAGES_TEXT: &[u8] = include_bytes!("../../../transcripts/messages_text.sse");
const MESSAGES_TOOLS: &[u8] = include_bytes!("../../../transcripts/messages_tools.sse");
const MESSAGES_OVERLOADED: &[u8] = include_bytes!("../../../transcripts/messages_overloaded.sse");
const RESPONSES_TEXT: &[u8] = include_bytes!("../../../transcripts/responses_text.sse");
const RESPONSES_TOOLS: &[u8] = include_bytes!("../../../transcripts/responses_tools.sse");
const RESPONSES_FAILED: &[u8] = include_bytes!("../../../transcripts/responses_failed.sse");

fn spoken(dialect: Dialect) -> Settings {
    Settings {
        upstream_dialect: dialect,
        ..Settings::default()
    }
}

/// The bytes in reads that respect nothing.
fn cut(bytes: &[u8]) -> Vec<Vec<u8>> {
    bytes.chunks(7).map(<[u8]>::to_vec).collect()
}

async fn streamed(dialect: Dialect, bytes: &[u8]) -> Got {
    answer(&worker_with(Does::Streams(cut(bytes)), spoken(dialect)).await.0).await
}

fn end(got: &Got) -> (FinishReason, String, Usage) {
    match got.terminal() {
        Event::Finished(finished) => {
            let end = &finished.choices[0];
            (end.reason(), end.stop.clone(), finished.usage.unwrap())
        }
        other => panic!("it did not finish: {other:?}"),
    }
}

fn calls(entries: &[Entry]) -> Vec<(u32, String, String)> {
    let mut calls: Vec<(u32, String, String)> = Vec::new();
    for entry in entries {
        let Some(Event::ToolCall(piece)) = &entry.event else { continue };
        if piece.index as usize == calls.len() {
            calls.push((piece.index, piece.name.clone(), String::new()));
        }
        calls[piece.index as usize].2 += &piece.arguments;
    }
    calls
}

#[tokio::test]
async fn anthropics_messages_are_asked_with_their_key_version_and_most_tokens() {
    let settings = Settings {
        upstream_max_tokens: 77,
        ..spoken(Dialect::Messages)
    };
    let (worker, seen) = worker_with(Does::Streams(cut(MESSAGES_TEXT)), settings).await;
    let got = answer(&worker).await;
    assert_eq!(got.text(), "Grüße 🙂");
    let (reason, stop, usage) = end(&got);
    assert_eq!((reason, stop.as_str()), (FinishReason::Stop, "END"));
    assert_eq!((usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens), (75, 15, 40));
    assert_eq!(seen.path(), "/v1/messages");
    assert_eq!(
        (seen.header("x-api-key").as_str(), seen.header("anthropic-version").as_str()),
        ("sesame", "2023-06-01")
    );
    assert_eq!(seen.header("authorization"), "");
    assert_eq!(
        *seen.body.lock(),
        json!({
            "model": "m", "max_tokens": 77, "stream": true,
            "messages": [{"role": "user", "content": [{"type": "text", "text": "hi"}]}],
        })
    );
    let load = load_until(&mut worker.client().await, |load| !load.models.is_empty()).await;
    let model = &load.models[0];
    assert_eq!((model.created, model.embeddings, model.continuation), (86_400, false, false));
}

#[tokio::test]
async fn openais_responses_are_asked_with_a_bearer_and_keep_nothing() {
    let (worker, seen) = worker_with(Does::Streams(cut(RESPONSES_TEXT)), spoken(Dialect::Responses)).await;
    let got = answer(&worker).await;
    assert_eq!(got.text(), "Grüße 🙂");
    let (reason, _, usage) = end(&got);
    assert_eq!(reason, FinishReason::Stop);
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.reasoning_tokens,
            usage.cached_tokens
        ),
        (37, 11, 4, 5)
    );
    assert_eq!(
        (seen.path().as_str(), seen.header("authorization").as_str()),
        ("/v1/responses", "Bearer sesame")
    );
    assert_eq!(
        *seen.body.lock(),
        json!({"model": "m", "input": [{"role": "user", "content": "hi"}], "stream": true, "store": false})
    );
}

#[tokio::test]
async fn thoughts_and_calls_come_through_in_every_dialect() {
    for (dialect, bytes, paris) in [
        (Dialect::Messages, MESSAGES_TOOLS, r#"{"city": "Paris"}"#),
        (Dialect::Responses, RESPONSES_TOOLS, r#"{"city":"Paris"}"#),
    ] {
        let got = streamed(dialect, bytes).await;
        assert_eq!(got.entries[0].event, Some(Event::Reasoning("Two cities,".to_owned())));
        assert_eq!(
            calls(&got.entries),
            [
                (0, "weather".to_owned(), paris.to_owned()),
                (1, "clock".to_owned(), "{}".to_owned())
            ]
        );
        assert_eq!(end(&got).0, FinishReason::ToolCalls);
    }
}

#[tokio::test]
async fn an_error_event_ends_the_answer_with_its_reason_and_what_was_counted() {
    let got = streamed(Dialect::Messages, MESSAGES_OVERLOADED).await;
    assert_eq!((got.text().as_str(), got.failure().reason()), ("Gr", Reason::QueueFull));
    let usage = got.failure().usage.unwrap();
    assert_eq!(
        (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens),
        (75, 1, 40),
        "the input is the server's count, the rest ours"
    );
    let got = streamed(Dialect::Responses, RESPONSES_FAILED).await;
    assert_eq!((got.text().as_str(), got.failure().reason()), ("Gr", Reason::QueueFull));
    assert_eq!(got.failure().usage.unwrap().completion_tokens, 11);
}

#[tokio::test]
async fn a_stream_without_its_end_is_a_failure_in_every_dialect() {
    for (dialect, bytes, last) in [
        (Dialect::Messages, MESSAGES_TEXT, "event: message_delta"),
        (Dialect::Responses, RESPONSES_TEXT, "event: response.completed"),
    ] {
        let at = bytes.windows(last.len()).position(|window| window == last.as_bytes()).unwrap();
        let got = streamed(dialect, &bytes[..at]).await;
        assert_eq!((got.text().as_str(), got.failure().reason()), ("Grüße 🙂", Reason::Upstream));
    }
}

#[tokio::test]
async fn the_last_event_ends_the_answer_though_the_connection_stays() {
    for (dialect, bytes) in [(Dialect::Messages, MESSAGES_TEXT), (Dialect::Responses, RESPONSES_TEXT)] {
        let (worker, seen) = worker_with(Does::Hangs(cut(bytes)), spoken(dialect)).await;
        assert_eq!(end(&answer(&worker).await).0, FinishReason::Stop);
        seen.closed().await;
    }
}

#[tokio::test]
async fn a_ping_is_no_sign_of_life() {
    let settings = Settings {
        upstream_idle: Duration::from_millis(50),
        ..spoken(Dialect::Messages)
    };
    let text = "event: content_block_stop";
    let at = MESSAGES_TEXT
        .windows(text.len())
        .position(|window| window == text.as_bytes())
        .unwrap();
    let ping = "event: ping\ndata: {\"type\": \"ping\"}\n\n";
    let (worker, _) = worker_with(Does::Pings(vec![MESSAGES_TEXT[..at].to_vec()], ping), settings).await;
    let got = answer(&worker).await;
    assert_eq!((got.text().as_str(), got.failure().reason()), ("Grüße 🙂", Reason::Timeout));
}

#[tokio::test]
async fn a_cancel_closes_the_request_in_every_dialect() {
    for (dialect, bytes) in [(Dialect::Messages, MESSAGES_TEXT), (Dialect::Responses, RESPONSES_TEXT)] {
        let part = &bytes[..bytes.len() * 2 / 3];
        let (worker, seen) = worker_with(Does::Hangs(vec![part.to_vec()]), spoken(dialect)).await;
        let mut exchange = worker.exchange().await;
        exchange.start(1, said("a", "hi")).await;
        exchange.tokens(1, 1).await;
        exchange.cancel(1).await;
        assert!(exchange.end(1).await.is_cancelled());
        seen.closed().await;
    }
}

#[tokio::test]
async fn a_server_with_too_much_to_do_says_when_to_come_back() {
    let overloaded = r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#;
    for status in [429, 529] {
        let (worker, _) = worker_with(Does::Refuses(status, overloaded), spoken(Dialect::Messages)).await;
        let got = answer(&worker).await;
        assert_eq!((got.failure().reason(), got.failure().retry_after_ms), (Reason::QueueFull, 3000));
        assert!(got.failure().message.ends_with("Overloaded"));
    }
}

#[tokio::test]
async fn what_a_dialect_has_no_words_for_is_refused_before_the_server_is_asked() {
    let (worker, seen) = worker_with(Does::Streams(cut(RESPONSES_TEXT)), spoken(Dialect::Responses)).await;
    let mut request = said("a", "hi");
    let sampling = request.request.as_mut().unwrap().sampling.get_or_insert_default();
    sampling.stop = vec!["END".to_owned()];
    let status = worker.client().await.generate(request).await.map(drop).unwrap_err();
    let failure = proto::v1::Failure::from_status(&status);
    assert_eq!((failure.reason(), failure.param.as_str()), (Reason::Unsupported, "stop"));
    assert_eq!(seen.path(), "", "nothing was asked");
    let call = worker.client().await.generate(said("b", "hi")).await.unwrap();
    assert_eq!(whole(call.into_inner()).await.text(), "Grüße 🙂", "and the seat is free");
}

#[tokio::test]
async fn an_input_is_counted_where_the_dialect_has_a_way_to_ask() {
    let count = async |dialect| {
        let (worker, seen) = worker_with(Does::Streams(Vec::new()), spoken(dialect)).await;
        let mut request = said("a", "four bytes a token").request.unwrap();
        request.max_tokens = Some(9);
        let request = proto::v1::CountTokensRequest { request: Some(request) };
        let counted = worker.client().await.count_tokens(request).await.unwrap().into_inner();
        (counted.prompt_tokens, counted.estimated, seen.body.lock().clone())
    };
    let turn = json!({"role": "user", "content": [{"type": "text", "text": "four bytes a token"}]});
    let (tokens, estimated, body) = count(Dialect::Messages).await;
    assert_eq!((tokens, estimated), (11, false));
    assert_eq!(body, json!({"model": "m", "messages": [turn]}), "only the input is told");
    let (tokens, estimated, _) = count(Dialect::Responses).await;
    assert_eq!((tokens, estimated), (9, true), "a server that cannot count");
}

#[tokio::test]
async fn settings_that_contradict_each_other_are_refused_at_the_start() {
    let settings = Settings {
        upstream: Some("http://127.0.0.1:9/v1".to_owned()),
        upstream_continues: Continues::Vllm,
        ..spoken(Dialect::Messages)
    };
    let error = Openai::connect(&settings, &chassis::drain::Drain::new())
        .await
        .map(drop)
        .unwrap_err();
    assert!(error.to_string().contains("UNBROKEN_UPSTREAM_CONTINUES"), "{error}");
}
