//! What happens to an answer, from its start to its end: the one place where the parts meet.
//!
//! start → (turn in the store) → admission → [`place`]: a worker is picked and a leg opened → entries → end. [`clocks`] watches the
//! time. Everything here is a plain call, made by whoever brings the news (a gateway's command, a worker's entries, a clock):
//! an answer has no task of its own.
//!
//! Locks are taken in this order, and never the other way: the shelf or the queue → the list of workers → an answer's state → a
//! worker's exchange or an answer's journal.

mod admit;
mod adopt;
mod clocks;
mod count;
mod embed;
mod hand_over;
mod leaving;
mod place;
mod recover;
mod repeat;
mod save;
mod turn;

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::{drain::Drain, trace};
use journal::{Bounds, Shelf};
use parking_lot::Mutex;
use proto::v1::{ChatRequest, Entry, Failure, Principal, Reason};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::info_span;

use crate::{
    Error, Settings,
    admission::Admission,
    answer::{Answer, Origin, Shelved, end::Ending, millis},
    budget::Budget,
    expired::Expired,
    pulse::Pulse,
    request,
    store::{
        Store,
        outbox::{self, Outbox},
    },
    worker::{Outcome, line},
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
    began: Instant,
    /// Said once draining has begun and no answer runs any more.
    over: CancellationToken,
}

