//! One worker, as the router sees it: whether it takes answers, how loaded it is, and the calls that run on its exchange.
//!
//! [`line`] keeps the connection; [`breaker`] says when it is set aside. Who is called for what an answer gets is behind [`Feed`]:
//! this file knows nothing of journals or queues.

mod breaker;
pub(crate) mod line;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

use parking_lot::Mutex;
use proto::v1::{
    AbortRequest, Cancel, ChatRequest, Detach, EngineCommand, Entry, Failure, Head, Load, Model, WorkerState, WorkerStatus,
    engine_command::Command, engine_service_client::EngineServiceClient,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::transport::Channel;

use self::breaker::Breaker;
pub(crate) use self::breaker::growing;
use crate::{
    pick::{self, Candidate},
    pulse::Pulse,
};

/// Commands that wait for the connection. A worker that lets so many pile up has stopped reading.
const COMMANDS: usize = 4096;
/// Answers that a worker that comes back is told to stop. It stops those without a reader by itself after its grace time.
const LOST: usize = 4096;

/// What takes what a worker sends for one call.
pub(crate) trait Feed: Send + Sync {
    /// The worker has taken the answer. `request` comes only to who attached to adopt it.
    fn head(&self, head: Head, request: Option<Box<ChatRequest>>);
    /// Entries came, the first for `position`.
    fn entries(&self, position: u32, entries: Vec<Entry>, now: Instant);
    /// The worker refuses; the call is over.
    fn refused(&self, failure: Failure);
    /// The worker is gone; the call is over.
    fn broken(&self, failure: Failure);
}

/// A worker.
pub(crate) struct Worker {
    address: Arc<str>,
    name: u64,
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
    breaker: Breaker,
}

/// The sending side of the open exchange, and the calls on it.
struct Exchange {
    commands: mpsc::Sender<EngineCommand>,
    client: EngineServiceClient<Channel>,
    next_call: u32,
    calls: HashMap<u32, Arc<dyn Feed>>,
}

/// How a call went, for the breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// The worker did what it should.
    Served,
    /// It did not.
    Failed,
}

