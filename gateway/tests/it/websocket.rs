//! Chat over a WebSocket.

use std::net::SocketAddr;

use futures_util::{SinkExt as _, StreamExt as _};
use proto::v1::{Entry, FinishReason, Usage, chat_command::Command};
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, tungstenite::Message};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished, texts},
};

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(crate) async fn connect(address: SocketAddr) -> Socket {
    tokio_tungstenite::connect_async(format!("ws://{address}/ws/chat")).await.unwrap().0
}

pub(crate) async fn say(socket: &mut Socket, message: Value) {
    socket.send(Message::text(message.to_string())).await.unwrap();
}

pub(crate) async fn hear(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Ping(_) => {}
            other => panic!("expected a text, got {other:?}"),
        }
    }
}

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hel", "lo"]);
    entries.push(finished(FinishReason::Stop, 2));
    entries
}

#[tokio::test]
async fn several_turns_are_answered_on_one_socket() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut socket = connect(gateway.address).await;
    for prompt in ["one", "two"] {
        say(&mut socket, json!({ "prompt": prompt, "max_tokens": 9 })).await;
        let request = router.say(hello()).await;
        assert_eq!((request.prompt.as_str(), request.max_tokens), (prompt, Some(9)));
        let id = request.stream_id;
        let token = |position, content| json!({ "type": "token", "stream_id": id, "position": position, "content": content });
        assert_eq!(hear(&mut socket).await, token(0, "Hel"));
        assert_eq!(hear(&mut socket).await, token(1, "lo"));
        let done = hear(&mut socket).await;
        assert_eq!((&done["type"], &done["finish_reason"]), (&"done".into(), &"stop".into()));
        assert_eq!(done["usage"]["completion_tokens"], 2);
    }
}

#[tokio::test]
async fn a_turn_can_be_cancelled_and_the_next_one_begun() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut socket = connect(gateway.address).await;
    say(&mut socket, json!({ "prompt": "hi" })).await;
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    received.entries(0, texts(&["Hel"])).await;
    assert_eq!(hear(&mut socket).await["content"], "Hel");
    say(&mut socket, json!({ "prompt": "me too" })).await;
    assert_eq!(hear(&mut socket).await["error"]["code"], "busy");
    say(&mut socket, json!({ "type": "cancel" })).await;
    assert!(matches!(router.next().await.command, Command::Cancel(_)));
    received.entries(1, vec![Entry::cancelled(Usage::default())]).await;
    assert_eq!(hear(&mut socket).await["type"], "cancelled");
    say(&mut socket, json!({ "prompt": "again" })).await;
    router.say(hello()).await;
    assert_eq!(hear(&mut socket).await["content"], "Hel");
}

#[tokio::test]
async fn an_answer_goes_on_over_another_socket() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut socket = connect(gateway.address).await;
    say(&mut socket, json!({ "type": "resume", "stream_id": "abc", "after": 0 })).await;
    let (received, asked) = router.attached().await;
    assert_eq!((asked.stream_id.as_str(), asked.position), ("abc", 1));
    received.admit("abc").await;
    received.entries(1, hello().split_off(1)).await;
    assert_eq!(hear(&mut socket).await["position"], 1);
    assert_eq!(hear(&mut socket).await["type"], "done");
}

