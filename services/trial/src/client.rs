//! A client that comes back: to any gateway, with what the door of its choice goes by.

use std::{
    future::Future,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use memchr::memmem;
use serde_json::json;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::history::History;

/// How soon it comes back: what `retry:` would tell a browser.
const RETRY: Duration = Duration::from_millis(50);
/// Attempts in a row that may bring nothing: they outlast a lease, after which a key is free whose router died just when it had taken it.
const ATTEMPTS: u32 = 600;
/// A stream that is silent for so long is given up, and read again.
const SILENCE: Duration = Duration::from_secs(20);

/// How a client reaches the gateways.
pub trait Dial: Send + Sync + 'static {
    /// A connection.
    type Connection: AsyncRead + AsyncWrite + Unpin + Send;

    /// How many gateways there are.
    fn gateways(&self) -> usize;

    /// Connects to one of them.
    fn dial(&self, gateway: usize) -> impl Future<Output = io::Result<Self::Connection>> + Send;
}

impl Dial for Vec<SocketAddr> {
    type Connection = TcpStream;

    fn gateways(&self) -> usize {
        self.len()
    }

    async fn dial(&self, gateway: usize) -> io::Result<TcpStream> {
        let stream = TcpStream::connect(self[gateway]).await?;
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// By which door it comes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Door {
    /// `GET /stream`: it comes back with the answer's name and the number of tokens that it has. One that was not told the name asks anew.
    #[default]
    Simple,
    /// `POST /v1/chat/completions` with `X-Unbroken-Resume`: it comes back with the `Last-Event-ID`. One that was told none sends its
    /// `Idempotency-Key` again, as it does the first time.
    Completions,
}

/// What it asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// By which door.
    pub door: Door,
    /// The script's name.
    pub id: String,
    /// How many tokens.
    pub tokens: u32,
    /// From one to the next.
    pub gap: Duration,
    /// In which conversation.
    pub conversation: Option<String>,
    /// Counts those that have begun: that have their first token.
    pub begun: Arc<AtomicUsize>,
}

impl Ask {
    fn prompt(&self) -> String {
        format!(
            "[[script id={} tokens={} gap_us={} ttft_us=0 epochs=1]]",
            self.id,
            self.tokens,
            self.gap.as_micros()
        )
    }

    /// The request for what is left of it.
    fn request(&self, history: &History) -> String {
        match self.door {
            Door::Simple => {
                let prompt = self.prompt().replace(' ', "%20");
                let conversation = self.conversation.as_ref().map(|id| format!("&conversation_id={id}"));
                let back = history.stream_id.as_ref();
                let back = back.map(|id| format!("&stream_id={id}&offset={}", history.received()));
                let [conversation, back] = [conversation, back].map(Option::unwrap_or_default);
                format!("GET /stream?prompt={prompt}{conversation}{back} HTTP/1.1\r\nHost: localhost\r\n\r\n")
            }
            Door::Completions => {
                let body = json!({
                    "model": "scripted", "stream": true, "conversation_id": self.conversation,
                    "messages": [{"role": "user", "content": self.prompt()}],
                });
                let body = body.to_string();
                let back = match &history.last_event {
                    Some(id) => format!("Last-Event-ID: {id}"),
                    None => format!("Idempotency-Key: {}", self.id),
                };
                let head =
                    "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nX-Unbroken-Resume: 1";
                format!("{head}\r\n{back}\r\nContent-Length: {}\r\n\r\n{body}", body.len())
            }
        }
    }
}

/// Reads one scripted answer to its end, whatever it takes.
pub async fn read(gateways: impl Dial, ask: Ask) -> History {
    let mut history = History::new(ask.id.clone());
    history.conversation.clone_from(&ask.conversation);
    let mut fruitless = 0;
    let home = ask.id.bytes().map(usize::from).sum::<usize>();
    for attempt in 0.. {
        let before = history.received();
        let gateway = (home + attempt) % gateways.gateways();
        match follow(&gateways, gateway, &mut history, &ask).await {
            Ok(()) => break,
            Err(error) => history.broken(&error),
        }
        fruitless = if history.received() > before { 0 } else { fruitless + 1 };
        if fruitless > ATTEMPTS || history.is_wrong() {
            break;
        }
        sleep(RETRY).await;
    }
    history
}

/// Reads from one gateway until the answer's end or the connection's.
async fn follow(gateways: &impl Dial, gateway: usize, history: &mut History, ask: &Ask) -> anyhow::Result<()> {
    let mut stream = gateways.dial(gateway).await?;
    stream.write_all(ask.request(history).as_bytes()).await?;
    let mut buffer = Vec::with_capacity(4096);
    let end = loop {
        if let Some(end) = memmem::find(&buffer, b"\r\n\r\n") {
            break end;
        }
        let read = timeout(SILENCE, stream.read_buf(&mut buffer)).await??;
        anyhow::ensure!(read > 0, "closed before its head");
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    if !head.starts_with("HTTP/1.1 200") {
        let body = String::from_utf8_lossy(&buffer[end + 4..]).into_owned();
        bail!("{} {body}", head.lines().next().unwrap_or_default());
    }
    let named = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("x-stream-id:")
            .map(|id| id.trim().to_owned())
    });
    history.stream_id = Some(named.context("no X-Stream-ID")?);
    buffer.drain(..end + 4);
    loop {
        while let Some(end) = memmem::find(&buffer, b"\n\n") {
            let event = String::from_utf8_lossy(&buffer[..end]).into_owned();
            buffer.drain(..end + 2);
            if let Some((before, data)) = event.split_once("data: ") {
                let id = before.lines().find_map(|line| line.split_once("id: "));
                let fresh = history.received() == 0;
                if history.event(data, Instant::now())? {
                    return Ok(());
                }
                if fresh && history.received() > 0 {
                    ask.begun.fetch_add(1, Ordering::Relaxed);
                }
                if let Some((_, id)) = id {
                    history.last_event = Some(id.to_owned());
                }
            }
        }
        let read = timeout(SILENCE, stream.read_buf(&mut buffer)).await.context("silence")??;
        anyhow::ensure!(read > 0, "the connection ended before the answer");
    }
}
