//! `make bench`: what the mesh costs, beside nginx in front of a plain SSE upstream, and beside the same load straight at the worker.
//!
//! Everything runs on loopback, in one run, in turns, with the scripted engine. Figures that a shared machine blurs (seconds) are
//! given as ratios; CPU time and memory are read from the processes themselves. The result is a table on standard output and JSON in a file.
//!
//! [`cases`] has what is measured, one file a case.

mod cases;

use std::{net::SocketAddr, path::PathBuf};

use clap::{Parser, Subcommand};

use trial::{report::Report, upstream};

/// Measures the mesh.
#[derive(Parser)]
struct Settings {
    #[command(subcommand)]
    command: Option<Command>,
    /// The folder with the built binaries; that of this one if not given
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where to write the figures as JSON
    #[arg(long, default_value = "target/bench.json")]
    json: PathBuf,
    /// Rounds of each case; the median counts
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only cases whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// With everything on: the mesh asks for a key, and holds its owner to limits
    #[arg(long)]
    guarded: bool,
    /// The folder with the binaries of another build, which takes the place of nginx: pace, burst and small answers of both, in turns
    #[arg(long, value_name = "DIR", conflicts_with = "llama")]
    against: Option<PathBuf>,
    /// What the llama engine's bench printed: JSON lines, taken into the table
    #[arg(long, value_name = "FILE")]
    llama: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Command {
    /// Serves the plain SSE upstream that nginx stands in front of.
    Upstream {
        /// Where to listen
        #[arg(long)]
        listen: SocketAddr,
    },
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    let runtime = tokio::runtime::Runtime::new()?;
    if let Some(Command::Upstream { listen }) = &settings.command {
        return runtime.block_on(upstream::serve(*listen));
    }
    let mut report = Report::default();
    let ran = runtime.block_on(async {
        let mut bench = cases::Bench::start(&settings).await?;
        cases::run(&mut bench, &mut report).await
    });
    if let Some(file) = &settings.llama {
        cases::llama::add(file, &mut report)?;
    }
    report.print(); // what there is, also if a case failed
    report.write(&settings.json)?;
    ran?;
    anyhow::ensure!(report.complete(), "a case did not complete");
    Ok(())
}
