//! The router as a process of its own: `unbroken-router`.

use std::process::ExitCode;

use chassis::process::{Fault, Process};
use clap::Parser;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Admits, picks a worker, relays.
#[derive(Parser)]
#[command(name = "unbroken-router", version)]
struct Command {
    #[command(flatten)]
    router: router::Settings,
    #[command(flatten)]
    process: Process,
}

fn main() -> ExitCode {
    chassis::process::main(
        "unbroken-router",
        |command: &Command| command.process.clone().or_threads(1),
        |command, drain| async move {
            let listener = chassis::listen::listen(&command.router.grpc, "UNBROKEN_GRPC")?;
            let serving = router::run(command.router, listener, drain.clone());
            drain.serve(command.process.grace, serving).await.map_err(Fault::judged)
        },
    )
}
