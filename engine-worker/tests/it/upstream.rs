//! The engine over another server, against a small one with faults: what all dialects share, in the words of chat completions, and each
//! of the others by itself.

mod dialects;
mod server;

use std::time::Duration;

use engine_worker::openai::Settings;
use proto::v1::{EmbedRequest, Failure, FinishReason, Reason, entry::Event};
use serde_json::{Value, json};

use self::server::{Does, answer, pieces, worker, worker_with};
use crate::harness::{Got, load_until, said, whole};

const DONE: &str = "data: [DONE]\n\n";

async fn answer_to(does: Does) -> Got {
    answer(&worker(does).await.0).await
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn delta(delta: &Value) -> String {
    event(&json!({"choices": [{"index": 0, "delta": delta, "finish_reason": null}]}))
}

fn finish(reason: &str) -> String {
    event(&json!({"choices": [{"index": 0, "delta": {}, "finish_reason": reason, "stop_reason": "END"}]}))
}

fn usage() -> String {
    event(&json!({"choices": [], "usage": {
        "prompt_tokens": 11, "completion_tokens": 22,
        "prompt_tokens_details": {"cached_tokens": 3}, "completion_tokens_details": {"reasoning_tokens": 4},
    }}))
}

fn hello() -> Vec<String> {
    vec![
        delta(&json!({"role": "assistant", "content": ""})),
        delta(&json!({"reasoning_content": "hm"})),
        delta(&json!({"content": "Grüße "})),
        delta(&json!({"content": "🙂"})),
        finish("stop"),
        usage(),
        DONE.to_owned(),
    ]
}

#[tokio::test]
async fn content_reasoning_end_and_usage_are_passed_on() {
    let (worker, seen) = worker(Does::Streams(pieces(&hello()))).await;
    let got = answer(&worker).await;
    assert_eq!(got.text(), "Grüße 🙂");
    assert_eq!(got.entries[0].event, Some(Event::Reasoning("hm".to_owned())));
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(
        (finished.choices[0].reason(), finished.choices[0].stop.as_str()),
        (FinishReason::Stop, "END")
    );
    let usage = finished.usage.unwrap();
    assert_eq!(
        (
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.cached_tokens,
            usage.reasoning_tokens
        ),
        (11, 22, 3, 4)
    );
    assert_eq!(got.head.as_ref().unwrap().model, "m");
    assert_eq!(seen.body.lock()["messages"][0]["content"], "hi");
    assert_eq!(seen.header("authorization"), "Bearer sesame");
}

#[tokio::test]
async fn bytes_may_be_split_anywhere_also_inside_a_character() {
    let bytes = hello().concat().into_bytes();
    let got = answer_to(Does::Streams(bytes.chunks(1).map(<[u8]>::to_vec).collect())).await;
    assert_eq!(got.text(), "Grüße 🙂");
}

#[tokio::test]
async fn calls_of_functions_are_passed_on_piece_by_piece() {
    let call = |piece: Value| delta(&json!({"tool_calls": [piece]}));
    let got = answer_to(Does::Streams(pieces(&[
        call(json!({"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}})),
        call(json!({"index": 0, "function": {"arguments": "{\"a\":"}})),
        call(json!({"index": 0, "function": {"arguments": "1}"}})),
        finish("tool_calls"),
        DONE.to_owned(),
    ])))
    .await;
    let pieces = got.entries.iter().filter_map(|entry| match &entry.event {
        Some(Event::ToolCall(piece)) => Some((piece.id.clone(), piece.name.clone(), piece.arguments.clone())),
        _ => None,
    });
    let pieces: Vec<_> = pieces.collect();
    assert_eq!(pieces[0], ("c1".to_owned(), "look".to_owned(), String::new()));
    assert_eq!(pieces[1..].iter().map(|piece| piece.2.as_str()).collect::<String>(), r#"{"a":1}"#);
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.choices[0].reason(), FinishReason::ToolCalls);
    assert_eq!(
        finished.usage.unwrap().completion_tokens,
        3,
        "counted here where the server does not"
    );
}

#[tokio::test]
async fn a_stream_that_is_cut_is_a_failure_and_not_an_end() {
    let cut = |keep: usize| Does::Streams(pieces(&hello()[..keep]));
    for keep in [1, 3, 4] {
        let got = answer_to(cut(keep)).await;
        assert_eq!(got.failure().reason(), Reason::Upstream, "after {keep} events");
    }
    let only_done = answer_to(Does::Streams(vec![DONE.into()])).await;
    assert_eq!(only_done.failure().reason(), Reason::Upstream, "[DONE] alone is no end either");
}

#[tokio::test]
async fn an_error_in_the_middle_keeps_what_came_and_says_why() {
    let error = event(&json!({"error": {"message": "out of memory", "code": 500}}));
    let got = answer_to(Does::Streams(pieces(&[delta(&json!({"content": "so"})), error, DONE.to_owned()]))).await;
    assert_eq!(got.text(), "so");
    assert_eq!(got.failure().reason(), Reason::Upstream);
    assert!(got.failure().message.contains("out of memory"));
    assert_eq!(got.failure().usage.unwrap().completion_tokens, 1);
}

#[tokio::test]
async fn a_refusal_has_its_reason_and_the_servers_words() {
    let got = answer_to(Does::Refuses(429, r#"{"error":{"message":"slow down"}}"#)).await;
    assert_eq!((got.failure().reason(), got.failure().retry_after_ms), (Reason::QueueFull, 3000));
    assert!(got.failure().message.contains("slow down"));
    let got = answer_to(Does::Refuses(
        400,
        r#"{"error":{"message":"too long","code":"context_length_exceeded"}}"#,
    ))
    .await;
    assert_eq!(got.failure().reason(), Reason::ContextLengthExceeded);
}

#[tokio::test]
async fn silence_before_the_first_token_and_after_it_is_bounded() {
    let settings = || Settings {
        upstream_first_token: Duration::from_millis(150),
        upstream_idle: Duration::from_millis(50),
        ..Settings::default()
    };
    let role_only = hello()[..1].to_vec();
    let (slow, seen) = worker_with(Does::Hangs(pieces(&role_only)), settings()).await;
    let got = answer(&slow).await;
    assert_eq!(got.failure().reason(), Reason::Timeout);
    assert!(got.failure().message.contains("first token"));
    seen.closed().await;
    let (stuck, _) = worker_with(Does::Hangs(pieces(&hello()[..3])), settings()).await;
    let got = answer(&stuck).await;
    assert_eq!((got.failure().reason(), got.text().as_str()), (Reason::Timeout, "Grüße "));
}

#[tokio::test]
async fn an_end_without_a_close_is_an_end() {
    let (worker, _) = worker(Does::Hangs(pieces(&hello()))).await;
    assert!(
        matches!(answer(&worker).await.terminal(), Event::Finished(_)),
        "after [DONE] nothing is waited for"
    );
}

#[tokio::test]
async fn a_connection_that_breaks_is_a_failure_before_the_end_and_nothing_after_it() {
    let got = answer_to(Does::Breaks(pieces(&hello()[..3]))).await;
    assert_eq!((got.failure().reason(), got.text().as_str()), (Reason::Upstream, "Grüße "));
    let got = answer_to(Does::Breaks(pieces(&hello()[..6]))).await;
    assert!(matches!(got.terminal(), Event::Finished(_)), "{got:?}");
}

#[tokio::test]
async fn neither_the_usage_nor_a_goodbye_is_waited_for_without_end() {
    let got = answer_to(Does::Hangs(pieces(&hello()[..5]))).await;
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.usage.unwrap().completion_tokens, 3, "counted here");
    let got = answer_to(Does::Hangs(pieces(&hello()[..6]))).await;
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.usage.unwrap().completion_tokens, 22, "counted there");
}

#[tokio::test]
async fn keep_alives_are_no_sign_of_life() {
    let settings = Settings {
        upstream_idle: Duration::from_millis(50),
        ..Settings::default()
    };
    let role_only = "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\"},\"finish_reason\":null}]}\n\n";
    for ping in [": ping\n\n", "data:\n\n", role_only] {
        let (stuck, _) = worker_with(Does::Pings(pieces(&hello()[..3]), ping), settings.clone()).await;
        assert_eq!(answer(&stuck).await.failure().reason(), Reason::Timeout, "{ping:?}");
    }
}

#[tokio::test]
async fn a_cancel_closes_the_request_to_the_server() {
    let (worker, seen) = worker(Does::Hangs(pieces(&hello()[..3]))).await;
    let mut exchange = worker.exchange().await;
    exchange.start(1, said("a", "hi")).await;
    exchange.tokens(1, 2).await;
    assert_eq!(seen.open(), 1);
    exchange.cancel(1).await;
    assert!(exchange.end(1).await.is_cancelled());
    seen.closed().await;
    load_until(&mut worker.client().await, |load| load.busy == 0).await;
}

#[tokio::test]
async fn what_the_server_cannot_do_is_refused_before_it_is_asked() {
    let (worker, _) = worker(Does::Streams(pieces(&hello()))).await;
    let mut client = worker.client().await;
    let mut other = said("a", "hi");
    other.request.as_mut().unwrap().model = "other".to_owned();
    let status = client.generate(other).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason(), Reason::ModelNotFound);
    let mut resumed = said("a", "hi");
    resumed.position = 3;
    let status = client.generate(resumed).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason(), Reason::Unsupported);
}

#[tokio::test]
async fn vectors_come_in_the_order_of_their_texts_with_length_one() {
    let (worker, _) = worker(Does::Streams(Vec::new())).await;
    let request = EmbedRequest {
        inputs: vec!["a".to_owned(), "b".to_owned()],
        ..EmbedRequest::default()
    };
    let vectors = worker.client().await.embed(request).await.unwrap().into_inner();
    assert_eq!(vectors.embeddings.len(), 2);
    assert!((vectors.embeddings[1].values[1] - 0.8).abs() < 1e-6);
    assert_eq!(vectors.usage.unwrap().prompt_tokens, 5);
}

/// An answer of which two tokens were made elsewhere.
fn begun(stream_id: &str) -> proto::v1::GenerateRequest {
    let mut request = said(stream_id, "tell");
    request.request.as_mut().unwrap().max_tokens = Some(5);
    proto::v1::GenerateRequest {
        epoch: 2,
        position: 2,
        entries: vec![proto::v1::Entry::text("Once ", 1), proto::v1::Entry::text("upon", 2)],
        ..request
    }
}

#[tokio::test]
async fn an_answer_goes_on_where_the_server_can_continue_its_text() {
    let rest = "data: {\"choices\":[{\"delta\":{\"content\":\" a time\"}}]}\n\ndata: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n";
    let counts = "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":9,\"completion_tokens\":2}}\n\n";
    let settings = Settings {
        upstream_continues: engine_worker::openai::Continues::Vllm,
        ..Settings::default()
    };
    let (worker, seen) = worker_with(Does::Streams(vec![rest.into(), counts.into(), DONE.into()]), settings).await;
    let mut exchange = worker.exchange().await;
    exchange.start(1, begun("a")).await;
    let got = exchange.end(1).await;
    assert_eq!(
        (got.first, got.text().as_str()),
        (2, " a time"),
        "positions go on, and nothing is said again"
    );
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    let usage = finished.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (7, 4));
    let body = seen.body.lock().clone();
    assert_eq!(body["messages"][1], json!({"role": "assistant", "content": "Once upon"}));
    assert_eq!(
        (&body["continue_final_message"], &body["add_generation_prompt"], &body["max_tokens"]),
        (&json!(true), &json!(false), &json!(3))
    );
    let mut full = begun("b");
    full.request.as_mut().unwrap().max_tokens = Some(2);
    exchange.start(2, full).await;
    let Event::Finished(finished) = exchange.end(2).await.terminal() else {
        panic!()
    };
    assert_eq!(finished.choices[0].reason(), FinishReason::Length, "only its end was missing");
}

#[tokio::test]
async fn a_server_that_is_not_known_to_continue_a_text_is_not_asked_to() {
    let (worker, seen) = worker(Does::Streams(vec![DONE.into()])).await;
    let mut exchange = worker.exchange().await;
    exchange.start(1, begun("a")).await;
    let refused = exchange.end(1).await.refused.clone().unwrap();
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Unsupported, "resume"));
    assert_eq!(*seen.body.lock(), Value::Null);
}

