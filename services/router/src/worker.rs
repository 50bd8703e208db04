//! One worker, as the router sees it: whether it takes answers, how loaded it is, and the calls that run on its exchange.
//!
//! [`mod@line`] keeps the connection, [`call`] the calls on it, and [`breaker`] says when it is set aside. Who takes what comes back is
//! behind [`Feed`]: nothing here knows of journals or queues.

mod breaker;
mod call;
pub(crate) mod line;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use proto::v1::{AbortRequest, Load, Model, WorkerState, WorkerStatus, engine_service_client::EngineServiceClient};
use tokio::time::Instant;
use tonic::transport::Channel;

use self::breaker::Breaker;
use self::call::Exchange;
pub(crate) use self::{
    breaker::growing,
    call::{Call, Feed, Outcome, Seats},
};
use crate::{
    pick::{self, Candidate},
    pulse::Pulse,
};

/// Commands that wait for the connection. A worker that lets so many pile up has stopped reading.
const COMMANDS: usize = 4096;
/// A worker that has spoken within this time is there: half more than the time between two heartbeats.
const NEAR: Duration = Duration::from_millis(600);
/// A worker that was named so lately may only not have been reached yet.
const NEW: Duration = Duration::from_secs(10);
/// Answers that a worker that comes back is told to stop. It stops those without a reader by itself after its grace time.
const LOST: usize = 4096;

/// A worker.
pub(crate) struct Worker {
    address: Arc<str>,
    name: u64,
    /// When discovery named it.
    named: Instant,
    /// Seats of the calls that this router has there.
    outstanding: AtomicU32,
    health: Mutex<Health>,
    exchange: Mutex<Option<Exchange>>,
    /// What it must stop when it comes back.
    lost: Mutex<Vec<AbortRequest>>,
    pulse: Arc<Pulse>,
}

struct Health {
    state: WorkerState,
    reason: String,
    load: Load,
    /// Seats there that are not this router's, as of the last word.
    foreign: u32,
    /// Whether it has ever spoken.
    met: bool,
    /// When it spoke last.
    heard: Instant,
    breaker: Breaker,
}

impl Worker {
    pub(crate) fn new(address: &str, pulse: Arc<Pulse>) -> Self {
        Self {
            address: address.into(),
            name: pick::name_of(address),
            named: Instant::now(),
            outstanding: AtomicU32::new(0),
            health: Mutex::new(Health {
                state: WorkerState::Connecting,
                reason: "not reached yet".to_owned(),
                load: Load::default(),
                foreign: 0,
                met: false,
                heard: Instant::now(),
                breaker: Breaker::default(),
            }),
            exchange: Mutex::new(None),
            lost: Mutex::default(),
            pulse,
        }
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &Arc<str> {
        &self.address
    }

    /// A hash of its address.
    pub(crate) fn name(&self) -> u64 {
        self.name
    }

    /// Whether it takes new answers.
    pub(crate) fn is_ready(&self) -> bool {
        self.health.lock().is_ready()
    }

    /// Whether it finishes what it has, and takes nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.health.lock().state == WorkerState::Draining
    }

    /// Whether it has ever said what it serves.
    pub(crate) fn is_met(&self) -> bool {
        self.health.lock().met
    }

    /// Whether it has not said yet what it serves, and may do so soon.
    pub(crate) fn is_new(&self) -> bool {
        !self.is_met() && self.named.elapsed() < NEW
    }

    /// Looks at its models, as it last told them.
    pub(crate) fn with_models<R>(&self, look: impl FnOnce(&[Model]) -> R) -> R {
        look(&self.health.lock().load.models)
    }

    /// The slots that it has, if it is ready and serves a model that `fits`.
    pub(crate) fn slots(&self, fits: impl Fn(&Model) -> bool) -> Option<u32> {
        let health = self.health.lock();
        (health.is_ready() && health.load.models.iter().any(fits)).then(|| health.load.slots.max(1))
    }

