//! Kill at every position: one short answer of each kind, and after each of its pieces in turn the worker that writes it is killed, or the
//! router that carries it. What the client reads is equal to the unbroken answer, piece for piece, usage and all.

use std::time::Duration;

use proto::v1::{ListAnswersRequest, chat_service_client::ChatServiceClient};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    time::timeout,
};
use trial::client::Dial as _;

use super::{mesh::Mesh, on_a_mesh};

/// No piece takes longer, on the clock of the mesh.
const PATIENCE: Duration = Duration::from_secs(30);

/// Who is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Victim {
    Nobody,
    Worker,
    Router,
}

/// An answer that streams in.
pub(super) struct Reading {
    connection: tokio::io::DuplexStream,
    buffer: String,
    stream_id: String,
}

impl Reading {
    /// Asks a gateway for it; `header` is one line more, or nothing.
    pub(super) async fn start(mesh: &Mesh, gateway: usize, header: &str, body: &Value) -> Self {
        let body = body.to_string();
        let mut connection = mesh.gateways().dial(gateway).await.unwrap();
        let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length:";
        connection
            .write_all(format!("{head} {}\r\n{header}\r\n{body}", body.len()).as_bytes())
            .await
            .unwrap();
        let mut reading = Self {
            connection,
            buffer: String::new(),
            stream_id: String::new(),
        };
        let head = reading.until("\r\n\r\n").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}{}", reading.buffer);
        let name = head
            .lines()
            .find_map(|line| line.to_ascii_lowercase().strip_prefix("x-stream-id: ").map(str::to_owned));
        reading.stream_id = name.expect("the answer has a name");
        reading
    }

    async fn until(&mut self, mark: &str) -> String {
        loop {
            if let Some(at) = self.buffer.find(mark) {
                let rest = self.buffer.split_off(at + mark.len());
                return std::mem::replace(&mut self.buffer, rest);
            }
            let mut bytes = [0; 4096];
            let count = timeout(PATIENCE, self.connection.read(&mut bytes)).await.expect("silence").unwrap();
            assert!(count > 0, "the answer broke off: {}", self.buffer);
            self.buffer.push_str(std::str::from_utf8(&bytes[..count]).unwrap());
        }
    }

    /// The next chunk, without what names this very answer. `None` at `[DONE]`.
    pub(super) async fn next(&mut self) -> Option<Value> {
        loop {
            let event = self.until("\n\n").await;
            let Some((_, data)) = event.split_once("data: ") else { continue };
            if data.trim() == "[DONE]" {
                return None;
            }
            let chunk: Value = serde_json::from_str(data.trim()).unwrap();
            assert!(chunk.get("error").is_none(), "the answer failed: {chunk}");
            return Some(json!({"choices": chunk["choices"], "usage": chunk["usage"]}));
        }
    }
}

/// Reads one answer, and kills after so many chunks. Returns them, and whether there was somebody to kill.
async fn read(mesh: &mut Mesh, body: &Value, victim: Victim, after: usize) -> (Vec<Value>, bool) {
    let mut reading = Reading::start(mesh, 0, "", body).await;
    let (mut chunks, mut killed) = (Vec::new(), false);
    loop {
        if chunks.len() == after && !killed {
            let found = match victim {
                Victim::Nobody => None,
                Victim::Worker => mesh.writer(&reading.stream_id).await,
                Victim::Router => carrier(mesh, &reading.stream_id).await,
            };
            if let Some(found) = found {
                mesh.kill(&found);
                killed = true;
            }
        }
        let Some(chunk) = reading.next().await else {
            return (chunks, killed);
        };
        chunks.push(chunk);
    }
}

/// The router that carries this answer.
async fn carrier(mesh: &Mesh, stream_id: &str) -> Option<String> {
    for (number, channel) in mesh.routers().into_iter().enumerate() {
        let mut answers = ChatServiceClient::new(channel)
            .list_answers(ListAnswersRequest {})
            .await
            .ok()?
            .into_inner();
        while let Ok(Some(answer)) = answers.message().await {
            if answer.stream_id == stream_id && answer.state == "running" {
                return Some(format!("r{number}"));
            }
        }
    }
    None
}

/// One answer of each kind that the script can make.
fn kinds() -> Vec<(&'static str, Value)> {
    let ask = |script: &str, more: Value| {
        let mut body = json!({"model": "scripted", "stream": true, "seed": 7, "stream_options": {"include_usage": true},
            "messages": [{"role": "user", "content": script}]});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let pace = "gap_us=20000 ttft_us=20000";
    let tool = json!([{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]);
    let schema = json!({"type": "json_schema", "json_schema": {"name": "any", "schema": {"type": "object"}}});
    vec![
        ("text", ask(&format!("[[script id=t tokens=8 {pace}]]"), json!({}))),
        (
            "words that hang on the seed",
            ask(&format!("[[script tokens=8 {pace}]]"), json!({})),
        ),
        (
            "a stop string",
            ask(&format!("[[script id=t tokens=20 {pace}]]"), json!({"stop": ["t.6 t"]})),
        ),
        (
            "max_tokens",
            ask(&format!("[[script id=t tokens=20 {pace}]]"), json!({"max_tokens": 6})),
        ),
        ("two choices", ask(&format!("[[script id=t tokens=5 {pace}]]"), json!({"n": 2}))),
        (
            "log probabilities",
            ask(
                &format!("[[script id=t tokens=6 {pace}]]"),
                json!({"logprobs": true, "top_logprobs": 2}),
            ),
        ),
        ("reasoning", ask(&format!("[[script id=t tokens=8 reasoning=4 {pace}]]"), json!({}))),
        (
            "a call of a function",
            ask(&format!("[[script id=t tokens=7 tool=look {pace}]]"), json!({"tools": tool})),
        ),
        (
            "a schema",
            ask(&format!("[[script id=t tokens=6 {pace}]]"), json!({"response_format": schema})),
        ),
    ]
}

fn at_every_position(victim: Victim) {
    for (kind, body) in kinds() {
        let (unbroken, _) = on_a_mesh(async |mesh: &mut Mesh| read(mesh, &body, Victim::Nobody, 0).await);
        let mut kills = 0;
        for after in 0..unbroken.len() {
            let (chunks, killed) = on_a_mesh(async |mesh: &mut Mesh| read(mesh, &body, victim, after).await);
            assert_eq!(chunks, unbroken, "{kind}, killed after {after} chunks: {victim:?}");
            kills += u32::from(killed);
        }
        assert!(kills >= 5, "{kind}: only {kills} kills struck while it ran");
    }
}

#[test]
fn an_answer_is_the_same_wherever_its_worker_is_killed() {
    at_every_position(Victim::Worker);
}

#[test]
fn an_answer_is_the_same_wherever_its_router_is_killed() {
    at_every_position(Victim::Router);
}
