//! What stands open is bounded in time; what is served is served whole.

use std::time::Duration;

use proto::v1::FinishReason;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished, texts},
};

#[tokio::test]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let gateway = Gateway::with(&[], &["--head-timeout", "200ms"]).await;
    for begun in ["", "GET / HTT"] {
        let mut stream = TcpStream::connect(gateway.address).await.unwrap();
        stream.write_all(begun.as_bytes()).await.unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).await.unwrap();
    }
}

#[tokio::test]
async fn a_stalled_body_is_refused_and_its_connection_closed() {
    let gateway = Gateway::with(&[], &["--body-timeout", "200ms"]).await;
    let head = "POST /chat HTTP/1.1\ncontent-type: application/json\ncontent-length: 100";
    let mut response = client::send(gateway.address, head, b"{").await;
    assert_eq!(response.status, 408);
    assert!(response.rest().await.contains("body_timeout"));
    response.closed().await;
}

#[tokio::test]
async fn a_silent_stream_says_that_it_is_still_there() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--sse-keepalive", "50ms"]).await;
    let message = r#"{"model":"tiny","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}"#;
    for (method, path, body, ping) in [
        ("GET", "/stream?prompt=hi", "", ": ping\n\n"),
        ("GET", "/v1/chat/stream?q=hi", "", "event: ping\ndata: {}\n\n"),
        ("POST", "/v1/messages", message, "event: ping\ndata: {\"type\":\"ping\"}\n\n"),
    ] {
        let play = async {
            let (received, request) = router.started().await;
            received.admit(&request.stream_id).await;
            received
        };
        let (mut response, received) = tokio::join!(client::request(gateway.address, method, path, body), play);
        while response.chunk().await.as_deref() != Some(ping) {}
        received.entries(0, vec![finished(FinishReason::Stop, 0)]).await;
        assert!(response.rest().await.contains("data: "));
    }
}

#[tokio::test]
async fn nothing_is_sent_before_the_answer_is_admitted() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--sse-keepalive", "20ms"]).await;
    let mut waiting = tokio::spawn(client::open(gateway.address, "/stream?prompt=hi"));
    let (received, request) = router.started().await;
    let early = tokio::time::timeout(Duration::from_millis(200), &mut waiting).await;
    assert!(early.is_err(), "no head, and no ping, while the request waits for a slot");
    received.admit(&request.stream_id).await;
    assert_eq!(waiting.await.unwrap().status, 200);
}

#[tokio::test]
async fn a_chunk_is_made_of_whole_events() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        for position in 0..50 {
            received.entries(position, texts(&["word"])).await;
        }
        received.entries(50, vec![finished(FinishReason::Stop, 50)]).await;
    };
    let read = async {
        let mut response = client::open(gateway.address, "/v1/chat/stream?q=hi").await;
        while let Some(chunk) = response.chunk().await {
            assert!(
                (chunk.starts_with("id: ") || chunk.starts_with("retry: ")) && chunk.ends_with("\n\n"),
                "{chunk:?}"
            );
        }
    };
    tokio::join!(read, play);
}

#[tokio::test]
async fn a_page_from_elsewhere_may_call_only_by_setting() {
    let preflight = "OPTIONS /chat HTTP/1.1\norigin: https://chat.example.com\naccess-control-request-method: POST";
    let closed = Gateway::before(&[]).await;
    assert!(
        client::send(closed.address, preflight, b"")
            .await
            .header("access-control-allow-origin")
            .is_none()
    );
    let open = Gateway::with(&[], &["--cors-origins", "https://chat.example.com"]).await;
    let response = client::send(open.address, preflight, b"").await;
    assert_eq!(response.header("access-control-allow-origin"), Some("https://chat.example.com"));
}