    /// Whether it is ready, serves a model that `fits`, and has spoken so lately that it surely lives, and can be reached.
    pub(crate) fn is_near(&self, fits: impl Fn(&Model) -> bool) -> bool {
        let health = self.health.lock();
        health.is_ready() && health.heard.elapsed() <= NEAR && health.load.models.iter().any(fits)
    }

    /// What it is for a request that takes so many `seats`: a candidate, if it has room.
    pub(crate) fn candidate(&self, seats: u32) -> Option<Candidate> {
        let health = self.health.lock();
        let slots = health.load.slots.max(1);
        let load = self.outstanding.load(Ordering::Relaxed) + health.foreign;
        // A request wider than the worker is for the worker to judge, once it is empty.
        (load + seats <= slots || load == 0).then_some(Candidate {
            name: self.name,
            load,
            slots,
        })
    }

    /// Seats that this router's calls take there.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// A client on the connection, if there is one.
    pub(crate) fn client(&self) -> Option<EngineServiceClient<Channel>> {
        self.exchange.lock().as_ref().map(|exchange| exchange.client.clone())
    }

    /// What operators see of it.
    pub(crate) fn status(&self) -> WorkerStatus {
        let health = self.health.lock();
        let (state, reason) = if health.state == WorkerState::Ready && health.breaker.is_open(Instant::now()) {
            (WorkerState::Ejected, "its answers failed one after another")
        } else {
            (health.state, health.reason.as_str())
        };
        WorkerStatus {
            address: self.address.to_string(),
            state: state.into(),
            reason: reason.to_owned(),
            load: health.met.then(|| health.load.clone()),
        }
    }

    /// An answer that was made here goes on elsewhere: should the worker come back, it is told to stop.
    pub(crate) fn stop_later(&self, stale: AbortRequest) {
        let mut lost = self.lost.lock();
        if lost.len() < LOST {
            lost.push(stale);
        }
    }

    /// Ends an answer that is made here, whosever it is.
    pub(crate) fn abort(&self, stream_id: &str) -> impl Future<Output = ()> + Send + use<> {
        let client = self.client();
        let request = AbortRequest {
            stream_id: stream_id.to_owned(),
            epoch: 0,
        };
        async move {
            if let Some(mut client) = client {
                let _ = client.abort(request).await; // one that cannot be reached loses it after its grace time
            }
        }
    }

    fn judge(&self, outcome: Outcome) {
        let mut health = self.health.lock();
        match outcome {
            Outcome::Served => health.breaker.succeeded(),
            Outcome::Failed => health.breaker.failed(Instant::now()),
        }
    }

    /// The worker has spoken.
    fn heard(&self, load: Load) {
        {
            let mut health = self.health.lock();
            let own = self.outstanding.load(Ordering::Relaxed);
            health.foreign = load.busy.saturating_add(load.queued).saturating_sub(own);
            health.state = if load.draining { WorkerState::Draining } else { WorkerState::Ready };
            health.reason = if load.draining {
                "it is stopping".to_owned()
            } else {
                String::new()
            };
            health.met = true;
            health.heard = Instant::now();
            health.load = load;
        }
        self.pulse.slots_changed();
    }

    /// Says whether it was in another state before.
    fn set_state(&self, state: WorkerState, reason: &str) -> bool {
        let before = {
            let mut health = self.health.lock();
            reason.clone_into(&mut health.reason);
            std::mem::replace(&mut health.state, state)
        };
        self.pulse.slots_changed();
        before != state
    }
}

impl Health {
    fn is_ready(&self) -> bool {
        self.state == WorkerState::Ready && !self.breaker.is_open(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_worker_is_new_until_it_speaks_or_has_had_time_to() {
        let worker = || Worker::new("127.0.0.1:50061", Arc::new(Pulse::default()));
        let (silent, speaking) = (worker(), worker());
        assert!(silent.is_new() && speaking.is_new());
        speaking.heard(Load::default());
        assert!(silent.is_new() && !speaking.is_new());
        tokio::time::advance(NEW).await;
        assert!(!silent.is_new());
    }
}
