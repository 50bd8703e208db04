//! The whole mesh in one process: gateway, router, engine worker and conversation store on loopback, as they would run in a cluster.
//!
//! Nothing is faked: they speak gRPC to each other over the same code, and every setting of theirs is a setting here. Only the
//! addresses between them are filled in.

mod banner;
mod mesh;

use std::process::ExitCode;

use chassis::process::Process;
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Serves LLM chat over HTTP (SSE, WebSocket, OpenAI's API) and gRPC. An answer that has begun arrives whole.
///
/// Starts the whole mesh in this process with a small real model. Each part is also a binary of its own: unbroken-gateway,
/// unbroken-router, unbroken-worker, unbroken-store.
#[derive(Parser, Debug)]
#[command(version, max_term_width = 120)]
struct Settings {
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

fn main() -> ExitCode {
    chassis::process::main("unbroken", |settings: &Settings| settings.process.clone(), mesh::run)
}
