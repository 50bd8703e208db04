//! Reading streams of events as a client does, and knowing from the text alone whether a token was lost, doubled or misplaced.

use std::time::Duration;

use futures_util::StreamExt as _;

/// No token takes longer.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// One server-sent event.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: Option<String>,
    pub(crate) name: Option<String>,
    pub(crate) data: String,
}

/// A stream of server-sent events that is being read.
pub(crate) struct Events {
    pub(crate) response: reqwest::Response,
    buffer: String,
}

impl Events {
    pub(crate) fn new(response: reqwest::Response) -> Self {
        assert_eq!(response.status(), 200, "{response:?}");
        assert_eq!(response.headers()["content-type"], "text/event-stream; charset=utf-8");
        Self {
            response,
            buffer: String::new(),
        }
    }

    /// The next event; `None` at the end of the stream. Comments are passed over.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        loop {
            if let Some(end) = self.buffer.find("\n\n") {
                let event = parse(&self.buffer[..end]);
                self.buffer.drain(..end + 2);
                if let Some(event) = event {
                    return Some(event);
                }
                continue;
            }
            let chunk = tokio::time::timeout(PATIENCE, self.response.chunk())
                .await
                .expect("silence")
                .ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("whole characters"));
        }
    }

    pub(crate) async fn rest(mut self) -> Vec<Event> {
        let mut events = Vec::new();
        while let Some(event) = self.next().await {
            events.push(event);
        }
        events
    }
}

fn parse(block: &str) -> Option<Event> {
    let mut event = Event::default();
    let mut seen = false;
    for line in block.lines() {
        let (field, value) = line.split_once(": ").or_else(|| line.split_once(':'))?;
        match field {
            "data" => event.data.push_str(value),
            "event" => event.name = Some(value.to_owned()),
            "id" => event.id = Some(value.to_owned()),
            _ => continue,
        }
        seen = true;
    }
    seen.then_some(event)
}

/// A prompt that makes the scripted engine say `id.0 id.1 …`.
pub(crate) fn script(id: &str, tokens: usize, gap: Duration) -> String {
    format!("[[script id={id} tokens={tokens} gap_us={} ttft_us=0]]", gap.as_micros())
}

/// What it says then.
pub(crate) fn oracle(id: &str, tokens: std::ops::Range<usize>) -> String {
    tokens.map(|token| format!("{id}.{token} ")).collect::<Vec<_>>().concat()
}

/// The texts of a stream of `{"token": …}` events, and whether `[DONE]` ended it.
pub(crate) fn tokens(events: &[Event]) -> (String, bool) {
    let done = events.last().is_some_and(|event| event.data == "[DONE]");
    let texts = events
        .iter()
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(&event.data).ok());
    (
        texts.filter_map(|value| Some(value.get("token")?.as_str()?.to_owned())).collect(),
        done,
    )
}

/// The texts of a stream of chat completion chunks, and whether `[DONE]` ended it.
pub(crate) fn completion(events: &[Event]) -> (String, bool) {
    let done = events.last().is_some_and(|event| event.data == "[DONE]");
    let chunks = events
        .iter()
        .filter_map(|event| serde_json::from_str::<serde_json::Value>(&event.data).ok());
    (
        chunks
            .filter_map(|chunk| Some(chunk["choices"][0]["delta"]["content"].as_str()?.to_owned()))
            .collect(),
        done,
    )
}

/// Waits until `holds`, by asking again and again.
pub(crate) async fn eventually(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    for _ in 0..1500 {
        if holds().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("never: {what}");
}

/// Reads a WebSocket's messages as JSON.
pub(crate) async fn message<S>(socket: &mut S) -> serde_json::Value
where
    S: futures_util::Stream<Item = Result<tokio_tungstenite::tungstenite::Message, tokio_tungstenite::tungstenite::Error>> + Unpin,
{
    loop {
        let message = tokio::time::timeout(PATIENCE, socket.next())
            .await
            .expect("silence")
            .expect("open")
            .expect("a message");
        if message.is_text() {
            return serde_json::from_str(message.to_text().unwrap()).unwrap();
        }
    }
}
