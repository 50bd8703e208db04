//! The worker as a process of its own.

use std::process::ExitCode;

use chassis::{
    listen::listen,
    process::{Fault, Process},
};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// A worker of Unbroken: runs a model and serves its answers to routers
#[derive(Parser)]
#[command(name = "unbroken-worker", version)]
struct Command {
    #[command(flatten)]
    process: Process,
    #[command(flatten)]
    worker: engine_worker::Settings,
}

fn main() -> ExitCode {
    chassis::process::main(
        "unbroken-worker",
        |command: &Command| command.process.clone().or_threads(1),
        |command, drain| async move {
            let listener = listen(&command.worker.worker_listen, "UNBROKEN_WORKER_LISTEN")?;
            let serving = Box::pin(engine_worker::run(command.worker, listener, drain.clone())); // its settings make it large
            drain.serve(command.process.grace, serving).await.map_err(Fault::judged)
        },
    )
}
