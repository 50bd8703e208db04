//! What happens to an answer, from its start to its end: the one place where the parts meet.
//!
//! [`begin`] → (turn in the store) → admission → [`place`]: a worker is picked and a leg opened → entries → [`end`]. [`clocks`] watches the
//! time. Everything here is a plain call, made by whoever brings the news (a gateway's command, a worker's entries, a clock):
//! an answer has no task of its own.
//!
//! Locks are taken in this order, and never the other way: the shelf or the queue → the list of workers → an answer's state → a
//! worker's exchange or an answer's journal.

mod admit;
mod adopt;
mod begin;
mod clocks;
mod count;
mod embed;
mod end;
mod hand_over;
mod leaving;
mod model;
mod place;
mod recover;
mod repeat;
mod save;
mod turn;

use std::{collections::BTreeSet, sync::Arc};

use chassis::drain::Drain;
use journal::{Bounds, Shelf};
use parking_lot::Mutex;
use proto::v1::{Failure, Principal, Reason};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    Error, Settings,
    admission::Admission,
    answer::{Answer, Shelved},
    budget::Budget,
    expired::Expired,
    pulse::Pulse,
    store::{
        Store,
        outbox::{self, Outbox},
    },
    worker::line,
    workers::Workers,
};

/// The epoch of a first writer.
const FIRST_EPOCH: u32 = 1;

/// The router.
pub(crate) struct Router {
    pub(crate) settings: Settings,
    pub(crate) drain: Drain,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) workers: Workers,
    queue: Mutex<Admission<Arc<Answer>>>,
    answers: Mutex<Shelf<Arc<str>, Shelved>>,
    expired: Mutex<Expired>,
    budget: Mutex<Budget>,
    store: Option<Arc<Store>>,
    outbox: Option<Arc<Outbox>>,
    /// Who claims epochs: a name that no other router has.
    name: String,
    /// Said once draining has begun and no answer runs any more.
    over: CancellationToken,
}

impl Router {
    pub(crate) fn new(settings: Settings, drain: Drain) -> Result<Arc<Self>, Error> {
        let pulse = Arc::new(Pulse::default());
        let store = settings
            .store_address()
            .map(|address| Store::new(address, settings.store_limit, Arc::clone(&pulse)));
        let store = store.transpose().map_err(Error::Store)?.map(Arc::new);
        let bounds = Bounds {
            running: settings.max_answers,
            retention: settings.retention,
            ..Bounds::default()
        };
        Ok(Arc::new(Self {
            outbox: store.is_some().then(|| Arc::new(Outbox::new(settings.outbox))),
            store,
            name: uuid::Uuid::now_v7().to_string(),
            workers: Workers::new(Arc::clone(&pulse)),
            queue: Mutex::default(),
            answers: Mutex::new(Shelf::new(bounds)),
            expired: Mutex::default(),
            budget: Mutex::new(Budget::new(settings.migrations, Instant::now())),
            over: CancellationToken::new(),
            settings,
            drain,
            pulse,
        }))
    }

    /// Starts what runs as long as the router: the dispatcher and the clocks.
    pub(crate) fn spawn_tasks(self: &Arc<Self>) {
        let router = Arc::clone(self);
        self.drain.spawn(async move { router.dispatch_all().await });
        let router = Arc::clone(self);
        self.drain.spawn(async move { router.watch_clocks().await });
        if let (Some(store), Some(outbox)) = (&self.store, &self.outbox) {
            outbox::spawn(outbox, store, &self.drain, self.over.clone());
            self.drain.spawn(Arc::clone(self).keep_saving(Arc::clone(store)));
            self.drain.spawn_until_draining(Arc::clone(self).keep_recovering(Arc::clone(store)));
        }
    }

    /// These are all workers of this source now.
    pub(crate) fn know_workers(self: &Arc<Self>, source: &str, addresses: &BTreeSet<String>) {
        let silence = self.settings.worker_silence;
        self.workers.set(source, addresses, |worker| {
            let over = self.over.clone();
            let task = self.drain.spawn(async move {
                tokio::select! {
                    () = over.cancelled() => {}
                    () = line::keep(worker, silence) => {}
                }
            });
            task.abort_handle()
        });
    }

    /// The answer of that name, if it is the caller's.
    ///
    /// # Errors
    /// There is none, or it is somebody else's: nobody is told which. The caller's own that is not kept any more is told as
    /// [`Reason::Expired`].
    pub(crate) fn find(&self, stream_id: &str, principal: Option<&Principal>) -> Result<Arc<Answer>, Failure> {
        let found = self.answers.lock().get(stream_id).map(|shelved| Arc::clone(&shelved.0));
        if found.is_none() {
            self.refuse_expired(stream_id, principal)?;
        }
        found
            .filter(|answer| principal.map_or(answer.principal == Principal::default(), |one| *one == answer.principal))
            .ok_or_else(|| Failure {
                param: "stream_id".to_owned(),
                ..Failure::new(Reason::NotFound, "there is no such answer")
            })
    }

    /// Said once draining has begun and no answer runs.
    pub(crate) fn over(&self) -> CancellationToken {
        self.over.clone()
    }

    /// Whether the store answers.
    pub(crate) fn is_store_up(&self) -> bool {
        self.store.as_ref().is_some_and(|store| store.is_up())
    }

    /// Every answer that has not ended.
    fn running(&self) -> Vec<Arc<Answer>> {
        let answers = self.answers.lock();
        let running = answers.iter().filter(|(_, _, running)| *running);
        running.map(|(_, shelved, _)| Arc::clone(&shelved.0)).collect()
    }

    /// Every answer on the shelf.
    pub(crate) fn answers(&self) -> Vec<Arc<Answer>> {
        self.answers.lock().iter().map(|(_, shelved, _)| Arc::clone(&shelved.0)).collect()
    }

    /// How many answers there are that have not ended, and how many of these wait in the queue.
    pub(crate) fn counts(&self) -> (usize, u32) {
        (self.answers.lock().running(), self.queue.lock().total())
    }
}
