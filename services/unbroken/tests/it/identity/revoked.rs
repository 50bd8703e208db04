//! A key that is revoked while answers are made with it: they end, at every gateway, and nobody else's do.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use futures_util::SinkExt as _;
use reqwest::{Client, RequestBuilder, Response};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};
use trial::{
    fleet::{Fleet, Layout},
    process::settings,
};

use super::id_of;
use crate::{
    processes::{executable, folder},
    stream::{Event, Events, eventually, message, oracle, script, tokens},
};

const SECRET: &str = "a-key-secret-of-thirty-two-characters-and-more";
/// Tokens of an answer that nobody waits for, and from one to the next.
const LONG: usize = 3_000;
const GAP: Duration = Duration::from_millis(20);
/// So soon everything must have ended.
const BOUND: Duration = Duration::from_secs(2);

/// Two gateways that ask who calls, over one store.
struct Mesh {
    fleet: Fleet,
    client: Client,
}

impl Mesh {
    async fn start() -> Self {
        let layout = Layout {
            bin: Some(folder()),
            settings: settings(&[
                ("UNBROKEN_AUTH", "on"),
                ("UNBROKEN_KEY_SECRET", SECRET),
                ("UNBROKEN_LIMITS", "off"),
                ("UNBROKEN_LOG_FORMAT", "json"),
            ]),
            ..Layout::of(2, 2, 1)
        };
        Self {
            fleet: Fleet::start(&layout).await.unwrap(),
            client: Client::new(),
        }
    }

    fn operator(&self, arguments: &[&str]) -> String {
        let output = Command::new(executable("unbroken"))
            .arg("keys")
            .args(arguments)
            .env("UNBROKEN_STORE", self.fleet.history.to_string())
            .env("UNBROKEN_KEY_SECRET", SECRET)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn key(&self, user: &str) -> String {
        self.operator(&["create", "--quiet", "--user", user])
    }

    fn url(&self, gateway: usize, path: &str) -> String {
        format!("http://{}{path}", self.fleet.http[gateway])
    }

    fn post(&self, gateway: usize, path: &str, key: &str, body: &Value) -> RequestBuilder {
        self.client.post(self.url(gateway, path)).bearer_auth(key).json(body)
    }

    async fn stream(&self, gateway: usize, key: &str, query: &[(&str, &str)]) -> Response {
        let request = self.client.get(self.url(gateway, "/stream")).bearer_auth(key).query(query);
        request.send().await.unwrap()
    }

    /// The answers that are made now.
    async fn running(&self) -> usize {
        let mut running = 0;
        for router in self.fleet.router_channels().unwrap() {
            let mut client = proto::v1::chat_service_client::ChatServiceClient::new(router);
            let mut answers = client.list_answers(proto::v1::ListAnswersRequest {}).await.unwrap().into_inner();
            while let Some(answer) = answers.message().await.unwrap() {
                running += usize::from(answer.state == "running");
            }
        }
        running
    }
}

/// Reads to the end, and tells how it ended: the last event but an ending `[DONE]`, and whether there was that.
async fn end(mut events: Events) -> (Value, bool) {
    let (mut last, mut done) = (Event::default(), false);
    while let Some(event) = events.next().await {
        match event.data.as_str() {
            "[DONE]" => done = true,
            _ => last = event,
        }
    }
    (serde_json::from_str(&last.data).unwrap_or_default(), done)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_runs_with_a_revoked_key_ends_at_every_gateway_and_nothing_else_does() {
    let mesh = Mesh::start().await;
    let (key, other) = (mesh.key("ann"), mesh.key("ann"));
    let long = |id: &str| script(id, LONG, GAP);
    let messages = |id: &str| json!([{"role": "user", "content": long(id)}]);

    // With the key: a stream at each gateway, one that can be resumed, a whole answer, a socket, one that goes on without its client.
    let mut streams = Vec::new();
    for gateway in 0..2 {
        let chat = json!({"model": "scripted", "stream": true, "messages": messages("c")});
        let plain = mesh.post(gateway, "/v1/chat/completions", &key, &chat).send().await.unwrap();
        streams.push(Events::new(plain));
        let lasting = [("prompt", long("r")), ("disconnect", "background".to_owned())];
        let lasting: Vec<_> = lasting.iter().map(|(name, value)| (*name, value.as_str())).collect();
        streams.push(Events::new(mesh.stream(gateway, &key, &lasting).await));
    }
    let chat = json!({"model": "scripted", "messages": messages("w")});
    let whole = tokio::spawn(mesh.post(1, "/v1/chat/completions", &key, &chat).send());
    let mut address = mesh.url(0, "/ws/chat").replace("http:", "ws:").into_client_request().unwrap();
    let bearer = format!("Bearer {key}").parse().unwrap();
    address.headers_mut().insert("authorization", bearer);
    let (mut socket, _) = connect_async(address).await.unwrap();
    socket.send(Message::text(json!({"prompt": long("s")}).to_string())).await.unwrap();
    assert_eq!(message(&mut socket).await["type"], "token");

    // With another key of the same user: an answer of its own.
    let theirs = mesh.stream(0, &other, &[("prompt", &script("o", 250, GAP))]).await;
    let theirs = tokio::spawn(Events::new(theirs).rest());
    for events in &mut streams {
        events.next().await.unwrap();
    }
    eventually("all of them run", async || mesh.running().await == 7).await;

    mesh.operator(&["revoke", id_of(&key)]);
    let revoked = Instant::now();
    for events in streams {
        let (last, done) = end(events).await;
        assert_eq!((&last["error"]["code"], done), (&json!("revoked"), false), "{last}");
    }
    let said = loop {
        let said = message(&mut socket).await;
        if said["type"] != "token" {
            break said;
        }
    };
    assert_eq!((&said["type"], &said["error"]["code"]), (&json!("error"), &json!("revoked")));
    let whole = whole.await.unwrap().unwrap();
    assert_eq!(whole.status(), 401);
    assert_eq!(whole.json::<Value>().await.unwrap()["error"]["code"], "revoked");
    assert!(revoked.elapsed() < BOUND, "after {:?}", revoked.elapsed());
    eventually("their generation stops, and only theirs", async || mesh.running().await == 1).await;
    assert!(revoked.elapsed() < BOUND + Duration::from_secs(1), "after {:?}", revoked.elapsed());
    assert_eq!(tokens(&theirs.await.unwrap()), (oracle("o", 0..250), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_only_reads_with_a_revoked_key_does_not_end_the_answer_of_another() {
    let mesh = Mesh::start().await;
    let (key, reader) = (mesh.key("ann"), mesh.key("ann"));
    let begun = mesh.stream(0, &key, &[("prompt", &script("b", 250, GAP))]).await;
    let stream_id = begun.headers()["x-stream-id"].to_str().unwrap().to_owned();
    let begun = tokio::spawn(Events::new(begun).rest());
    let read = mesh.stream(1, &reader, &[("stream_id", &stream_id)]).await;
    let mut read = Events::new(read);
    read.next().await.unwrap();
    mesh.operator(&["revoke", id_of(&reader)]);
    let revoked = Instant::now();
    let (last, done) = end(read).await;
    assert_eq!((&last["error"]["code"], done), (&json!("revoked"), false), "{last}");
    assert!(revoked.elapsed() < BOUND, "after {:?}", revoked.elapsed());
    assert_eq!(tokens(&begun.await.unwrap()), (oracle("b", 0..250), true));
}
