//! The gateway as a process of its own.

use std::process::ExitCode;

use chassis::process::{self, Fault, Process};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The HTTP edge of the mesh: OpenAI's API, simple SSE and WebSocket doors, and a chat page
#[derive(Debug, Parser)]
#[command(name = "unbroken-gateway", version)]
struct Command {
    #[command(flatten)]
    gateway: gateway::Settings,
    #[command(flatten)]
    process: Process,
}

fn main() -> ExitCode {
    process::main(
        "unbroken-gateway",
        |command: &Command| command.process.clone().or_threads_for_sockets(),
        async |command: Command, drain| {
            let listener = chassis::listen::listen(&command.gateway.http, "UNBROKEN_HTTP")?;
            tracing::info!(address = %listener.local_addr()?, routers = ?command.gateway.routers, "gateway listens");
            let serving = gateway::run(command.gateway, listener, drain.clone());
            drain.serve(command.process.grace, serving).await.map_err(Fault::judged)
        },
    )
}
