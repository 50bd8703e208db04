//! `make chaos`: the promise on trial. Two gateways, two routers, three workers and a store as real processes, a crowd of clients that
//! read scripted answers, and somebody who kills, freezes and restarts one process at a time, at moments drawn from a seed.
//!
//! Every client knows from the text alone which token comes next, so one that is lost, doubled, reordered, misrouted, or written by
//! a worker that was replaced is seen at the client. Histories are written as JSON lines and then checked ([`trial::history`]), and
//! so is the mesh after each round ([`trial::aftermath`]). A run prints its seed; the same seed draws the same victims and moments.

mod fault;

use std::{io::Write as _, path::PathBuf, time::Duration};

use clap::Parser;
use trial::{
    aftermath,
    client::{self, Ask},
    fleet::{Fleet, Layout},
    history::History,
    random::Random,
    report::{Report, percentile},
};

use crate::fault::Fault;

/// Kills processes in the middle of answers, and checks that nobody notices.
#[derive(Parser)]
struct Settings {
    /// Draws victims and moments
    #[arg(long, env = "UNBROKEN_SEED", default_value_t = 1)]
    seed: u64,
    /// Faults of each kind
    #[arg(long, default_value_t = 10)]
    rounds: u32,
    /// Answers that stream at once
    #[arg(long, default_value_t = 100)]
    answers: usize,
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

/// How long an answer streams: 3 s at 50 tokens a second.
const TOKENS: u32 = 150;
const GAP: Duration = Duration::from_millis(20);

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
        ..Layout::of(2, 2, 3)
    };
    let mut random = Random::new(settings.seed);
    let mut report = Report::default();
    let mut file = std::fs::File::create(&settings.histories)?;
    let mut violations = Vec::new();
    let mut fleet = Fleet::start(&layout).await?;
    for fault in Fault::ALL {
        if settings.only.as_ref().is_some_and(|only| !fault.name().contains(only.as_str())) {
            continue;
        }
        if settings.skip.iter().any(|skip| fault.name().contains(skip.as_str())) {
            continue;
        }
        let (mut stalls, mut broken, mut answers) = (Vec::new(), 0_u32, 0_u32);
        for round in 0..settings.rounds {
            let histories = self::round(&mut fleet, fault, round, settings.answers, &mut random).await?;
            for history in histories {
                writeln!(file, "{}", history.to_json())?;
                answers += 1;
                stalls.push(history.stall(GAP).as_secs_f64() * 1e3);
                if let Err(violation) = verdict(&fleet, &history).await? {
                    broken += 1;
                    violations.push(format!("{} in round {round}: {violation}", fault.name()));
                }
            }
            if let Err(left) = aftermath::settled(&fleet.router_channels()?).await {
                violations.push(format!("{} in round {round}: {left}", fault.name()));
            }
        }
        report.add(
            fault.name(),
            "answers lost, doubled, reordered, cut or not stored once",
            f64::from(broken),
            "",
        );
        report.note(format!("of {answers}"));
        report.at_most(0.0);
        report.add(fault.name(), "stall p99", percentile(stalls.clone(), 0.99), "ms");
        report.note(format!(
            "p50 {:.0}, most {:.0}",
            percentile(stalls.clone(), 0.5),
            percentile(stalls, 1.0)
        ));
        report.at_most(fault.stall_target_ms());
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

/// What the client saw, and what the store has.
async fn verdict(fleet: &Fleet, history: &History) -> anyhow::Result<Result<(), String>> {
    Ok(match history.check(TOKENS) {
        Ok(()) => aftermath::stored(&fleet.store_channel()?, history).await,
        Err(violation) => Err(violation),
    })
}

/// One fault in the middle of a crowd of answers.
async fn round(fleet: &mut Fleet, fault: Fault, round: u32, answers: usize, random: &mut Random) -> anyhow::Result<Vec<History>> {
    let store = fleet.store_channel()?;
    let mut clients = Vec::with_capacity(answers);
    for number in 0..answers {
        let ask = Ask {
            id: format!("{}-{round}-{number}", fault.short()),
            tokens: TOKENS,
            gap: GAP,
            conversation: Some(aftermath::conversation(store.clone()).await?),
        };
        let gateways = fleet.http.clone();
        clients.push(tokio::spawn(async move {
            let mut histories = Vec::new();
            for answer in 0..fault.answers_each() {
                let id = format!("{}-{answer}", ask.id);
                histories.push(client::read(gateways.clone(), Ask { id, ..ask.clone() }).await);
            }
            histories
        }));
    }
    let moment = Duration::from_millis(300 + random.below(2000));
    tokio::time::sleep(moment).await;
    fault.strike(fleet, random).await?;
    let mut histories = Vec::with_capacity(answers);
    for client in clients {
        histories.extend(client.await?);
    }
    fault.heal(fleet).await?;
    Ok(histories)
}
