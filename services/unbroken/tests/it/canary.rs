//! What people say, and what they prove themselves with, stands nowhere but in answers and conversations: distinctive texts go through the
//! whole mesh while it logs all that it can, and logs, traces, metrics and error bodies are looked through for them.

use std::time::Duration;

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    processes::AllInOne,
    stream::{Events, eventually, message, script},
    trace::Collector,
};

const GAP: Duration = Duration::from_millis(1);
/// What is looked for: of a prompt, an answer, a title, a tool, a schema, a key, an address.
const CANARIES: [&str; 8] = [
    "canaryprompt7f3a",
    "canaryanswer9c2b",
    "canarytitle51d0",
    "canarytool3e8f",
    "canaryschema4b6a",
    "canarykey0123456789abcdef",
    "canary.mail",
    "5550123",
];

/// The id of the requests: it is logged, but masked.
const OWN_ID: &str = "canary.mail@example.com";

/// A prompt with a secret, an address and a number in it, to which the scripted engine thinks, and then answers with another.
fn prompt() -> String {
    let script = script("canaryanswer9c2b", 12, GAP).replace("]]", " reasoning=2]]");
    format!("{script} canaryprompt7f3a, mail canary.mail@example.com or call +1 415 5550123")
}

fn request(path: &str) -> Value {
    let tool = json!({"name": "canarytool3e8f", "description": "canarytool3e8f", "parameters": {"type": "object"}});
    match path {
        "/v1/messages" => json!({"model": "scripted", "max_tokens": 12, "messages": [{"role": "user", "content": prompt()}]}),
        "/chat" => json!({"message": prompt()}),
        "/v1/completions" => json!({"prompt": prompt(), "max_tokens": 12, "user": "canary.mail@example.com"}),
        "/v1/responses" => json!({
            "input": [{"role": "user", "content": prompt()}],
            "instructions": "canaryprompt7f3a",
            "metadata": {"canarytitle51d0": "canarytitle51d0"},
            "user": "canary.mail@example.com",
            "tools": [{"type": "function", "name": "canarytool3e8f", "parameters": {"type": "object"}}],
            "tool_choice": "none",
        }),
        _ => json!({
            "messages": [{"role": "system", "content": "canaryprompt7f3a"}, {"role": "user", "content": prompt()}],
            "user": "canary.mail@example.com",
            "tools": [{"type": "function", "function": tool}],
            "tool_choice": "none",
        }),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_that_was_said_or_shown_stands_in_logs_traces_metrics_or_errors() {
    let (collector, endpoint) = Collector::start().await;
    let settings = [
        ("UNBROKEN_ENGINE", "scripted"),
        ("UNBROKEN_LOG", "trace"),
        ("UNBROKEN_LIMITS", "on"),
        ("UNBROKEN_TIERS", "free=16/0/4"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &endpoint),
    ];
    let mut mesh = AllInOne::start(&settings).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", mesh.http);
    let post = async |path: &str, body: &Value| {
        let sent = client
            .post(url(path))
            .header("authorization", "Bearer canarykey0123456789abcdef")
            .json(body);
        let sent = sent
            .header("x-api-key", "sk-canarykey0123456789abcdef")
            .header("x-request-id", OWN_ID);
        sent.send().await.unwrap()
    };
    let mut errors = String::new();

    // What goes well, at every door.
    for path in ["/v1/chat/completions", "/v1/messages", "/chat", "/v1/completions", "/v1/responses"] {
        for stream in [false, true] {
            let mut body = request(path);
            body["stream"] = stream.into();
            let said = post(path, &body).await.text().await.unwrap();
            assert!(said.contains("canaryanswer9c2b.3"), "{path}: {said}");
        }
    }
    for (path, name) in [("/stream", "prompt"), ("/v1/chat/stream", "q")] {
        let asked = client.get(url(path)).query(&[(name, prompt())]).send().await.unwrap();
        assert!(!Events::new(asked).rest().await.is_empty());
    }
    let (mut socket, _) = connect_async(format!("ws://{}/ws/chat", mesh.http)).await.unwrap();
    socket.send(Message::text(json!({ "prompt": prompt() }).to_string())).await.unwrap();
    while message(&mut socket).await["type"] == "token" {}
    let made = post("/conversations", &json!({"title": "canarytitle51d0"})).await;
    let id = made.json::<Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
    let items = json!({"items": [{"role": "user", "content": "canaryprompt7f3a"}], "metadata": {"k": "canarytitle51d0"}});
    let made: Value = post("/v1/conversations", &items).await.json().await.unwrap();
    let conversation = made["id"].as_str().unwrap();
    let path = format!("/v1/conversations/{conversation}/items");
    assert_eq!(post(&path, &items).await.status(), 200);
    let mut within = request("/v1/responses");
    within["conversation"] = conversation.into();
    assert_eq!(post("/v1/responses", &within).await.status(), 200);
    eventually("the turn stands in the conversation", async || {
        let listed = client.get(url(&path)).send().await.unwrap().text().await.unwrap();
        listed.matches("canaryprompt7f3a").count() >= 3 && listed.contains("canaryanswer9c2b.3")
    })
    .await;
    let vectors = post("/v1/embeddings", &json!({"input": [prompt()], "user": "canary.mail@example.com"})).await;
    assert_eq!(vectors.status(), 200);
    // The last request of the minute that the limits let pass.
    let said = post("/chat", &json!({"message": prompt(), "conversation_id": id})).await;
    assert_eq!(said.status(), 200);

    // And what does not.
    let mut wrong = Vec::new();
    for path in ["/v1/chat/completions", "/v1/messages", "/chat", "/v1/completions", "/v1/responses"] {
        let mut body = request(path);
        for bound in ["max_tokens", "max_output_tokens"] {
            body[bound] = json!(-1);
        }
        wrong.push((path, body));
        wrong.push((path, request(path)));
    }
    wrong.push(("/v1/embeddings", json!({"input": prompt(), "dimensions": -1})));
    wrong.push(("/v1/embeddings", json!({"input": prompt()})));
    wrong.push((
        &path,
        json!({"items": [{"role": "user", "content": "canaryprompt7f3a"}, {"type": "message", "content": 7}]}),
    ));
    let mut schema = request("/v1/chat/completions");
    schema["response_format"] =
        json!({"type": "json_schema", "json_schema": {"name": "x", "schema": {"canaryschema4b6a": [[[]]]}, "strict": 7}});
    wrong.push(("/v1/chat/completions", schema));
    for (path, body) in wrong {
        let response = post(path, &body).await;
        assert!(response.status().is_client_error(), "{path}: {}", response.status());
        // The id that the client itself chose comes back to it.
        errors.push_str(&response.text().await.unwrap().replace(OWN_ID, ""));
    }
    let broken = format!("{{\"messages\": \"{}", prompt());
    let sent = client
        .post(url("/v1/chat/completions"))
        .header("content-type", "application/json")
        .body(broken);
    errors.push_str(&sent.send().await.unwrap().text().await.unwrap());
    let metrics = client.get(url("/metrics")).send().await.unwrap().text().await.unwrap();

    mesh.process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(mesh.process.ended(Duration::from_secs(30)).await.unwrap().success());
    let logs = mesh.process.output();
    let traces = format!("{:?}", collector.spans());
    assert!(logs.contains("TRACE") && !traces.is_empty(), "it logs all that it can");
    for (name, told) in [("logs", &logs), ("traces", &traces), ("metrics", &metrics), ("errors", &errors)] {
        for canary in CANARIES {
            let found = told.lines().find(|line| line.contains(canary));
            assert!(found.is_none(), "{canary} stands in the {name}: {}", found.unwrap_or_default());
        }
    }
}
