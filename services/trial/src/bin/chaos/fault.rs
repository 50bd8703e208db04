//! What is done to the processes, and how they are put right again.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use proto::v1::{WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient};
use tokio::time::{Instant, sleep};
use trial::{
    fleet::Fleet,
    link::{Direction, Link},
    process::answers,
    random::Random,
};

/// How long the mesh may take to be whole again once its processes are.
const HEALED: Duration = Duration::from_secs(20);
/// How long a process stays frozen, or a worker cut off.
const FROZEN: Duration = Duration::from_secs(3);
/// How long a router stays cut off: longer than a gateway takes to notice.
const CUT_OFF: Duration = Duration::from_secs(12);
/// How long a process may take to stop when it is asked to: the grace time, and a little.
const STOP: Duration = Duration::from_secs(35);

/// One way to lose a process, or the way to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    KillWorker,
    FreezeWorker,
    PartitionWorker,
    CutWorker,
    KillRouter,
    PartitionRouter,
    CutRouter,
    KillGateway,
    KillStore,
    StopWorker,
    Rolling,
}

impl Fault {
    pub(crate) const ALL: [Self; 12] = [
        Self::None,
        Self::KillWorker,
        Self::FreezeWorker,
        Self::PartitionWorker,
        Self::CutWorker,
        Self::KillRouter,
        Self::PartitionRouter,
        Self::CutRouter,
        Self::KillGateway,
        Self::KillStore,
        Self::StopWorker,
        Self::Rolling,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::None => "no fault",
            Self::KillWorker => "kill -9 a worker",
            Self::FreezeWorker => "SIGSTOP a worker for 3 s",
            Self::PartitionWorker => "partition a worker for 3 s",
            Self::CutWorker => "cut a worker's connections in a frame",
            Self::KillRouter => "kill -9 a router",
            Self::PartitionRouter => "partition a router for 12 s",
            Self::CutRouter => "cut a router's connections in a frame",
            Self::KillGateway => "kill -9 a gateway",
            Self::KillStore => "kill -9 the store",
            Self::StopWorker => "SIGTERM a worker",
            Self::Rolling => "rolling restart of everything",
        }
    }

    pub(crate) fn short(self) -> &'static str {
        match self {
            Self::None => "n",
            Self::KillWorker => "kw",
            Self::FreezeWorker => "fw",
            Self::PartitionWorker => "pw",
            Self::CutWorker => "cw",
            Self::KillRouter => "kr",
            Self::PartitionRouter => "pr",
            Self::CutRouter => "cr",
            Self::KillGateway => "kg",
            Self::KillStore => "ks",
            Self::StopWorker => "sw",
            Self::Rolling => "rr",
        }
    }

    /// The p99 of the stall that is aimed at, in milliseconds.
    pub(crate) fn stall_target_ms(self) -> f64 {
        match self {
            Self::None | Self::KillStore | Self::StopWorker => 100.0,
            Self::KillWorker | Self::CutWorker | Self::KillRouter | Self::CutRouter => 250.0,
            Self::KillGateway | Self::Rolling => 550.0,
            Self::FreezeWorker | Self::PartitionWorker => 2000.0,
            // A silent router is noticed by the keepalive of the gateways' connections.
            Self::PartitionRouter => 9000.0,
        }
    }

    /// Answers that each client reads, one after the other: what is done takes long.
    pub(crate) fn answers_each(self) -> u32 {
        if self == Self::Rolling { 10 } else { 1 }
    }

    /// Does it, to a victim by lot.
    pub(crate) async fn strike(self, fleet: &mut Fleet, random: &mut Random) -> anyhow::Result<()> {
        let worker = random.index(fleet.workers.len());
        let router = random.index(fleet.routers.len());
        let gateway = random.index(fleet.gateways.len());
        match self {
            Self::None => {}
            Self::KillWorker => fleet.workers[worker].kill()?,
            Self::FreezeWorker => {
                fleet.workers[worker].signal(Signal::SIGSTOP)?;
                sleep(FROZEN).await;
                fleet.workers[worker].signal(Signal::SIGCONT)?;
            }
            Self::PartitionWorker => partition(&of_worker(fleet, worker), FROZEN).await,
            Self::CutWorker => cut(&of_worker(fleet, worker), random),
            Self::KillRouter => fleet.routers[router].kill()?,
            Self::PartitionRouter => partition(&of_router(fleet, router), CUT_OFF).await,
            Self::CutRouter => cut(&of_router(fleet, router), random),
            Self::KillGateway => fleet.gateways[gateway].kill()?,
            Self::KillStore => {
                fleet.store.kill()?;
                sleep(Duration::from_millis(200)).await;
                fleet.store.restart()?;
            }
            Self::StopWorker => {
                fleet.workers[worker].signal(Signal::SIGTERM)?;
                let end = fleet.workers[worker].ended(STOP).await?;
                anyhow::ensure!(end.success(), "the worker did not stop gracefully");
            }
            Self::Rolling => roll(fleet).await?,
        }
        Ok(())
    }

    /// Starts again what is dead, and waits until all see each other.
    pub(crate) async fn heal(self, fleet: &mut Fleet) -> anyhow::Result<()> {
        for process in fleet.processes_mut() {
            if process.is_dead()? {
                process.restart()?;
            }
        }
        whole(fleet).await
    }
}

/// The ways to a worker.
fn of_worker(fleet: &Fleet, worker: usize) -> Vec<&Link> {
    fleet.to_workers.iter().map(|own| &*own[worker].link).collect()
}

/// The ways to a router and from it, save that to the store.
fn of_router(fleet: &Fleet, router: usize) -> Vec<&Link> {
    let to = fleet.to_routers.iter().map(|own| &*own[router].link);
    to.chain(fleet.to_workers[router].iter().map(|proxy| &*proxy.link)).collect()
}

async fn partition(links: &[&Link], time: Duration) {
    for link in links {
        link.silence(true);
    }
    sleep(time).await;
    for link in links {
        link.silence(false);
    }
}

/// Cuts each way after a few bytes more: in the head of a frame, or in the middle of it.
fn cut(links: &[&Link], random: &mut Random) {
    for link in links {
        link.cut_after(Direction::Down, random.below(600));
    }
}

/// Stops one process after the other with SIGTERM, and starts it again before the next.
async fn roll(fleet: &mut Fleet) -> anyhow::Result<()> {
    for number in 0..fleet.processes().count() {
        let process = fleet.processes_mut().nth(number).context("a process less")?;
        process.signal(Signal::SIGTERM)?;
        let end = process.ended(STOP).await?;
        anyhow::ensure!(end.success(), "{} did not stop gracefully", process.name());
        process.restart()?;
        whole(fleet).await?;
    }
    Ok(())
}

/// Waits until all see each other.
async fn whole(fleet: &Fleet) -> anyhow::Result<()> {
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