#[tokio::test]
async fn what_is_wrong_with_a_message_is_said_and_the_socket_stays() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut socket = connect(gateway.address).await;
    let cases = [
        ("{", ""),
        ("{}", "prompt"),
        (r#"{"prompt":7}"#, "prompt"),
        (r#"{"type":"sing"}"#, "type"),
        (r#"{"type":"cancel"}"#, "type"),
        (r#"{"type":"resume"}"#, "stream_id"),
        (r#"{"prompt":"hi","disconnect":"stay"}"#, "disconnect"),
        (r#"{"prompt":"hi","detach_grace_ms":0}"#, "detach_grace_ms"),
    ];
    for (text, param) in cases {
        socket.send(Message::text(text)).await.unwrap();
        let message = hear(&mut socket).await;
        assert_eq!(
            (&message["type"], message["error"]["param"].as_str().unwrap_or_default()),
            (&"error".into(), param),
            "{text}"
        );
    }
    say(&mut socket, json!({ "prompt": "hi" })).await;
    router.say(hello()).await;
    assert_eq!(hear(&mut socket).await["content"], "Hel");
}

#[tokio::test]
async fn a_socket_that_goes_lets_go_of_its_answer() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    for admitted in [true, false] {
        let mut socket = connect(gateway.address).await;
        say(&mut socket, json!({ "prompt": "hi" })).await;
        let (received, request) = router.started().await;
        if admitted {
            received.admit(&request.stream_id).await;
            received.entries(0, texts(&["Hel"])).await;
            hear(&mut socket).await;
        }
        drop(socket);
        let gone = router.next().await;
        assert!(gone.is_detach(false) && gone.call == received.call);
    }
}

#[tokio::test]
async fn a_drain_closes_each_socket_with_1012_after_its_pending_tokens() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "200ms"]).await;
    let mut busy = connect(gateway.address).await;
    let mut idle = connect(gateway.address).await;
    say(&mut busy, json!({ "prompt": "hi" })).await;
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    received.entries(0, texts(&["Hel"])).await;
    assert_eq!(hear(&mut busy).await["content"], "Hel");
    received.entries(1, texts(&["lo"])).await;
    gateway.drain.begin();
    assert_eq!(closed(&mut idle).await, 1012);
    assert_eq!(hear(&mut busy).await["content"], "lo");
    assert_eq!(closed(&mut busy).await, 1012);
    let gone = router.next().await;
    assert!(gone.is_detach(true) && gone.call == received.call, "it resumes at another gateway");
}

#[tokio::test]
async fn a_socket_is_not_sent_away_before_it_knows_the_name_of_its_answer() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "1ms"]).await;
    let mut socket = connect(gateway.address).await;
    say(&mut socket, json!({ "prompt": "hi" })).await;
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    gateway.drain.begin();
    let early = tokio::time::timeout(std::time::Duration::from_millis(100), hear(&mut socket)).await;
    assert!(early.is_err(), "nothing was said, and it is open");
    received.entries(0, texts(&["Hel"])).await;
    assert_eq!(hear(&mut socket).await["stream_id"], request.stream_id.as_str());
    assert_eq!(closed(&mut socket).await, 1012);
}

#[tokio::test]
async fn the_only_gateway_closes_sockets_after_their_turn() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "0s"]).await;
    let mut busy = connect(gateway.address).await;
    let mut idle = connect(gateway.address).await;
    say(&mut busy, json!({ "prompt": "hi" })).await;
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    received.entries(0, texts(&["Hel", "lo"])).await;
    hear(&mut busy).await;
    gateway.drain.begin();
    assert_eq!(closed(&mut idle).await, 1012);
    received.entries(2, hello().split_off(2)).await;
    assert_eq!(hear(&mut busy).await["content"], "lo");
    assert_eq!(hear(&mut busy).await["type"], "done");
    assert_eq!(closed(&mut busy).await, 1012);
}

#[tokio::test]
async fn a_turn_that_outlasts_the_grace_time_is_closed_with_1012() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-handover", "0s"]).await;
    let mut socket = connect(gateway.address).await;
    say(&mut socket, json!({ "prompt": "hi", "disconnect": "background" })).await;
    let (received, request) = router.started().await;
    assert_eq!(request.disconnect(), proto::v1::DisconnectPolicy::Background);
    received.admit(&request.stream_id).await;
    received.entries(0, texts(&["Hel"])).await;
    hear(&mut socket).await;
    let drain = gateway.drain.clone();
    let finish = tokio::spawn(async move { drain.finish(std::time::Duration::from_millis(50)).await });
    assert_eq!(closed(&mut socket).await, 1012);
    drop(socket);
    assert!(!finish.await.unwrap(), "it was too slow");
}

async fn closed(socket: &mut Socket) -> u16 {
    loop {
        if let Message::Close(frame) = socket.next().await.unwrap().unwrap() {
            return frame.unwrap().code.into();
        }
    }
}

#[tokio::test]
async fn a_plain_request_is_told_to_upgrade() {
    let gateway = Gateway::before(&[]).await;
    assert_eq!(client::get(gateway.address, "/ws/chat").await.status, 426);
}

#[tokio::test]
async fn a_message_over_the_bound_closes_the_socket_with_1009() {
    let router = Router::start();
    let limit = 50_000;
    let gateway = Gateway::with(&[&router], &["--body-limit", &limit.to_string()]).await;
    let mut socket = connect(gateway.address).await;
    let prompt = "x".repeat(limit - 100);
    say(&mut socket, json!({ "prompt": prompt })).await;
    assert_eq!(router.say(hello()).await.prompt, prompt, "one within it is heard");
    while hear(&mut socket).await["type"] != "done" {}
    let (mut sending, mut heard) = socket.split();
    let too_much = sending.send(Message::text("x".repeat(limit + 1)));
    let close = async {
        loop {
            match heard.next().await.unwrap().unwrap() {
                Message::Close(frame) => return frame.unwrap(),
                Message::Ping(_) => {}
                other => panic!("expected a close, got {other:?}"),
            }
        }
    };
    // The rest of it is never read, so that sending it may fail.
    let (_, close) = tokio::join!(too_much, close);
    assert_eq!(
        (u16::from(close.code), close.reason.as_str()),
        (1009, "the message has more bytes than UNBROKEN_BODY_LIMIT")
    );
}
