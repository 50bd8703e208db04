//! A client that comes back: to any gateway, with the number of tokens that it has.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context as _, bail};
use memchr::memmem;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
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

/// Reads one scripted answer to its end, whatever it takes.
pub(crate) async fn read(gateways: Vec<SocketAddr>, id: String, tokens: u32, gap: Duration) -> History {
    let mut history = History::new(id);
    let mut stream_id = None;
    let mut fruitless = 0;
    let home = history.id.bytes().map(usize::from).sum::<usize>();
    for attempt in 0.. {
        let before = history.received();
        let gateway = gateways[(home + attempt) % gateways.len()];
        match follow(gateway, &mut history, &mut stream_id, tokens, gap).await {
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
async fn follow(
    gateway: SocketAddr,
    history: &mut History,
    stream_id: &mut Option<String>,
    tokens: u32,
    gap: Duration,
) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(gateway).await?;
    stream.set_nodelay(true)?;
    let prompt = format!(
        "[[script%20id={}%20tokens={tokens}%20gap_us={}%20ttft_us=0]]",
        history.id,
        gap.as_micros()
    );
    let resume = stream_id
        .as_ref()
        .map_or_else(String::new, |id| format!("&stream_id={id}&offset={}", history.received()));
    stream
        .write_all(format!("GET /stream?prompt={prompt}{resume} HTTP/1.1\r\nHost: mesh\r\n\r\n").as_bytes())
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
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    let named = head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("x-stream-id:")
            .map(|id| id.trim().to_owned())
    });
    *stream_id = Some(named.context("no X-Stream-ID")?);
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