/// Who closed a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClosedBy {
    /// The worker: its call has ended.
    Worker,
    /// The router: the worker must be told.
    Router,
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
            began: Instant::now(),
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

    /// Starts an answer, or finds the one that this is a repetition of.
    ///
    /// # Errors
    /// The request is wrong, or cannot be served now.
    pub(crate) fn start(self: &Arc<Self>, request: ChatRequest) -> Result<Arc<Answer>, Failure> {
        self.start_in(request, FIRST_EPOCH)
    }

    /// The same for an answer whose first writer is in this epoch.
    fn start_in(self: &Arc<Self>, mut request: ChatRequest, epoch: u32) -> Result<Arc<Answer>, Failure> {
        request::check(&request)?;
        if let Some(answer) = self.repeated(&request)? {
            return Ok(answer);
        }
        if self.drain.is_draining() {
            return Err(Failure::new(Reason::Draining, "this router is stopping"));
        }
        let model = self.workers.resolve(&request.model, |model| model.chat)?;
        let id = uuid::Uuid::now_v7();
        request::complete(&mut request, seed(id));
        if request.stream_id.is_empty() {
            request.stream_id = format!("ans_{}", id.simple());
        }
        let answer = Arc::new(self.answer(request, &model, epoch)?);
        if let Some(first) = self.shelve(&answer)? {
            repeat::same(&first, &answer.principal, &answer.fingerprint)?;
            return Ok(first);
        }
        let admitted = if answer.conversation_id.is_empty() {
            self.admit(&answer)
        } else {
            self.has_room(&answer).map(|_| {
                let (router, opened) = (Arc::clone(self), Arc::clone(&answer));
                self.drain.spawn(router.open_turn(opened));
            })
        };
        if let Err(failure) = admitted {
            answer.close(Entry::failed(failure.clone()));
            self.finish(&answer, ClosedBy::Router);
            return Err(failure);
        }
        Ok(answer)
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

    /// Somebody ends an answer, whosever it is now. Says whether it ran until then.
    pub(crate) fn cancel(&self, answer: &Arc<Answer>) -> bool {
        if answer.journal.is_closed() {
            return false;
        }
        if !answer.is_owned()
            && let Some(worker) = answer.worker()
        {
            self.drain.spawn(worker.abort(&answer.id));
        }
        answer.close(Entry::cancelled(answer.usage()));
        self.finish(answer, ClosedBy::Router);
        true
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

    /// A new answer to this request.
    fn answer(&self, mut request: ChatRequest, model: &str, epoch: u32) -> Result<Answer, Failure> {
        model.clone_into(&mut request.model);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        self.answer_of(request, created_ms, epoch)
    }

    /// An answer that was started then, and whose writer is in this epoch.
    fn answer_of(&self, mut request: ChatRequest, created_ms: i64, epoch: u32) -> Result<Answer, Failure> {
        let asked = Duration::from_millis(request.timeout_ms.into());
        let limit = self.settings.answer_limit;
        let span = info_span!("chat", stream_id = %request.stream_id, model = %request.model, request_id = %request.request_id);
        trace::continue_from(&span, &request.traceparent);
        let context = trace::context_of(&span);
        if !context.is_empty() {
            request.traceparent = context;
        }
        let origin = Origin {
            id: request.stream_id.as_str().into(),
            model: request.model.as_str().into(),
            limit: if asked.is_zero() { limit } else { asked.min(limit) },
            detach_grace: self.settings.detach_grace,
            created_ms,
            epoch,
            span,
        };
        Answer::new(origin, request).map_err(|error| Failure::new(Reason::Internal, error.to_string()))
    }

    /// Puts an answer on the shelf; one of that name that came first is returned.
    fn shelve(&self, answer: &Arc<Answer>) -> Result<Option<Arc<Answer>>, Failure> {
        let mut answers = self.answers.lock();
        answers
            .insert(Arc::clone(&answer.id), Shelved(Arc::clone(answer)))
            .map_err(|full| Failure {
                retry_after_ms: 1000,
                ..Failure::new(Reason::QueueFull, full.to_string())
            })?;
        let there = answers
            .get(&answer.id)
            .filter(|there| !Arc::ptr_eq(&there.0, answer))
            .map(|there| Arc::clone(&there.0));
        drop(answers);
        self.pulse.status_changed();
        Ok(there)
    }

    /// Ends an answer with a failure.
    fn fail(&self, answer: &Arc<Answer>, failure: Failure) {
        let usage = answer.head().map(|_| answer.usage());
        answer.close(Entry::failed(Failure { usage, ..failure }));
        self.finish(answer, ClosedBy::Router);
    }

    /// Does once what is left to do when a journal is closed.
    fn finish(&self, answer: &Arc<Answer>, by: ClosedBy) {
        let Some(mut ending) = answer.end() else { return };
        match (ending.call.take(), by) {
            (Some(call), ClosedBy::Worker) if answer.finish_word() == Reason::Internal.as_word() => call.ended(Outcome::Failed),
            (Some(call), ClosedBy::Worker) => call.ended(Outcome::Served),
            (Some(call), ClosedBy::Router) => drop(call), // which cancels it
            (None, _) => drop(self.queue.lock().remove(|_, waiting| Arc::ptr_eq(waiting, answer))),
        }
        // One that was refused has left nothing to read, and may be tried again under its name; one that is another router's is read there.
        let refused = !ending.began && answer.journal.len() == 1 && answer.state_word() == "failed";
        let moved = answer.finish_word() == Reason::Moved.as_word();
        if answer.is_owned() {
            self.store_turn(answer, &ending);
        }
        let expired = if refused || moved {
            self.answers.lock().remove(&answer.id);
            Vec::new()
        } else {
            self.answers.lock().finish(&answer.id, std::time::Instant::now())
        };
        self.expire(expired);
        log(answer, &ending);
        self.pulse.status_changed();
    }
}

/// One line for each answer, and never a word of it.
fn log(answer: &Answer, ending: &Ending) {
    let usage = answer.final_usage();
    let _inside = ending.span.enter();
    tracing::info!(
        stream_id = %answer.id,
        request_id = %answer.request_id,
        trace_id = %trace::id_of(&ending.span),
        model = %answer.claim.model,
        worker = %ending.worker,
        epoch = ending.epoch,
        state = answer.state_word(),
        finish_reason = answer.finish_word(),
        prompt_tokens = usage.prompt_tokens,
        completion_tokens = usage.completion_tokens,
        ttft_ms = answer.first_ms(),
        duration_ms = millis(answer.started.elapsed()),
        "answered"
    );
}

/// A seed from the random bits of a name.
fn seed(id: uuid::Uuid) -> u64 {
    id.as_u64_pair().1
}