#[tokio::test]
async fn a_raw_input_is_continued_by_the_legacy_completions() {
    let chunk =
        |text: &str| event(&json!({"choices": [{"index": 0, "text": text, "logprobs": {"tokens": [text], "token_logprobs": [-0.5]}}]}));
    let end = event(&json!({"choices": [{"index": 0, "text": "", "finish_reason": "length"}]}));
    let sent = [chunk(" upon"), chunk(" a"), end, DONE.to_owned()].concat();
    let (worker, seen) = worker(Does::Streams(vec![sent.into_bytes()])).await;
    let mut request = said("a", "Once");
    request.request.as_mut().unwrap().raw = true;
    let got = whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;
    assert_eq!((got.text().as_str(), got.tokens()), (" upon a", 2));
    assert!((got.entries[0].logprobs[0].logprob + 0.5).abs() < f32::EPSILON);
    let body = seen.body.lock();
    assert_eq!((body["prompt"].as_str(), body.get("messages")), (Some("Once"), None));
}

#[tokio::test]
async fn an_input_is_counted_by_vllm_and_estimated_elsewhere() {
    let counted = async |continues| {
        let settings = Settings {
            upstream_continues: continues,
            ..Settings::default()
        };
        let (worker, _) = worker_with(Does::Streams(Vec::new()), settings).await;
        let request = proto::v1::CountTokensRequest {
            request: said("a", "four bytes a token").request,
        };
        let counted = worker.client().await.count_tokens(request).await.unwrap().into_inner();
        (counted.prompt_tokens, counted.estimated)
    };
    assert_eq!(counted(engine_worker::openai::Continues::Vllm).await, (11, false));
    assert_eq!(counted(engine_worker::openai::Continues::No).await, (9, true));
}
