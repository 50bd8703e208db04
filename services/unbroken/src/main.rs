//! The whole mesh in one process: gateway, router, engine worker and conversation store on loopback, as they would run in a cluster.
//!
//! Nothing is faked: they speak gRPC to each other over the same code, and every setting of theirs is a setting here. Only the
//! addresses between them are filled in.

mod banner;
mod keys;
mod mesh;

use std::process::ExitCode;

use chassis::process::Process;
use clap::{Parser, Subcommand};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves LLM chat over HTTP (SSE, WebSocket, OpenAI's API) and gRPC. An answer that has begun arrives whole.
///
/// Starts the whole mesh in this process with a small real model. Each part is also a binary of its own: unbroken-gateway,
/// unbroken-router, unbroken-worker, unbroken-store.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 120, args_conflicts_with_subcommands = true)]
struct Settings {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    process: Process,
    #[command(flatten)]
    gateway: gateway::Settings,
    #[command(flatten)]
    router: router::Settings,
    #[command(flatten)]
    worker: engine_worker::Settings,
    #[command(flatten)]
    store: conversation_store::Settings,
}

/// What to do instead of serving.
#[derive(Subcommand, Debug)]
enum Command {
    /// Makes, lists and revokes API keys, at a store that runs
    #[command(subcommand)]
    Keys(keys::Keys),
}

fn main() -> ExitCode {
    chassis::process::main(
        "unbroken",
        |settings: &Settings| settings.process.clone(),
        async |settings: Settings, drain| match settings.command {
            Some(Command::Keys(keys)) => keys::run(keys).await,
            None => mesh::run(settings, drain).await,
        },
    )
}
