//! How it is done to the processes, and how they are put right again.

use std::time::Duration;

use anyhow::Context as _;
use nix::sys::signal::Signal;
use proto::v1::{WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient};
use tokio::time::{Instant, sleep, timeout};
use trial::{
    aftermath,
    fleet::Fleet,
    link::{Direction, Link},
    process::{Process, answers},
    random::Random,
};

use crate::fault::Fault;

/// How long the mesh may take to be whole again once its processes are: more than the longest pause before a worker is dialled again.
const HEALED: Duration = Duration::from_mins(1);
/// How long a process stays frozen, or a worker cut off.
const FROZEN: Duration = Duration::from_secs(3);
/// How long a router stays cut off: longer than a gateway takes to notice.
const CUT_OFF: Duration = Duration::from_secs(12);
/// How long a process may take to stop when it is asked to: the grace time, and a little.
const STOP: Duration = Duration::from_secs(35);
/// How long the store, or the Redis, is away each time: answers end meanwhile.
const AWAY: Duration = Duration::from_millis(300);
/// How often they are killed while one crowd reads.
const KILLS: u32 = 4;
/// How long its disk stays full.
const FULL: Duration = Duration::from_secs(2);
/// How long it may take until a full disk is felt: pages that were there are written over first.
const FELT: Duration = Duration::from_secs(20);
/// How soon after one worker the next is killed. The first is back by then.
const NEXT_KILL: Duration = Duration::from_millis(800);

/// Who was told to stop, and how long that took.
pub(crate) type Exit = Option<Duration>;

impl Fault {
    /// Does it, to a victim by lot.
    pub(crate) async fn strike(self, fleet: &mut Fleet, random: &mut Random) -> anyhow::Result<Exit> {
        let worker = random.index(fleet.workers.len());
        let router = random.index(fleet.routers.len());
        let gateway = random.index(fleet.gateways.len());
        match self {
            Self::None => {}
            Self::KillWorker => fleet.workers[worker].kill()?,
            Self::KillWorkers => kill_two(fleet, worker).await?,
            Self::FreezeWorker => {
                fleet.workers[worker].signal(Signal::SIGSTOP)?;
                sleep(FROZEN).await;
                fleet.workers[worker].signal(Signal::SIGCONT)?;
            }
            Self::PartitionWorker => partition(&of_worker(fleet, worker), FROZEN).await,
            Self::CutWorker => cut(&of_worker(fleet, worker), random),
            Self::StopWorker => return stop(&mut fleet.workers[worker]).await,
            Self::KillRouter => fleet.routers[router].kill()?,
            Self::PartitionRouter => partition(&of_router(fleet, router), CUT_OFF).await,
            Self::CutRouter => of_router(fleet, router).iter().for_each(|link| link.reset()),
            Self::StopRouter => return stop(&mut fleet.routers[router]).await,
            Self::KillGateway => fleet.gateways[gateway].kill()?,
            Self::StopGateway => return stop(&mut fleet.gateways[gateway]).await,
            Self::KillStore => kill_again(&mut fleet.store).await?,
            Self::KillRedis => kill_again(fleet.redis.as_mut().context("there is no Redis")?).await?,
            Self::RestartStore => {
                let exit = stop(&mut fleet.store).await?;
                sleep(AWAY).await;
                fleet.store.restart()?;
                return Ok(exit);
            }
            Self::FillDisk => fill(fleet).await?,
            Self::Rolling => roll(fleet).await?,
        }
        Ok(None)
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

/// Kills a process and starts it again, and does so again.
async fn kill_again(process: &mut Process) -> anyhow::Result<()> {
    for _ in 0..KILLS {
        process.kill()?;
        sleep(AWAY).await;
        process.restart()?;
        sleep(AWAY).await;
    }
    Ok(())
}

/// Kills a worker and, once that is back, another one: most of its answers have moved before.
async fn kill_two(fleet: &mut Fleet, first: usize) -> anyhow::Result<()> {
    fleet.workers[first].kill()?;
    fleet.workers[first].restart()?;
    sleep(NEXT_KILL).await;
    let next = (first + 1) % fleet.workers.len();
    fleet.workers[next].kill()?;
    fleet.workers[next].restart()
}

/// Tells a process to stop, and waits until it has.
async fn stop(process: &mut Process) -> anyhow::Result<Exit> {
    let told = Instant::now();
    process.signal(Signal::SIGTERM)?;
    let end = process.ended(STOP).await?;
    anyhow::ensure!(end.success(), "{} did not stop gracefully: {end}", process.name());
    Ok(Some(told.elapsed()))
}

/// Fills the store's disk, waits until it is felt, and makes room again after a while.
async fn fill(fleet: &Fleet) -> anyhow::Result<()> {
    let disk = fleet.disk.as_ref().context("the store has no disk of its own")?;
    disk.fill()?;
    let store = fleet.store_channel()?;
    let felt = async { while aftermath::conversation(store.clone()).await.is_ok() {} };
    let felt = timeout(FELT, felt).await;
    sleep(FULL).await;
    disk.empty()?;
    felt.context("the store went on writing to a full disk")
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
        stop(process).await?;
        process.restart()?;
        whole(fleet).await?;
    }
    Ok(())
}

/// Waits until all see each other.
pub(crate) async fn whole(fleet: &Fleet) -> anyhow::Result<()> {
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