impl Worker {
    pub(crate) fn new(address: &str, pulse: Arc<Pulse>) -> Self {
        Self {
            address: address.into(),
            name: pick::name_of(address),
            outstanding: AtomicU32::new(0),
            health: Mutex::new(Health {
                state: WorkerState::Connecting,
                reason: "not reached yet".to_owned(),
                load: Load::default(),
                foreign: 0,
                met: false,
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

    /// Whether it has ever said what it serves.
    pub(crate) fn is_met(&self) -> bool {
        self.health.lock().met
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

    /// Takes seats, until the guard is dropped.
    pub(crate) fn take_seats(self: &Arc<Self>, seats: u32) -> Seats {
        self.outstanding.fetch_add(seats, Ordering::Relaxed);
        Seats {
            worker: Arc::clone(self),
            seats,
        }
    }

    /// Seats that this router's calls take there.
    pub(crate) fn outstanding(&self) -> u32 {
        self.outstanding.load(Ordering::Relaxed)
    }

    /// A client on the connection, if there is one.
    pub(crate) fn client(&self) -> Option<EngineServiceClient<Channel>> {
        self.exchange.lock().as_ref().map(|exchange| exchange.client.clone())
    }

    /// Sends a command that opens a call, whose answers go to `feed`. `None` if the worker cannot be reached.
    pub(crate) fn call(&self, command: Command, feed: Arc<dyn Feed>, seats: Seats) -> Option<Call> {
        let mut exchange = self.exchange.lock();
        let exchange = exchange.as_mut()?;
        let call = exchange.next_call;
        let owned = matches!(command, Command::Start(_));
        let sent = exchange.commands.try_send(EngineCommand {
            call,
            command: Some(command),
        });
        if sent.is_err() {
            return None;
        }
        exchange.next_call = call.wrapping_add(1);
        exchange.calls.insert(call, feed);
        Some(Call {
            seats: Some(seats),
            call,
            owned,
        })
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

    fn feed(&self, call: u32) -> Option<Arc<dyn Feed>> {
        self.exchange.lock().as_ref()?.calls.get(&call).cloned()
    }

    /// Takes a call off the exchange. Says whether it was there.
    fn forget(&self, call: u32) -> Option<Arc<dyn Feed>> {
        self.exchange.lock().as_mut()?.calls.remove(&call)
    }

    /// Ends a call that still runs, and its answer too if that is this router's.
    fn abandon(&self, call: u32, owned: bool) {
        let feed = {
            let mut exchange = self.exchange.lock();
            let Some(exchange) = exchange.as_mut() else { return };
            let feed = exchange.calls.remove(&call);
            let command = if owned {
                Command::Cancel(Cancel {})
            } else {
                Command::Detach(Detach::default())
            };
            let command = EngineCommand {
                call,
                command: Some(command),
            };
            if feed.is_some() && exchange.commands.try_send(command).is_err() {
                // It has stopped reading: its silence will end the whole connection.
                tracing::warn!(worker = %self.address, "a cancel could not be sent: the worker does not read");
            }
            feed
        };
        drop(feed); // out of the lock: it may hold the last of an answer
    }

    /// An answer that was made here goes on elsewhere: should the worker come back, it is told to stop.
    pub(crate) fn stop_later(&self, stale: AbortRequest) {
        let mut lost = self.lost.lock();
        if lost.len() < LOST {
            lost.push(stale);
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
            health.foreign = (load.busy + load.queued).saturating_sub(own);
            health.state = if load.draining { WorkerState::Draining } else { WorkerState::Ready };
            health.reason = if load.draining {
                "it is stopping".to_owned()
            } else {
                String::new()
            };
            health.met = true;
            health.load = load;
        }
        self.pulse.slots_changed();
    }

    fn set_state(&self, state: WorkerState, reason: &str) {
        {
            let mut health = self.health.lock();
            health.state = state;
            reason.clone_into(&mut health.reason);
        }
        self.pulse.slots_changed();
    }

    fn opened(&self, commands: mpsc::Sender<EngineCommand>, client: EngineServiceClient<Channel>) {
        *self.exchange.lock() = Some(Exchange {
            commands,
            client,
            next_call: 1,
            calls: HashMap::new(),
        });
    }

    /// The connection is over, and with it every call on it.
    fn closed(&self, failure: &Failure) {
        let Some(exchange) = self.exchange.lock().take() else { return };
        for feed in exchange.calls.into_values() {
            feed.broken(failure.clone());
        }
    }
}

impl Health {
    fn is_ready(&self) -> bool {
        self.state == WorkerState::Ready && !self.breaker.is_open(Instant::now())
    }
}

/// Seats that are taken at a worker until this is dropped.
pub(crate) struct Seats {
    worker: Arc<Worker>,
    seats: u32,
}

impl Seats {
    /// The worker that they are at.
    pub(crate) fn worker(&self) -> &Arc<Worker> {
        &self.worker
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        self.worker.outstanding.fetch_sub(self.seats, Ordering::Relaxed);
        self.worker.pulse.slots_changed();
    }
}

/// A call that runs on a worker. Dropped before its end, its answer is cancelled there, if it is this router's.
pub(crate) struct Call {
    seats: Option<Seats>,
    call: u32,
    owned: bool,
}

impl Call {
    /// The worker that it runs on. `None` only while it is being dropped.
    pub(crate) fn worker(&self) -> Option<&Arc<Worker>> {
        self.seats.as_ref().map(Seats::worker)
    }

    /// The answer that this call attached to is this router's from now on.
    pub(crate) fn own(&mut self) {
        self.owned = true;
    }

    /// The call has ended by itself: nothing has to be cancelled.
    pub(crate) fn ended(mut self, outcome: Outcome) {
        if let Some(seats) = self.seats.take() {
            drop(seats.worker.forget(self.call));
            seats.worker.judge(outcome);
        }
    }

    /// The worker is to blame for what became of the call.
    pub(crate) fn blame(&self) {
        if let Some(worker) = self.worker() {
            worker.judge(Outcome::Failed);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(seats) = self.seats.take() {
            seats.worker.abandon(self.call, self.owned);
        }
    }
}
