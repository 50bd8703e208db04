//! A client that comes back: to any gateway, with the number of tokens that it has.

use std::{future::Future, io, net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use memchr::memmem;
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::TcpStream,
    time::{Instant, sleep, timeout},
};

use crate::history::History;

/// How soon it comes back: what `retry:` would tell a browser.
const RETRY: Duration = Duration::from_millis(50);
/// Attempts in a row that may bring nothing.
const ATTEMPTS: u32 = 200;
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

/// What it asks for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// The script's name.
    pub id: String,
    /// How many tokens.
    pub tokens: u32,
    /// From one to the next.
    pub gap: Duration,
    /// In which conversation.
    pub conversation: Option<String>,
}

impl Ask {
    /// The query for it at the token door.
    fn query(&self) -> String {
        let conversation = self
            .conversation
            .as_ref()
            .map(|id| format!("&conversation_id={id}"))
            .unwrap_or_default();
        format!(
            "prompt=[[script%20id={}%20tokens={}%20gap_us={}%20ttft_us=0%20epochs=1]]{conversation}",
            self.id,
            self.tokens,
            self.gap.as_micros()
        )
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
    let resume = history
        .stream_id
        .as_ref()
        .map_or_else(String::new, |id| format!("&stream_id={id}&offset={}", history.received()));
    stream
        .write_all(format!("GET /stream?{}{resume} HTTP/1.1\r\nHost: mesh\r\n\r\n", ask.query()).as_bytes())
        .await?;
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
            if let Some((_, data)) = event.split_once("data: ")
                && history.event(data, Instant::now())?
            {
                return Ok(());
            }
        }
        let read = timeout(SILENCE, stream.read_buf(&mut buffer)).await.context("silence")??;
        anyhow::ensure!(read > 0, "the connection ended before the answer");
    }
}
