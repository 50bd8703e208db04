//! Legs: how an answer gets a worker, and what happens when that one fails.
//!
//! Another worker goes on with it in the next epoch, which shuts the old one out, and the resume points tell it where the answer stands.
//! Before its first entry it stands nowhere: it simply starts anew elsewhere, and that costs no budget.

use std::{sync::Arc, time::Duration};

use journal::Writer;
use proto::v1::{AbortRequest, ChatRequest, Entry, Failure, GenerateRequest, Head, Reason, engine_command::Command};
use tokio::time::{Instant, sleep};

use super::{FIRST_EPOCH, Router, end::ClosedBy};
use crate::{
    answer::{
        Answer,
        leg::{Fed, Ran, Unrun},
    },
    worker::{Feed, Outcome, Seats},
    workers::Want,
};

/// Workers that a request is given to before it has its first entry.
const ATTEMPTS: u32 = 3;
/// Times that an answer moves after a crash. A request that kills its workers stops here.
const MIGRATIONS: u32 = 2;
/// Times that two routers may each think that an answer is theirs: with the store away nobody can tell them, and one gives in.
const CONTESTS: u32 = 3;
/// How often it is looked whether there is a worker again that could go on with an answer.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// Pause before the dispatcher looks again after a worker would not take a command.
const PAUSE: Duration = Duration::from_millis(10);

/// What a worker's entries are for: one answer, in one epoch.
pub(super) struct Leg {
    pub(super) router: Arc<Router>,
    pub(super) answer: Arc<Answer>,
    pub(super) writer: Writer<Entry>,
}

impl Feed for Leg {
    fn head(&self, head: Head, _: Option<Box<ChatRequest>>) {
        self.answer.set_head(&head);
    }

    fn entries(&self, position: u32, entries: Vec<Entry>, now: Instant) {
        match self.answer.feed(&self.writer, position, entries, now) {
            Fed::More | Fed::Stale => {}
            Fed::Ended => self.router.finish(&self.answer, ClosedBy::Worker),
            Fed::Broken(failure) if failure.reason() == Reason::Moved => self.router.contest(&self.answer, self.writer.epoch(), failure),
            Fed::Broken(failure) => self.router.blame(&self.answer, self.writer.epoch(), failure),
            Fed::Full => {
                let failure = Failure::new(Reason::Limit, "the answer is longer than this router keeps");
                self.router.fail(&self.answer, failure);
            }
        }
    }

    fn disowned(&self) {
        self.router.disowned(&self.answer);
    }

    fn refused(&self, failure: Failure) {
        if failure.reason() == Reason::Conflict {
            self.router.contest(&self.answer, self.writer.epoch(), failure);
            return;
        }
        let Some(leg) = self.answer.unrun(self.writer.epoch()) else {
            return;
        };
        if is_of_the_worker(&failure) {
            self.router.go_on(&self.answer, leg, failure);
        } else {
            drop(leg);
            self.router.fail(&self.answer, failure);
        }
    }

    fn broken(&self, failure: Failure) {
        let Some(leg) = self.answer.unrun(self.writer.epoch()) else {
            return;
        };
        if let Some(worker) = leg.call.worker() {
            worker.stop_later(AbortRequest {
                stream_id: self.answer.id.to_string(),
                epoch: leg.epoch,
            });
        }
        self.router.go_on(&self.answer, leg, failure);
    }
}

/// Where an answer stands, for the worker that goes on with it.
pub(super) fn standing(answer: &Answer) -> GenerateRequest {
    let position = answer.journal.len();
    let (resume, entries) = if position == 0 {
        (Vec::new(), Vec::new())
    } else {
        (answer.resume_points(), answer.made())
    };
    GenerateRequest {
        stream_id: answer.id.to_string(),
        resume,
        entries,
        position,
        ..GenerateRequest::default()
    }
}

/// What the answer needs of a worker.
pub(super) fn want(answer: &Answer) -> Want<'_> {
    Want {
        model: answer.model(),
        seats: answer.seats,
        affinity: answer.affinity,
        continues: !answer.journal.is_empty(),
        avoid: answer.avoids(),
    }
}

/// Whether another worker might take what this one refused.
pub(super) fn is_of_the_worker(failure: &Failure) -> bool {
    matches!(
        failure.reason(),
        Reason::QueueFull | Reason::Draining | Reason::Unavailable | Reason::Upstream
    )
}

