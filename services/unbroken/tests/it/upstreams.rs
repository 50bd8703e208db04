//! Upstreams in the dialects that are not chat completions, with the whole mesh before them as processes of their own: what they stream is
//! recorded, and what a client gets is the same answer in either dialect.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpListener, TcpStream},
    sync::Mutex,
};
use trial::{
    fleet::{Fleet, Layout},
    process::settings,
};

use crate::{
    processes::folder,
    stream::{Event, Events, completion},
};

/// What an upstream streams: to a question after the weather, to one that asks for trouble, and to all others.
pub(crate) struct Says {
    text: &'static str,
    tools: &'static str,
    fails: &'static str,
}

pub(crate) const RESPONSES: Says = Says {
    text: include_str!("../../../../engine-worker/transcripts/responses_text.sse"),
    tools: include_str!("../../../../engine-worker/transcripts/responses_tools.sse"),
    fails: include_str!("../../../../engine-worker/transcripts/responses_failed.sse"),
};
pub(crate) const MESSAGES: Says = Says {
    text: include_str!("../../../../engine-worker/transcripts/messages_text.sse"),
    tools: include_str!("../../../../engine-worker/transcripts/messages_tools.sse"),
    fails: include_str!("../../../../engine-worker/transcripts/messages_overloaded.sse"),
};

pub(crate) const CHAT: Says = Says {
    text: include_str!("../../../../engine-worker/transcripts/chat_text.sse"),
    tools: include_str!("../../../../engine-worker/transcripts/chat_tools.sse"),
    fails: include_str!("../../../../engine-worker/transcripts/chat_odd.sse"),
};

/// The paths and bodies that an upstream was asked with.
pub(crate) type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// A server that speaks one dialect. It ends with the test's runtime.
pub(crate) async fn upstream(says: &'static Says) -> (String, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Asked::default();
    let seen = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream, says, Arc::clone(&seen)));
        }
    });
    (format!("http://{address}/v1"), asked)
}

/// Answers one request, and closes.
async fn answer(stream: TcpStream, says: &Says, asked: Asked) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        if stream.read_line(&mut line).await? <= 2 {
            break;
        }
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().unwrap();
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).await?;
    let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
    let (kind, said) = if path.starts_with("/v1/models") {
        ("application/json", r#"{"data":[{"id":"far","created":7}]}"#)
    } else {
        let body: Value = serde_json::from_slice(&body).unwrap();
        let text = body.to_string();
        asked.lock().await.push((path, body));
        let said = match () {
            () if text.contains("weather") => says.tools,
            () if text.contains("trouble") => says.fails,
            () => says.text,
        };
        ("text/event-stream", said)
    };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\nconnection: close\r\n\r\n");
    stream.write_all(head.as_bytes()).await?;
    for piece in said.as_bytes().chunks(100) {
        stream.write_all(piece).await?;
        stream.flush().await?;
    }
    stream.shutdown().await
}

async fn ask(fleet: &Fleet, question: &str) -> Vec<Event> {
    let body = json!({
        "model": "far", "stream": true, "messages": [{"role": "user", "content": question}], "max_completion_tokens": 99,
        "tools": [{"type": "function", "function": {"name": "clock", "parameters": {"type": "object"}}}],
    });
    let url = format!("http://{}/v1/chat/completions", fleet.http[0]);
    Events::new(reqwest::Client::new().post(url).json(&body).send().await.unwrap())
        .rest()
        .await
}

/// The thoughts, the calls with their arguments, and how it ended.
fn thought_and_called(events: &[Event]) -> (String, Vec<(String, Value)>, Value) {
    let (mut thoughts, mut calls, mut end) = (String::new(), Vec::<(String, String)>::new(), Value::Null);
    for event in events.iter().filter(|event| event.data != "[DONE]") {
        let chunk: Value = serde_json::from_str(&event.data).unwrap();
        let choice = &chunk["choices"][0];
        thoughts.push_str(choice["delta"]["reasoning_content"].as_str().unwrap_or_default());
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if index == calls.len() {
                calls.push((call["function"]["name"].as_str().unwrap().to_owned(), String::new()));
            }
            calls[index].1 += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if !choice["finish_reason"].is_null() {
            end = choice["finish_reason"].clone();
        }
    }
    let calls = calls
        .into_iter()
        .map(|(name, arguments)| (name, serde_json::from_str(&arguments).unwrap()));
    (thoughts, calls.collect(), end)
}

/// A text, thoughts with calls, and a failure come through; returns what the upstream was asked first.
async fn through_the_mesh(dialect: &str, says: &'static Says) -> (String, Value) {
    let (address, asked) = upstream(says).await;
    let worker = settings(&[
        ("UNBROKEN_ENGINE", "openai"),
        ("UNBROKEN_UPSTREAM", &address),
        ("UNBROKEN_UPSTREAM_DIALECT", dialect),
    ]);
    let layout = Layout {
        bin: Some(folder()),
        workers: vec![worker],
        ..Layout::of(1, 1, 0)
    };
    let fleet = Fleet::start(&layout).await.unwrap();

    assert_eq!(completion(&ask(&fleet, "Say hello.").await), ("Grüße 🙂".to_owned(), true));

    let events = ask(&fleet, "How is the weather?").await;
    let (thoughts, calls, end) = thought_and_called(&events);
    assert_eq!(thoughts, "Two cities, two calls.");
    assert_eq!(
        calls,
        [("weather".to_owned(), json!({"city": "Paris"})), ("clock".to_owned(), json!({}))]
    );
    assert_eq!((&end, events.last().unwrap().data.as_str()), (&json!("tool_calls"), "[DONE]"));

    let events = ask(&fleet, "Make trouble.").await;
    assert_eq!(completion(&events), ("Gr".to_owned(), false));
    let error: Value = serde_json::from_str(&events.last().unwrap().data).unwrap();
    assert_eq!(error["error"]["code"], "queue_full", "{error}");

    let asked = asked.lock().await;
    assert_eq!(asked.len(), 3, "nothing is asked twice");
    asked[0].clone()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_responses_answers_through_the_whole_mesh() {
    let (path, body) = through_the_mesh("responses", &RESPONSES).await;
    assert_eq!(
        (path.as_str(), &body["model"], &body["store"]),
        ("/v1/responses", &json!("far"), &json!(false))
    );
    assert_eq!(body["input"], json!([{"role": "user", "content": "Say hello."}]));
    assert_eq!(
        (&body["max_output_tokens"], &body["tools"][0]["name"]),
        (&json!(99), &json!("clock"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_that_speaks_messages_answers_through_the_whole_mesh() {
    let (path, body) = through_the_mesh("messages", &MESSAGES).await;
    assert_eq!(
        (path.as_str(), &body["model"], &body["max_tokens"]),
        ("/v1/messages", &json!("far"), &json!(99))
    );
    let text = json!([{"type": "text", "text": "Say hello."}]);
    assert_eq!(body["messages"], json!([{"role": "user", "content": text}]));
    assert_eq!(body["tools"][0]["name"], "clock");
}
