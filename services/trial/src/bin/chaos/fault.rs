//! What is done to the processes, and how they are put right again.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use proto::v1::{ListAnswersRequest, WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient};
use tokio::time::{Instant, sleep};
use trial::{fleet::Fleet, process::answers};

/// How long the mesh may take to be whole again once its processes are.
const HEALED: Duration = Duration::from_secs(20);
/// How long a process stays frozen.
const FROZEN: Duration = Duration::from_secs(3);

/// One way to lose a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillWorker,
    FreezeWorker,
    KillRouter,
    KillGateway,
    KillStore,
    StopWorker,
}

impl Fault {
    pub(crate) const ALL: [Self; 7] = [
        Self::None,
        Self::KillWorker,
        Self::FreezeWorker,
        Self::KillRouter,
        Self::KillGateway,
        Self::KillStore,
        Self::StopWorker,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no fault",
            Self::KillWorker => "kill -9 a worker",
            Self::FreezeWorker => "SIGSTOP a worker for 3 s",
            Self::KillRouter => "kill -9 a router",
            Self::KillGateway => "kill -9 a gateway",
            Self::KillStore => "kill -9 the store",
            Self::StopWorker => "SIGTERM a worker",
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::None => "n",
            Self::KillWorker => "kw",
            Self::FreezeWorker => "fw",
            Self::KillRouter => "kr",
            Self::KillGateway => "kg",
            Self::KillStore => "ks",
            Self::StopWorker => "sw",
        }
    }

    /// The p99 of the stall that is aimed at, in milliseconds.
    pub(crate) fn stall_target_ms(self) -> f64 {
        match self {
            Self::None | Self::KillStore | Self::StopWorker => 100.0,
            Self::KillWorker | Self::KillRouter => 250.0,
            Self::KillGateway => 550.0,
            Self::FreezeWorker => 2000.0,
        }
    }

    /// Does it, to a victim by lot.
    pub(crate) async fn strike(self, fleet: &mut Fleet, random: &mut Random) -> anyhow::Result<()> {
        let worker = random.index(fleet.workers.len());
        match self {
            Self::None => {}
            Self::KillWorker => fleet.workers[worker].kill()?,
            Self::FreezeWorker => {
                fleet.workers[worker].signal(Signal::SIGSTOP)?;
                sleep(FROZEN).await;
                fleet.workers[worker].signal(Signal::SIGCONT)?;
            }
            Self::KillRouter => {
                let router = random.index(fleet.routers.len());
                fleet.routers[router].kill()?;
            }
            Self::KillGateway => {
                let gateway = random.index(fleet.gateways.len());
                fleet.gateways[gateway].kill()?;
            }
            Self::KillStore => {
                fleet.store.kill()?;
                sleep(Duration::from_millis(200)).await;
                fleet.store.restart()?;
            }
            Self::StopWorker => {
                fleet.workers[worker].signal(Signal::SIGTERM)?;
                anyhow::ensure!(
                    fleet.workers[worker].ended(Duration::from_secs(35)).await?,
                    "the worker did not stop gracefully"
                );
            }
        }
        Ok(())
    }

    /// Starts again what is dead, and waits until all see each other.
    pub(crate) async fn heal(self, fleet: &mut Fleet) -> anyhow::Result<()> {
        let dead = fleet
            .workers
            .iter_mut()
            .chain(&mut fleet.routers)
            .chain(&mut fleet.gateways)
            .chain([&mut fleet.store]);
        for process in dead {
            if process.is_dead()? {
                process.restart()?;
            }
        }
        for address in &fleet.http {
            answers(*address, "/ready").await?;
        }
        let deadline = Instant::now() + HEALED;
        for address in &fleet.grpc {
            loop {
                let ready = ready_workers(&address.to_string()).await.unwrap_or(0);
                if ready == fleet.workers.len() {
                    break;
                }
                anyhow::ensure!(
                    Instant::now() < deadline,
                    "router {address} sees {ready} of {} workers; {}",
                    fleet.workers.len(),
                    fleet.logs()
                );
                sleep(Duration::from_millis(50)).await;
            }
        }
        Ok(())
    }
}

async fn ready_workers(router: &str) -> anyhow::Result<usize> {
    let mut client = ChatServiceClient::connect(format!("http://{router}")).await?;
    let mut statuses = client.watch_status(WatchStatusRequest {}).await?.into_inner();
    let status = statuses.message().await?.context("no status")?;
    Ok(status
        .workers
        .iter()
        .filter(|worker| worker.state() == WorkerState::Ready && worker.load.is_some())
        .count())
}

/// Nothing is left running once all clients have their answers.
pub(crate) async fn settled(fleet: &Fleet) -> Result<(), String> {
    let deadline = Instant::now() + HEALED;
    loop {
        let running = running(fleet).await.map_err(|error| format!("{error:#}"))?;
        if running.is_empty() {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(format!("answers left running: {running:?}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn running(fleet: &Fleet) -> anyhow::Result<Vec<String>> {
    let mut running = Vec::new();
    for address in &fleet.grpc {
        let mut client = ChatServiceClient::connect(format!("http://{address}")).await?;
        let mut answers = client.list_answers(ListAnswersRequest {}).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.state == "running" {
                running.push(answer.stream_id);
            }
        }
        let mut statuses = client.watch_status(WatchStatusRequest {}).await?.into_inner();
        let status = statuses.message().await?.context("no status")?;
        for worker in status.workers {
            let busy = worker.load.map_or(0, |load| load.busy + load.queued);
            if busy > 0 {
                running.push(format!("{busy} seats of {}", worker.address));
            }
        }
    }
    Ok(running)
}

/// Draws from a seed: SplitMix64 (Steele, Lea, Flood 2014).
#[derive(Debug)]
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        mixed ^ (mixed >> 31)
    }

    /// From 0 to `bound`, without it.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound.max(1)
    }

    /// An index into something of this length.
    pub(crate) fn index(&mut self, length: usize) -> usize {
        usize::try_from(self.below(length as u64)).unwrap_or(0)
    }
}
