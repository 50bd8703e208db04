//! The loads, each for a few seconds.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use futures_util::{SinkExt as _, StreamExt as _};
use proto::v1::{ChatRequest, chat_service_client::ChatServiceClient};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use trial::load::{Connection, Crowd, Script, post};

/// What is asked at each door.
const PROMPT: &str = "[[script id=t tokens=20 gap_us=0 ttft_us=0]]";
/// How often.
const TIMES: usize = 150;

/// What is trained.
pub(crate) struct Mesh {
    /// Where its gateway listens.
    pub(crate) http: SocketAddr,
    /// Where its router listens.
    pub(crate) grpc: SocketAddr,
    /// The API key that it asks for.
    pub(crate) key: Option<String>,
}

/// All of them, one after the other.
pub(crate) async fn all(mesh: &Mesh) -> anyhow::Result<()> {
    small(mesh).await?;
    for _ in 0..3 {
        crowd(mesh, 64, 200, Duration::ZERO, false).await?;
    }
    crowd(mesh, 200, 150, Duration::from_millis(20), true).await?;
    crowd(mesh, 200, 150, Duration::from_millis(20), false).await?;
    doors(mesh).await?;
    conversation(mesh).await?;
    hang_up(mesh).await?;
    websocket(mesh).await?;
    grpc(mesh).await
}

fn script(mesh: &Mesh, tokens: u64, gap: Duration, aligned: bool) -> Script {
    Script {
        id: "t".to_owned(),
        tokens,
        gap,
        aligned,
        before: String::new(),
        key: mesh.key.clone(),
    }
}

/// Short answers that do not stream, on eight connections.
async fn small(mesh: &Mesh) -> anyhow::Result<()> {
    let request = script(mesh, 8, Duration::ZERO, false).request(false);
    let client = || async {
        let mut connection = Connection::open(mesh.http).await?;
        for _ in 0..400 {
            connection.send(&request).await?;
            connection.read_whole().await?;
        }
        anyhow::Ok(())
    };
    futures_util::future::try_join_all((0..8).map(|_| client())).await?;
    Ok(())
}

/// Answers that stream side by side.
async fn crowd(mesh: &Mesh, streams: usize, tokens: u64, gap: Duration, aligned: bool) -> anyhow::Result<()> {
    let spread = if aligned { Duration::ZERO } else { gap };
    let crowd = Crowd::start(mesh.http, streams, script(mesh, tokens, gap, aligned), spread).await?;
    crowd.finish().await?;
    Ok(())
}

/// Every HTTP door that starts an answer.
async fn doors(mesh: &Mesh) -> anyhow::Result<()> {
    let said = json!([{"role": "user", "content": PROMPT}]);
    let doors: [(&str, Value); 8] = [
        ("/v1/chat/completions", json!({"messages": said})),
        (
            "/v1/chat/completions",
            json!({"messages": said, "stream": true, "stream_options": {"resumable": true, "include_usage": true}}),
        ),
        ("/v1/completions", json!({"prompt": PROMPT, "stream": true})),
        ("/v1/responses", json!({"input": PROMPT, "stream": true})),
        ("/v1/responses", json!({"input": PROMPT, "store": false})),
        (
            "/v1/messages",
            json!({"model": "scripted", "messages": said, "max_tokens": 50, "stream": true}),
        ),
        ("/v1/messages", json!({"model": "scripted", "messages": said, "max_tokens": 50})),
        ("/chat", json!({"message": PROMPT})),
    ];
    let mut requests: Vec<_> = doors.iter().map(|(path, body)| post(path, mesh.key.as_deref(), body)).collect();
    let script = script(mesh, 20, Duration::ZERO, false);
    let addresses = ["/stream?prompt=", "/v1/chat/completions/stream?prompt=", "/v1/chat/stream?q="];
    requests.extend(addresses.map(|address| script.request_at(address)));
    let mut connection = Connection::open(mesh.http).await?;
    for request in &requests {
        for _ in 0..TIMES {
            connection.send(request).await?;
            connection.read_whole().await?;
        }
    }
    Ok(())
}

/// Turns that know what was said before.
async fn conversation(mesh: &Mesh) -> anyhow::Result<()> {
    let mut connection = Connection::open(mesh.http).await?;
    connection
        .send(&post("/conversations", mesh.key.as_deref(), &json!({"title": "Cats"})))
        .await?;
    let made: Value = serde_json::from_slice(connection.read_whole().await?)?;
    let turn = post(
        "/chat",
        mesh.key.as_deref(),
        &json!({"message": PROMPT, "conversation_id": made["id"]}),
    );
    for _ in 0..30 {
        connection.send(&turn).await?;
        connection.read_whole().await?;
    }
    Ok(())
}

/// Clients that go away in the middle.
async fn hang_up(mesh: &Mesh) -> anyhow::Result<()> {
    let request = script(mesh, 100_000, Duration::from_millis(1), false).simple_request();
    for _ in 0..TIMES {
        let mut connection = Connection::open(mesh.http).await?;
        connection.send(&request).await?;
        connection.read_until(b"t.2 ").await?;
    }
    Ok(())
}

/// Turns on one socket.
async fn websocket(mesh: &Mesh) -> anyhow::Result<()> {
    let mut request = format!("ws://{}/ws/chat", mesh.http).into_client_request()?;
    if let Some(key) = &mesh.key {
        request.headers_mut().insert("authorization", format!("Bearer {key}").parse()?);
    }
    let (mut socket, _) = connect_async(request).await?;
    for _ in 0..TIMES {
        socket.send(Message::text(json!({"prompt": PROMPT}).to_string())).await?;
        loop {
            let message = socket.next().await.context("the socket ended")??;
            let said: Value = serde_json::from_str(message.to_text()?)?;
            anyhow::ensure!(said["type"] != "error", "{said}");
            if said["type"] == "done" {
                break;
            }
        }
    }
    socket.close(None).await?;
    Ok(())
}

/// Answers of an internal service.
async fn grpc(mesh: &Mesh) -> anyhow::Result<()> {
    let mut client = ChatServiceClient::connect(format!("http://{}", mesh.grpc)).await?;
    for _ in 0..TIMES {
        let request = ChatRequest {
            prompt: PROMPT.to_owned(),
            ..ChatRequest::default()
        };
        let mut answer = client.stream_chat(request).await?.into_inner();
        while answer.message().await?.is_some() {}
    }
    Ok(())
}
