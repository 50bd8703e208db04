//! The conversation store as a process of its own.

use std::process::ExitCode;

use chassis::{
    listen::listen,
    process::{self, Fault, Process},
};
use clap::Parser;
use conversation_store::Settings;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Unbroken's conversation store: conversations, turns and the request log over SQLite or PostgreSQL.
#[derive(Parser)]
#[command(name = "unbroken-store", version)]
struct Command {
    #[command(flatten)]
    store: Settings,
    #[command(flatten)]
    process: Process,
}

fn main() -> ExitCode {
    process::main(
        "unbroken-store",
        |command: &Command| command.process.clone().or_threads(1),
        async |command: Command, drain| {
            let listener = listen(&command.store.store_listen, "UNBROKEN_STORE_LISTEN")?;
            tracing::info!(address = %listener.local_addr()?, "the conversation store listens");
            let serving = conversation_store::run(command.store, listener, drain.clone());
            drain.serve(command.process.grace, serving).await.map_err(Fault::judged)
        },
    )
}
