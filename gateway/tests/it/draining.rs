//! What becomes of clients when the gateway stops: who can come back is sent to another one, the others have their answers to the end.

use std::time::Duration;

use proto::v1::{FinishReason, chat_command::Command};
use tokio::net::TcpStream;

use crate::{
    client::{self, Response},
    gateway::Gateway,
    router::{Received, Router, finished, texts},
};

/// An answer that is being read and has one entry.
async fn reading(gateway: &Gateway, router: &Router, path: &str) -> (Response, Received) {
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        received
    };
    let (mut response, received) = tokio::join!(client::open(gateway.address, path), play);
    while !response.chunk().await.unwrap().contains("\"a\"") {}
    (response, received)
}

/// The time in the last line of a stream, which must be one of the window.
fn is_farewell(text: &str) -> bool {
    let time = text.strip_prefix("retry: ").and_then(|rest| rest.strip_suffix('\n'));
    time.and_then(|time| time.parse::<u32>().ok())
        .is_some_and(|time| (100..=2000).contains(&time))
}

#[tokio::test]
async fn a_client_that_can_come_back_is_told_when_and_its_answer_goes_on() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "100ms", "--gateway-settle", "1h"]).await;
    let mut calls = Vec::new();
    let mut responses = Vec::new();
    for path in ["/v1/chat/stream?q=hi", "/stream?prompt=hi&resumable=1"] {
        let (response, received) = reading(&gateway, &router, path).await;
        responses.push(response);
        calls.push(received.call);
    }
    gateway.drain.begin();
    for mut response in responses {
        let rest = response.rest().await;
        assert!(is_farewell(&rest), "{rest:?}");
        let gone = router.next().await;
        assert!(gone.is_detach(true), "the client is expected back");
        calls.retain(|call| *call != gone.call);
    }
    assert!(calls.is_empty());
    let metrics = client::get(gateway.address, "/metrics").await.body;
    assert!(
        metrics.contains("status=\"moved\"") && metrics.contains("llm_connection_drops_total 0"),
        "{metrics}"
    );
}

#[tokio::test]
async fn a_plain_answer_is_finished_in_place() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "1ms", "--gateway-settle", "0s"]).await;
    let (mut plain, received) = reading(&gateway, &router, "/stream?prompt=hi").await;
    let (mut resumable, _) = reading(&gateway, &router, "/v1/chat/stream?q=hi").await;
    gateway.drain.begin();
    gateway.served.await.unwrap();
    assert!(TcpStream::connect(gateway.address).await.is_err(), "nobody listens any more");
    assert!(is_farewell(&resumable.rest().await));
    let drained = tokio::spawn(async move { gateway.drain.finish(Duration::from_secs(10)).await });
    received.entries(1, vec![finished(FinishReason::Stop, 1)]).await;
    assert_eq!(plain.rest().await, "data: [DONE]\n\n");
    assert!(drained.await.unwrap(), "everything ended by itself");
}

#[tokio::test]
async fn the_only_gateway_finishes_everything_in_place() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "0s"]).await;
    let (mut response, received) = reading(&gateway, &router, "/v1/chat/stream?q=hi").await;
    gateway.drain.begin();
    received.entries(1, vec![finished(FinishReason::Stop, 1)]).await;
    assert!(response.rest().await.contains("\"state\":\"finished\""));
}

#[tokio::test]
async fn what_is_left_at_the_end_of_the_grace_time_hears_why() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "1h", "--gateway-settle", "0s"]).await;
    let (mut plain, _) = reading(&gateway, &router, "/stream?prompt=hi").await;
    let (mut resumable, _) = reading(&gateway, &router, "/v1/chat/stream?q=hi").await;
    let whole = tokio::spawn(client::send(
        gateway.address,
        "POST /chat HTTP/1.1\ncontent-type: application/json\ncontent-length: 16",
        br#"{"message":"hi"}"#,
    ));
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    let waiting = tokio::spawn(client::open(gateway.address, "/stream?prompt=waits"));
    router.started().await;
    assert!(!gateway.drain.finish(Duration::from_millis(100)).await, "they were too slow");
    let rest = plain.rest().await;
    assert!(rest.contains("\"code\":\"draining\"") && !rest.contains("[DONE]"), "{rest}");
    assert!(is_farewell(&resumable.rest().await));
    for response in [whole, waiting] {
        let response = response.await.unwrap().whole().await;
        assert_eq!((response.status, &response.json()["error"]["code"]), (503, &"draining".into()));
    }
}

#[tokio::test]
async fn while_it_settles_a_gateway_serves_but_is_not_ready_and_sends_those_away_that_come_back() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-settle", "1h", "--gateway-handover", "1h"]).await;
    gateway.drain.begin();
    let ready = client::get(gateway.address, "/ready").await;
    assert_eq!((ready.status, ready.header("connection")), (503, Some("close")));
    let again = "GET /v1/chat/stream?q=hi HTTP/1.1\nlast-event-id: abc.3";
    let response = client::send(gateway.address, again, b"").await.whole().await;
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some("text/event-stream; charset=utf-8")),
        "a browser gives up for good on anything else"
    );
    assert!(is_farewell(&response.body), "{}", response.body);
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let post = async {
        client::post(gateway.address, "/v1/chat/completions?last_event_id=abc.3", body)
            .await
            .whole()
            .await
    };
    assert!(is_farewell(&post.await.body));
    let (response, _) = tokio::join!(
        client::get(gateway.address, "/stream?prompt=hi"),
        router.say(vec![finished(FinishReason::Stop, 0)])
    );
    assert_eq!(response.body, "data: [DONE]\n\n", "who does not know yet is served");
}

#[tokio::test]
async fn an_end_that_was_asked_for_reaches_whoever_carries_the_answer_next() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut socket = crate::websocket::connect(gateway.address).await;
    crate::websocket::say(&mut socket, serde_json::json!({ "type": "resume", "stream_id": "abc", "after": 4 })).await;
    let (received, asked) = router.attached().await;
    assert_eq!(asked.position, 5);
    received.admit("abc").await;
    received.entries(5, texts(&["a"])).await;
    crate::websocket::hear(&mut socket).await;
    crate::websocket::say(&mut socket, serde_json::json!({ "type": "cancel" })).await;
    assert!(
        matches!(router.next().await.command, Command::Cancel(_)),
        "who came back can end it too"
    );
    received.break_exchange().await;
    let (again, _) = router.attached().await;
    let cancel = router.next().await;
    assert!(matches!(cancel.command, Command::Cancel(_)) && cancel.call == again.call);
}
