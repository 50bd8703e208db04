//! The client side: bare HTTP/1.1 over TCP, so that the load costs little beside what it measures.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, ensure};
use memchr::memmem;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// What begins each event, and what ends an answer.
const EVENT: &[u8] = b"data: ";
const DONE: &[u8] = b"data: [DONE]";
/// What ends the body that it comes in.
const END: &[u8] = b"\r\n0\r\n\r\n";
/// More than the last event of an answer and what frames it.
const TAIL: usize = 64;
/// No answer takes longer.
const PATIENCE: Duration = Duration::from_mins(2);

/// How a scripted answer goes.
#[derive(Clone, Debug)]
pub struct Script {
    /// Begins each of its tokens: `id.0 `, `id.1 `, …
    pub id: String,
    /// How many tokens.
    pub tokens: u64,
    /// From one to the next.
    pub gap: Duration,
    /// Whether they come at steps that are common to all answers.
    pub aligned: bool,
    /// What else the prompt says.
    pub before: String,
    /// The API key to show.
    pub key: Option<String>,
}

impl Script {
    /// A chat completion request for it.
    pub fn request(&self, stream: bool) -> Vec<u8> {
        let aligned = if self.aligned { " step=1" } else { "" };
        let directive = format!(
            "{}[[script id={} tokens={} gap_us={} ttft_us=0{aligned}]]",
            self.before,
            self.id,
            self.tokens,
            self.gap.as_micros()
        );
        let body = json!({"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": directive}]});
        post("/v1/chat/completions", self.key.as_deref(), &body)
    }

    /// The same by the door that names the answer in its head and that is ended by hanging up.
    pub fn simple_request(&self) -> Vec<u8> {
        self.request_at("/stream?prompt=")
    }

    /// The same by a door that takes the prompt at the end of its address.
    pub fn request_at(&self, address: &str) -> Vec<u8> {
        let directive = format!(
            "[[script%20id={}%20tokens={}%20gap_us={}%20ttft_us=0]]",
            self.id,
            self.tokens,
            self.gap.as_micros()
        );
        let key = credential(self.key.as_deref());
        format!("GET {address}{directive} HTTP/1.1\r\nHost: localhost\r\n{key}\r\n").into_bytes()
    }
}

/// A request with a JSON body.
pub fn post(path: &str, key: Option<&str>, body: &Value) -> Vec<u8> {
    let (body, key) = (body.to_string(), credential(key));
    let length = body.len();
    format!("POST {path} HTTP/1.1\r\nHost: localhost\r\n{key}Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
        .into_bytes()
}

/// The header with the key, if there is one.
fn credential(key: Option<&str>) -> String {
    key.map_or_else(String::new, |key| format!("Authorization: Bearer {key}\r\n"))
}

/// One connection.
#[derive(Debug)]
pub struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Connection {
    /// Opens it.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        let stream = TcpStream::connect(address)
            .await
            .with_context(|| format!("connecting to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
        })
    }

    /// Sends a request; what was read before is forgotten.
    pub async fn send(&mut self, request: &[u8]) -> anyhow::Result<()> {
        self.buffer.clear();
        Ok(self.stream.write_all(request).await?)
    }

    /// Reads on until `mark` is there, and returns all that was read.
    pub async fn read_until(&mut self, mark: &[u8]) -> anyhow::Result<&[u8]> {
        self.read_until_after(0, mark).await
    }

    /// The same for a mark that begins at `from` or later.
    pub async fn read_until_after(&mut self, from: usize, mark: &[u8]) -> anyhow::Result<&[u8]> {
        let mut searched = from;
        while memmem::find(&self.buffer[searched..], mark).is_none() {
            searched = self.buffer.len().saturating_sub(mark.len()).max(from);
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
                .await
                .context("silence")??;
            ensure!(read > 0, "the answer broke off: {:?}", String::from_utf8_lossy(&self.buffer));
        }
        Ok(&self.buffer)
    }

    /// Reads a whole answer, and returns its body: with its framing, where it came in chunks.
    pub async fn read_whole(&mut self) -> anyhow::Result<&[u8]> {
        let head = self.read_until(b"\r\n\r\n").await?;
        ensure!(head.starts_with(b"HTTP/1.1 20"), "{:?}", String::from_utf8_lossy(head));
        let end = memmem::find(head, b"\r\n\r\n").unwrap_or_default() + 4;
        let text = String::from_utf8_lossy(&head[..end]).to_ascii_lowercase();
        if text.contains("transfer-encoding: chunked") {
            self.read_until(b"\r\n0\r\n\r\n").await?;
            return Ok(&self.buffer[end..]);
        }
        let length: usize = text
            .lines()
            .find_map(|line| line.strip_prefix("content-length: ")?.trim().parse().ok())
            .context("no length")?;
        while self.buffer.len() < end + length {
            ensure!(self.stream.read_buf(&mut self.buffer).await? > 0, "the answer broke off");
        }
        Ok(&self.buffer[end..])
    }

    /// Counts the events that come until the answer's end, those that came with its head too. Nothing is kept but the last few bytes.
    async fn drain(&mut self, events: &AtomicU64) -> anyhow::Result<()> {
        let count = |bytes: &[u8]| memmem::find_iter(bytes, EVENT).count() as u64;
        loop {
            events.fetch_add(count(&self.buffer), Ordering::Relaxed);
            if let Some(end) = memmem::find(&self.buffer, END) {
                let last = &self.buffer[end.saturating_sub(TAIL)..end];
                let whole = memmem::find(&without_framing(last), DONE).is_some();
                ensure!(whole, "the answer broke off: {:?}", String::from_utf8_lossy(&self.buffer[..end]));
                return Ok(());
            }
            // A mark that two reads share stays; one that was counted must not be counted again.
            self.buffer.drain(..self.buffer.len().saturating_sub(TAIL));
            events.fetch_sub(count(&self.buffer), Ordering::Relaxed);
            let read = timeout(PATIENCE, self.stream.read_buf(&mut self.buffer))
                .await
                .context("silence")??;
            ensure!(read > 0, "the connection broke off: {:?}", String::from_utf8_lossy(&self.buffer));
        }
    }
}

