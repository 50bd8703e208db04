//! The conversation store as a process of its own.

use std::process::ExitCode;

use chassis::{
    listen::listen,
    process::{self, Process, WrongSetting},
};
use clap::Parser;
use conversation_store::Settings;

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
        |command: &Command| command.process.clone(),
        async |command: Command, drain| {
            let listener = listen(&command.store.store_listen, "UNBROKEN_STORE_LISTEN")?;
            tracing::info!(address = %listener.local_addr()?, "the conversation store listens");
            let serving = conversation_store::run(command.store, listener, drain.clone());
            drain.serve(command.process.grace, serving).await.map_err(in_words)
        },
    )
}

/// The exit code depends on whose turn it is, and the line has all causes.
fn in_words(error: conversation_store::Error) -> Box<dyn std::error::Error + Send + Sync> {
    if !error.is_wrong_setting() {
        return error.into();
    }
    let cause = std::error::Error::source(&error)
        .map(|cause| format!(": {cause}"))
        .unwrap_or_default();
    WrongSetting(format!("{error}{cause}")).into()
}