impl Router {
    /// Gives turns as slots come free, until draining has begun and no answer runs.
    pub(super) async fn dispatch_all(self: Arc<Self>) {
        loop {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = self.pulse.slots() => {}
            }
            if !self.dispatch() {
                sleep(PAUSE).await;
            }
        }
    }

    /// Gives a turn to everybody who can have one now. Says false if a worker that should have had room took no command.
    pub(super) fn dispatch(self: &Arc<Self>) -> bool {
        loop {
            let next = self.queue.lock().next(|_, answer| self.workers.pick(want(answer)));
            let Some((answer, seats)) = next else { break };
            if !self.place(&answer, seats) {
                return false;
            }
        }
        self.refuse_the_hopeless();
        true
    }

    /// Opens a leg at the worker of these seats. Says false if it is gone; the answer waits again then.
    pub(super) fn place(self: &Arc<Self>, answer: &Arc<Answer>, seats: Seats) -> bool {
        let worker = Arc::clone(seats.worker());
        let standing = standing(answer);
        let ran = answer.run(worker.address(), |request, writer| {
            let command = Command::Start(Box::new(GenerateRequest {
                epoch: writer.epoch(),
                request: Some((**request).clone()),
                created: answer.created_ms / 1000,
                ..standing
            }));
            let leg = Arc::new(Leg {
                router: Arc::clone(self),
                answer: Arc::clone(answer),
                writer: writer.clone(),
            });
            worker.call(command, leg, seats)
        });
        if ran == Ran::NoWorker {
            self.queue.lock().push_again(&answer.claim.model, Arc::clone(answer));
        }
        ran != Ran::NoWorker
    }

    /// Nobody serves their model any more: those that wait for their first worker are told so at once.
    fn refuse_the_hopeless(&self) {
        let mut queue = self.queue.lock();
        if queue.is_empty() {
            return;
        }
        let hopeless: Vec<_> = queue.models().into_iter().filter(|model| self.workers.slots(model) == 0).collect();
        let gone = if hopeless.is_empty() {
            Vec::new()
        } else {
            queue.remove(|model, answer| hopeless.contains(model) && answer.is_fresh())
        };
        drop(queue);
        for answer in gone {
            let failure = self.nobody(&answer.claim.model);
            self.fail(&answer, failure);
        }
    }

    /// The leg of this epoch is broken, and its worker is to blame.
    pub(super) fn blame(self: &Arc<Self>, answer: &Arc<Answer>, epoch: u32, failure: Failure) {
        if let Some(leg) = answer.unrun(epoch) {
            leg.call.blame();
            self.go_on(answer, leg, failure);
        }
    }

    /// A worker has a later leg of this answer than this one, or has heard of one: some other router has taken it over, or is about to. The store
    /// knows whose it is: if it is still this one's, it goes on in the epoch after. No worker is to blame.
    fn contest(self: &Arc<Self>, answer: &Arc<Answer>, epoch: u32, failure: Failure) {
        let Some(leg) = answer.unrun(epoch) else { return };
        let times = answer.contested();
        leg.call.ended(Outcome::Served);
        if !answer.is_owned() || times > CONTESTS {
            self.let_go(answer);
            return;
        }
        let (router, answer) = (Arc::clone(self), Arc::clone(answer));
        self.drain.spawn(async move {
            // Who has won an epoch wins it again by asking again.
            if epoch > FIRST_EPOCH && router.claim_next(&answer, epoch - 1).await.is_err() {
                router.let_go(&answer);
            } else {
                router.migrate(&answer, epoch, failure);
            }
        });
    }

    /// An answer has lost its leg: it gets another one, if it may.
    fn go_on(self: &Arc<Self>, answer: &Arc<Answer>, leg: Unrun, failure: Failure) {
        let Unrun { call, begun, times, epoch } = leg;
        drop(call);
        if !answer.is_owned() {
            self.let_go(answer); // its owner has lost the worker too, and moves it
            return;
        }
        let may = if begun {
            times <= MIGRATIONS && self.workers.can_continue(&answer.claim.model) && self.budget.lock().take(Instant::now())
        } else {
            times < ATTEMPTS
        };
        if may {
            self.migrate(answer, epoch, failure);
        } else {
            self.fail(answer, failure);
        }
    }

    /// Another worker is to go on with an answer.
    fn migrate(self: &Arc<Self>, answer: &Arc<Answer>, epoch: u32, failure: Failure) {
        tracing::info!(stream_id = %answer.id, position = answer.journal.len(), epoch, %failure, "the answer moves to another worker");
        let (router, answer) = (Arc::clone(self), Arc::clone(answer));
        self.drain.spawn(async move {
            // One that no worker is there for is not claimed: it may be this router that is cut off, and then another one can go on. What ends
            // one connection may be ending the others just now, and a worker that was not heard of lately may be lost, too.
            loop {
                sleep(LOOK_AGAIN).await;
                if answer.journal.is_closed() {
                    return;
                }
                if router.workers.is_near(answer.model(), !answer.journal.is_empty()) {
                    break;
                }
            }
            match router.claim_next(&answer, epoch).await {
                Ok(next) if answer.claim(next).is_ok() => router.wait_again(&answer),
                Ok(_) => router.fail(&answer, failure),
                Err(_) => router.let_go(&answer),
            }
        });
    }

    pub(super) fn wait_again(&self, answer: &Arc<Answer>) {
        self.queue.lock().push_again(&answer.claim.model, Arc::clone(answer));
        self.pulse.slots_changed();
    }
}
