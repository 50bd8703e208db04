//! `make demo-kill`: an answer of the real model, and a `kill -9` of the worker that is writing it, in the middle of a sentence.
//!
//! Two workers, a router, a gateway and a store as real processes. The text is printed as it arrives at an HTTP client that knows
//! nothing of all this. Afterwards the same request is made again, without a kill, and the two texts are compared.
#![allow(clippy::print_stdout)]

use std::{io::Write as _, path::PathBuf, time::Duration};

use anyhow::Context as _;
use clap::Parser;
use proto::v1::chat_service_client::ChatServiceClient;
use serde_json::{Value, json};
use tokio::time::Instant;
use trial::{
    fleet::{Fleet, Layout},
    load::{Connection, post},
    process,
};

/// Kills the worker that is writing an answer, and shows what the client sees.
#[derive(Parser)]
struct Settings {
    /// What to ask
    #[arg(long, default_value = "Tell me a short story about a lighthouse keeper and her cat.")]
    prompt: String,
    /// After how many tokens to kill the worker
    #[arg(long, default_value_t = 25)]
    kill_after: usize,
    /// How many tokens in all
    #[arg(long, default_value_t = 90)]
    tokens: usize,
    /// The folder with the built binaries; that of this one if not given
    #[arg(long)]
    bin: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    tokio::runtime::Runtime::new()?.block_on(run(&settings))
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    println!("Starting two workers (SmolLM2-135M), a router, a gateway and a store …");
    let layout = Layout {
        bin: settings.bin.clone(),
        settings: process::settings(&[("UNBROKEN_ENGINE", "llama"), ("UNBROKEN_LOG", "warn")]),
        ..Layout::of(1, 1, 2)
    };
    let mut fleet = Fleet::start(&layout).await?;
    both_ready(&fleet).await?;
    println!("\n\x1b[1m{}\x1b[0m\n", settings.prompt);
    let broken = read(settings, &mut fleet, Some(settings.kill_after)).await?;
    println!("\n\n\x1b[2mThe same request once more, and nobody is killed …\x1b[0m");
    let unbroken = read(settings, &mut fleet, None).await?;
    anyhow::ensure!(broken == unbroken, "the texts differ:\n{broken:?}\n{unbroken:?}");
    println!("\n\x1b[32mThe two answers are equal, token for token.\x1b[0m");
    Ok(())
}

/// Waits until the router sees both workers.
async fn both_ready(fleet: &Fleet) -> anyhow::Result<()> {
    let mut client = ChatServiceClient::connect(format!("http://{}", fleet.grpc[0])).await?;
    let mut statuses = client.watch_status(proto::v1::WatchStatusRequest {}).await?.into_inner();
    while let Some(status) = statuses.message().await? {
        if status
            .workers
            .iter()
            .filter(|worker| worker.state() == proto::v1::WorkerState::Ready)
            .count()
            == 2
        {
            return Ok(());
        }
    }
    anyhow::bail!("the router has gone")
}

/// Streams one answer, and kills its worker after so many tokens. Returns the text.
async fn read(settings: &Settings, fleet: &mut Fleet, kill_after: Option<usize>) -> anyhow::Result<String> {
    let body = json!({"stream": true, "temperature": 0.7, "seed": 4, "max_tokens": settings.tokens,
        "messages": [{"role": "user", "content": settings.prompt}]});
    let mut connection = Connection::open(fleet.http[0]).await?;
    connection.send(&post("/v1/chat/completions", None, &body)).await?;
    let (mut text, mut tokens, mut seen, mut killed) = (String::new(), 0, 0, None);
    loop {
        let all = String::from_utf8_lossy(connection.read_until_after(seen, b"\n\n").await?).into_owned();
        let end = all[seen..].find("\n\n").map_or(all.len(), |at| seen + at + 2);
        let event = all[seen..end].to_owned();
        seen = end;
        let Some((_, data)) = event.split_once("data: ") else { continue };
        if data.starts_with("[DONE]") {
            return Ok(text);
        }
        let chunk: Value = serde_json::from_str(data.trim()).with_context(|| data.to_owned())?;
        anyhow::ensure!(chunk.get("error").is_none(), "the answer broke: {chunk}");
        let Some(piece) = chunk["choices"][0]["delta"]["content"].as_str().filter(|piece| !piece.is_empty()) else {
            continue;
        };
        if let Some(killed) = killed.take() {
            let pause: Duration = Instant::elapsed(&killed);
            print!("\x1b[2m[{} ms]\x1b[0m", pause.as_millis());
        }
        if kill_after.is_some() {
            print!("{piece}");
            std::io::stdout().flush()?;
        }
        text.push_str(piece);
        tokens += 1;
        if Some(tokens) == kill_after {
            let victim = fleet.writer().await?;
            fleet.workers[victim].kill()?;
            killed = Some(Instant::now());
            print!("\x1b[31m[kill -9 {}]\x1b[0m", fleet.workers[victim].name());
        }
    }
}
