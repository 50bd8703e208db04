//! `make chaos`: the promise on trial. Two gateways, two routers, three workers and a store as real processes, a crowd of clients that
//! read scripted answers by two doors, and somebody who kills, freezes, stops and restarts one process at a time, at moments drawn from a seed.
//!
//! Every client knows from the text alone which token comes next, so one that is lost, doubled, reordered, misrouted, or written by
//! a worker that was replaced is seen at the client. Histories are written as JSON lines and then checked ([`trial::history`]), and
//! so is the mesh after each round ([`trial::aftermath`]). A run prints its seed; the same seed draws the same victims and moments.
//!
//! [`fault`] says what is done, [`strike`] how, [`round`] with whom and what came of it.

mod fault;
mod round;
mod strike;

use std::path::PathBuf;

use clap::Parser;
use trial::{
    fleet::{Fleet, Layout},
    process,
    random::Random,
    relaying,
    report::Report,
};

use crate::{fault::Fault, round::Case};

/// Kills processes in the middle of answers, and checks that nobody notices.
#[derive(Parser)]
struct Settings {
    /// Draws victims and moments
    #[arg(long, env = "UNBROKEN_SEED", default_value_t = 1)]
    seed: u64,
    /// Faults of each kind; of those that take long there is one
    #[arg(long, default_value_t = 3)]
    rounds: u32,
    /// Answers that stream at once
    #[arg(long, default_value_t = 100)]
    answers: usize,
    /// Answers that are to be struck by a `kill -9` of their worker, at least: workers are killed until there were so many
    #[arg(long, default_value_t = 10_000)]
    strikes: u32,
    /// Only faults whose names contain this
    #[arg(long)]
    only: Option<String>,
    /// No faults whose names contain one of these, separated by commas
    #[arg(long, value_delimiter = ',')]
    skip: Vec<String>,
    /// The folder with the built binaries; that of this one if not given
    #[arg(long)]
    bin: Option<PathBuf>,
    /// Where the clients' histories go, as JSON lines
    #[arg(long, default_value = "target/chaos.jsonl")]
    histories: PathBuf,
    /// Where to write the figures as JSON
    #[arg(long, default_value = "target/chaos.json")]
    json: PathBuf,
}

impl Settings {
    fn wants(&self, fault: Fault) -> bool {
        let named = |part: &String| fault.name().contains(part.as_str());
        self.only.as_ref().is_none_or(named) && !self.skip.iter().any(named)
    }
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    tokio::runtime::Runtime::new()?.block_on(run(&settings))
}

async fn run(settings: &Settings) -> anyhow::Result<()> {
    eprintln!(
        "seed {} ({} answers at once, {} rounds a fault)",
        settings.seed, settings.answers, settings.rounds
    );
    let layout = Layout {
        bin: settings.bin.clone(),
        proxied: true,
        own_disk: true,
        redis: true,
        // More workers die here in a minute than any mesh should take as its requests' fault.
        settings: process::settings(&[("UNBROKEN_MIGRATIONS", "1000000")]),
        ..Layout::of(2, 2, 3)
    };
    let mut random = Random::new(settings.seed);
    let mut report = Report::default();
    let mut file = std::fs::File::create(&settings.histories)?;
    let mut violations = Vec::new();
    let mut fleet = Fleet::start(&layout).await?;
    for fault in Fault::ALL.into_iter().filter(|fault| settings.wants(*fault)) {
        if !fault.is_possible(&fleet) {
            eprintln!("skipped: {}", fault.name());
            continue;
        }
        let mut case = Case::new(fault, settings.answers);
        let most = if fault == Fault::KillWorkers {
            u32::MAX
        } else {
            fault.rounds(settings.rounds)
        };
        for round in 0..most {
            if fault == Fault::KillWorkers && (case.moves() >= settings.strikes || case.is_hopeless()) {
                break;
            }
            if let Err(error) = case.round(&mut fleet, round, &mut random, &mut file).await {
                case.give_up(&error);
                break;
            }
        }
        let given_up = case.is_given_up();
        eprintln!("{}: {:.0} s", fault.name(), case.took().as_secs_f64());
        case.report(&mut report);
        violations.extend(case.into_violations());
        if given_up {
            break; // who knows what is left of this mesh
        }
    }
    if settings.only.as_ref().is_none_or(|only| relaying::CASE.contains(only.as_str())) {
        relaying::measure(1, &mut report).await?;
    }
    report.print();
    report.write(&settings.json)?;
    for violation in violations.iter().take(20) {
        eprintln!("VIOLATION {violation}");
    }
    anyhow::ensure!(
        violations.is_empty(),
        "{} violations with seed {}; {}",
        violations.len(),
        settings.seed,
        fleet.logs()
    );
    Ok(())
}
