//! The calls on a worker's exchange: who takes what comes back, and what is given back when a call ends.

use std::sync::{Arc, atomic::Ordering};

use foldhash::{HashMap, HashMapExt as _};
use proto::v1::{
    Cancel, ChatRequest, Detach, EngineCommand, Entry, Failure, Head, Own, engine_command::Command,
    engine_service_client::EngineServiceClient,
};
use tokio::{sync::mpsc, time::Instant};
use tonic::transport::Channel;

use super::Worker;

/// What takes what a worker sends for one call.
pub(crate) trait Feed: Send + Sync {
    /// The worker has taken the answer. `request` comes only to who attached to adopt it.
    fn head(&self, head: Head, request: Option<Box<ChatRequest>>);
    /// Entries came, the first for `position`.
    fn entries(&self, position: u32, entries: Vec<Entry>, now: Instant);
    /// Another router has taken the answer over. Entries come on.
    fn disowned(&self);
    /// The worker refuses; the call is over.
    fn refused(&self, failure: Failure);
    /// The worker is gone; the call is over.
    fn broken(&self, failure: Failure);
}

/// The sending side of the open exchange, and the calls on it.
pub(super) struct Exchange {
    commands: mpsc::Sender<EngineCommand>,
    pub(super) client: EngineServiceClient<Channel>,
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
    /// Takes seats, until the guard is dropped.
    pub(crate) fn take_seats(self: &Arc<Self>, seats: u32) -> Seats {
        self.outstanding.fetch_add(seats, Ordering::Relaxed);
        Seats {
            worker: Arc::clone(self),
            seats,
        }
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
            number: call,
            owned,
        })
    }

    pub(super) fn feed(&self, call: u32) -> Option<Arc<dyn Feed>> {
        self.exchange.lock().as_ref()?.calls.get(&call).cloned()
    }

    /// Takes a call off the exchange. Says whether it was there.
    pub(super) fn forget(&self, call: u32) -> Option<Arc<dyn Feed>> {
        self.exchange.lock().as_mut()?.calls.remove(&call)
    }

    /// Sends a further command for a call that runs.
    fn tell(&self, call: u32, command: Command) {
        let exchange = self.exchange.lock();
        let Some(exchange) = exchange.as_ref().filter(|exchange| exchange.calls.contains_key(&call)) else {
            return;
        };
        exchange.send(&self.address, call, command);
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
            if feed.is_some() {
                exchange.send(&self.address, call, command);
            }
            feed
        };
        drop(feed); // out of the lock: it may hold the last of an answer
    }

    pub(super) fn opened(&self, commands: mpsc::Sender<EngineCommand>, client: EngineServiceClient<Channel>) {
        *self.exchange.lock() = Some(Exchange {
            commands,
            client,
            next_call: 1,
            calls: HashMap::new(),
        });
    }

    /// The connection is over, and with it every call on it.
    pub(super) fn closed(&self, failure: &Failure) {
        let Some(exchange) = self.exchange.lock().take() else { return };
        for feed in exchange.calls.into_values() {
            feed.broken(failure.clone());
        }
    }
}

impl Exchange {
    fn send(&self, worker: &str, call: u32, command: Command) {
        let command = EngineCommand {
            call,
            command: Some(command),
        };
        if self.commands.try_send(command).is_err() {
            // It has stopped reading: its silence will end the whole connection.
            tracing::warn!(worker, "a command could not be sent: the worker does not read");
        }
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
    number: u32,
    owned: bool,
}

impl Call {
    /// The worker that it runs on. `None` only while it is being dropped.
    pub(crate) fn worker(&self) -> Option<&Arc<Worker>> {
        self.seats.as_ref().map(Seats::worker)
    }

    /// The answer that this call attached to is this router's from now on, in this epoch.
    pub(crate) fn own(&mut self, epoch: u32) {
        self.owned = true;
        if let Some(worker) = self.worker() {
            worker.tell(self.number, Command::Own(Own { epoch }));
        }
    }

    /// The answer is another router's from now on.
    pub(crate) fn disown(&mut self) {
        self.owned = false;
    }

    /// The call has ended by itself: nothing has to be cancelled.
    pub(crate) fn ended(mut self, outcome: Outcome) {
        if let Some(seats) = self.seats.take() {
            drop(seats.worker.forget(self.number));
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
            seats.worker.abandon(self.number, self.owned);
        }
    }
}
