//! One kind of fault: its rounds, each with a crowd of clients, and what came of them.

use std::{
    fs::File,
    io::Write as _,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::Context as _;
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tokio::time::{Instant, sleep, timeout};
use trial::{
    aftermath,
    client::{self, Ask, Door},
    fleet::Fleet,
    history::History,
    random::Random,
    report::{Report, percentile},
};

use crate::fault::Fault;

/// How long an answer streams: 3 s at 50 tokens a second.
const TOKENS: u32 = 150;
const GAP: Duration = Duration::from_millis(20);
/// The earliest moment of a fault, in milliseconds from when all of the crowd have begun.
const EARLIEST_MS: u64 = 300;
/// How long it may take until all have begun.
const BEGUN: Duration = Duration::from_mins(1);
/// Calls on the store at once, to ask what it has.
const CALLS: usize = 16;
/// Rounds in a row that may strike nobody: kills that no answer notices never add up to as many as are wanted.
const FRUITLESS: u32 = 5;

/// One kind of fault, and what came of it so far.
pub(crate) struct Case {
    fault: Fault,
    /// Answers at once.
    crowd: usize,
    begun: Instant,
    stalls: Vec<f64>,
    exits: Vec<f64>,
    answers: u32,
    broken: u32,
    moves: u32,
    fruitless: u32,
    violations: Vec<String>,
    given_up: bool,
}

impl Case {
    /// Nothing yet.
    pub(crate) fn new(fault: Fault, answers: usize) -> Self {
        Self {
            fault,
            crowd: fault.answers(answers),
            begun: Instant::now(),
            stalls: Vec::new(),
            exits: Vec::new(),
            answers: 0,
            broken: 0,
            moves: 0,
            fruitless: 0,
            violations: Vec::new(),
            given_up: false,
        }
    }

    /// How often another worker went on with an answer.
    pub(crate) fn moves(&self) -> u32 {
        self.moves
    }

    /// Whether more rounds bring nothing.
    pub(crate) fn is_hopeless(&self) -> bool {
        self.fruitless >= FRUITLESS || !self.violations.is_empty()
    }

    /// A round did not come to its end.
    pub(crate) fn give_up(&mut self, error: &anyhow::Error) {
        self.given_up = true;
        self.violations.push(format!("{}: {error:#}", self.fault.name()));
    }

    /// Whether one did not.
    pub(crate) fn is_given_up(&self) -> bool {
        self.given_up
    }

    /// How long all of it took so far.
    pub(crate) fn took(&self) -> Duration {
        self.begun.elapsed()
    }

    /// What was violated.
    pub(crate) fn into_violations(self) -> Vec<String> {
        self.violations
    }

    /// One fault in the middle of a crowd of answers, and the judgement.
    pub(crate) async fn round(&mut self, fleet: &mut Fleet, round: u32, random: &mut Random, file: &mut File) -> anyhow::Result<()> {
        let histories = self.happen(fleet, round, random).await?;
        let (store, deadline) = (fleet.store_channel()?, aftermath::deadline());
        let verdicts: Vec<Result<(), String>> = stream::iter(&histories)
            .map(|history| async {
                history.check(TOKENS)?;
                aftermath::stored(&store, history, deadline).await
            })
            .buffered(CALLS)
            .collect()
            .await;
        let before = self.moves;
        for (history, verdict) in histories.iter().zip(verdicts) {
            writeln!(file, "{}", history.to_json())?;
            self.answers += 1;
            self.moves += history.moves();
            self.stalls.push(history.stall(GAP).as_secs_f64() * 1e3);
            if let Err(violation) = verdict {
                self.broken += 1;
                self.violations.push(format!("{} in round {round}: {violation}", self.fault.name()));
            }
        }
        self.fruitless = if self.moves > before { 0 } else { self.fruitless + 1 };
        if let Err(left) = aftermath::settled(&fleet.router_channels()?).await {
            self.violations.push(format!("{} in round {round}: {left}", self.fault.name()));
        }
        Ok(())
    }

    async fn happen(&mut self, fleet: &mut Fleet, round: u32, random: &mut Random) -> anyhow::Result<Vec<History>> {
        let (fault, crowd) = (self.fault, self.crowd);
        let store = fleet.store_channel()?;
        let conversations: Vec<String> = stream::iter(0..crowd)
            .map(|_| aftermath::conversation(store.clone()))
            .buffered(CALLS)
            .try_collect()
            .await?;
        let (over, begun) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let clients: Vec<_> = (0..)
            .zip(conversations)
            .map(|(number, conversation)| {
                let ask = Ask {
                    door: if number % 2 == 0 { Door::Simple } else { Door::Completions },
                    id: format!("{}-{round}-{number}", fault.short()),
                    tokens: TOKENS,
                    gap: GAP,
                    conversation: Some(conversation),
                    begun: Arc::clone(&begun),
                };
                tokio::spawn(read_on(fleet.http.clone(), ask, Arc::clone(&over)))
            })
            .collect();
        // What is promised is promised of answers that have begun.
        let all_begun = async {
            while begun.load(Ordering::Relaxed) < crowd {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(BEGUN, all_begun).await.context("not every answer began")?;
        sleep(Duration::from_millis(EARLIEST_MS + random.below(fault.moments_ms()))).await;
        let exit = fault.strike(fleet, random).await?;
        over.store(true, Ordering::Relaxed);
        self.exits.extend(exit.map(|exit| exit.as_secs_f64()));
        let mut histories = Vec::with_capacity(crowd);
        for client in clients {
            histories.extend(client.await?);
        }
        fault.heal(fleet).await?;
        Ok(histories)
    }

    /// The rows of the table.
    pub(crate) fn report(&self, report: &mut Report) {
        let name = self.fault.name();
        if self.fault == Fault::KillWorkers {
            report.add(name, "answers whose worker was killed", f64::from(self.moves), "");
        }
        report.add(
            name,
            "answers lost, doubled, reordered, cut or not stored once",
            f64::from(self.broken),
            "",
        );
        report.note(format!("of {}", self.answers));
        report.at_most(0.0);
        report.add(name, "stall p99", percentile(self.stalls.clone(), 0.99), "ms");
        let (middle, most) = (percentile(self.stalls.clone(), 0.5), percentile(self.stalls.clone(), 1.0));
        report.note(format!("p50 {middle:.0}, most {most:.0}"));
        if let Some(target) = self.fault.stall_target_ms() {
            report.at_most(target);
        }
        if !self.exits.is_empty() {
            report.add(name, "SIGTERM to exit, the longest", percentile(self.exits.clone(), 1.0), "s");
            if let Some(target) = self.fault.exit_target_s() {
                report.at_most(target);
            }
        }
    }
}

/// Reads one answer after the other, in one conversation, until the fault is over.
async fn read_on(gateways: Vec<SocketAddr>, ask: Ask, over: Arc<AtomicBool>) -> Vec<History> {
    let mut histories = Vec::new();
    while histories.is_empty() || !over.load(Ordering::Relaxed) {
        let id = format!("{}-{}", ask.id, histories.len());
        histories.push(client::read(gateways.clone(), Ask { id, ..ask.clone() }).await);
    }
    histories
}