/// What is left without the sizes of chunks (<https://www.rfc-editor.org/rfc/rfc9112#section-7.1>): a proxy cuts wherever its buffer ends.
fn without_framing(bytes: &[u8]) -> Vec<u8> {
    let mut rest = bytes;
    let mut left = Vec::with_capacity(bytes.len());
    while let Some(at) = memmem::find(rest, b"\r\n") {
        let (before, after) = (&rest[..at], &rest[at + 2..]);
        left.extend_from_slice(before);
        let size = after.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        rest = match after[size..].strip_prefix(b"\r\n") {
            Some(data) if size > 0 => data,
            _ => after,
        };
    }
    left.extend_from_slice(rest);
    left
}

/// The status of a GET.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<u16> {
    let mut connection = Connection::open(address).await?;
    connection
        .send(format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").as_bytes())
        .await?;
    let head = timeout(Duration::from_secs(2), connection.read_until(b"\r\n")).await??;
    Ok(String::from_utf8_lossy(head).split(' ').nth(1).unwrap_or_default().parse()?)
}

/// Many answers that stream at once.
#[derive(Debug)]
pub struct Crowd {
    /// The events that have come so far.
    pub events: Arc<AtomicU64>,
    tasks: Vec<JoinHandle<anyhow::Result<Duration>>>,
}

impl Crowd {
    /// Starts `count` answers like `script`, each on its own connection, spread over `spread`.
    pub async fn start(address: SocketAddr, count: usize, script: Script, spread: Duration) -> anyhow::Result<Self> {
        let events = Arc::new(AtomicU64::new(0));
        let mut tasks = Vec::with_capacity(count);
        let pause = spread / u32::try_from(count)?.max(1);
        for number in 0..count {
            let mut connection = Connection::open(address).await?;
            let script = Script {
                id: format!("r{number}"),
                ..script.clone()
            };
            let counter = Arc::clone(&events);
            tasks.push(tokio::spawn(async move {
                connection.send(&script.request(true)).await?;
                let head = connection.read_until(b"\r\n\r\n").await?;
                ensure!(head.starts_with(b"HTTP/1.1 200"), "{:?}", String::from_utf8_lossy(head));
                let begun = Instant::now();
                connection.drain(&counter).await?;
                Ok(begun.elapsed())
            }));
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
        }
        Ok(Self { events, tasks })
    }

    /// Waits for the end of all, and says how long each streamed.
    pub async fn finish(mut self) -> anyhow::Result<Vec<Duration>> {
        let mut took = Vec::with_capacity(self.tasks.len());
        for task in self.tasks.drain(..) {
            took.push(task.await??);
        }
        Ok(took)
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_that_a_proxy_cut_in_two_is_found() {
        assert_eq!(
            without_framing(b"x\n\n\r\n9\r\ndata: [DO\r\n5\r\nNE]\n\n"),
            b"x\n\ndata: [DONE]\n\n"
        );
        assert_eq!(without_framing(b"a\r\nb"), b"ab");
        assert_eq!(without_framing(b""), b"");
    }
}
