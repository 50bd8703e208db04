//! Taking over an answer that another router carried and that this one does not hold: it asks every worker that it can reach, and
//! the one that makes the answer sends it again from the first entry. The generation never pauses.
//!
//! Whose the answer is, and what it was asked, the worker tells ([`Feed::head`]). Where it does not tell, the answer is nobody's: it is not
//! found by a caller who is somebody, though they know its name, and it cannot go on elsewhere.
//!
//! The router that carried it may still be alive, and only cut off from the gateways. Whoever adopts therefore takes the next epoch, first
//! in the store, which decides between the two, and then at the worker ([`Answer::own`]), which tells the one before: its older epoch can
//! neither cancel the answer nor move it nor store its turn any more.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use proto::v1::{AttachRequest, ChatRequest, DisconnectPolicy, Entry, Failure, Head, Principal, Reason, engine_command::Command};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::{FIRST_EPOCH, Router, place::Leg, turn::Claimed};
use crate::{
    answer::{Answer, leg::Ran},
    worker::{Call, Feed},
};

/// How long the workers may take to say whether they have it.
const ASK: Duration = Duration::from_secs(2);

/// An answer that a worker has, and the call that reads it from its first entry.
pub(super) struct Found {
    stream_id: String,
    probe: Arc<Probe>,
    call: Call,
    head: Head,
    /// What was asked, if the worker told: it does so while the answer runs.
    pub(super) request: Option<Box<ChatRequest>>,
}

/// What a worker said.
enum Said {
    /// It makes that answer.
    Mine(usize, Head, Option<Box<ChatRequest>>),
    /// It knows no such answer.
    No,
}

/// What takes what a worker sends until it is known whose the answer is.
struct Probe {
    index: usize,
    said: mpsc::Sender<Said>,
    taken: Mutex<Taken>,
}

enum Taken {
    /// Entries that came before the answer was there to take them.
    Waiting(Vec<(u32, Vec<Entry>, Instant)>),
    /// The answer takes them.
    By(Arc<Leg>),
    /// The worker has gone, or refused.
    Nobody,
}

impl Feed for Probe {
    fn head(&self, head: Head, request: Option<Box<ChatRequest>>) {
        let _ = self.said.try_send(Said::Mine(self.index, head, request)); // room for one from each; the first stands
    }

    fn entries(&self, position: u32, entries: Vec<Entry>, now: Instant) {
        let leg = match &mut *self.taken.lock() {
            Taken::Waiting(waiting) => {
                waiting.push((position, entries, now));
                return;
            }
            Taken::By(leg) => Arc::clone(leg),
            Taken::Nobody => return,
        };
        leg.entries(position, entries, now);
    }

    fn disowned(&self) {
        let leg = match &*self.taken.lock() {
            Taken::By(leg) => Some(Arc::clone(leg)),
            Taken::Waiting(_) | Taken::Nobody => None,
        };
        if let Some(leg) = leg {
            leg.disowned();
        }
    }

    fn refused(&self, failure: Failure) {
        match self.lose() {
            Some(leg) => leg.refused(failure),
            None => drop(self.said.try_send(Said::No)),
        }
    }

    fn broken(&self, failure: Failure) {
        match self.lose() {
            Some(leg) => leg.broken(failure),
            None => drop(self.said.try_send(Said::No)),
        }
    }
}

impl Probe {
    fn lose(&self) -> Option<Arc<Leg>> {
        match std::mem::replace(&mut *self.taken.lock(), Taken::Nobody) {
            Taken::By(leg) => Some(leg),
            Taken::Waiting(_) | Taken::Nobody => None,
        }
    }

    /// The answer takes what came and what will come. Says false if the worker has gone meanwhile.
    fn give_to(&self, leg: &Arc<Leg>) -> bool {
        loop {
            let waiting = {
                let mut taken = self.taken.lock();
                match &mut *taken {
                    Taken::Waiting(waiting) if waiting.is_empty() => {
                        *taken = Taken::By(Arc::clone(leg));
                        return true;
                    }
                    Taken::Waiting(waiting) => std::mem::take(waiting),
                    Taken::By(_) => return true,
                    Taken::Nobody => return false,
                }
            };
            for (position, entries, now) in waiting {
                leg.entries(position, entries, now);
            }
        }
    }
}

impl Router {
    /// Whether there is an answer of that name here, whosever it is.
    pub(crate) fn holds(&self, stream_id: &str) -> bool {
        self.answers.lock().get(stream_id).is_some()
    }

    /// The answer of that name, from here or from the worker that makes it.
    ///
    /// # Errors
    /// There is none, it is somebody else's, or it is not kept any more.
    pub(crate) async fn find_or_adopt(self: &Arc<Self>, stream_id: &str, principal: Option<&Principal>) -> Result<Arc<Answer>, Failure> {
        if !self.holds(stream_id) && !stream_id.is_empty() {
            self.refuse_expired(stream_id, principal)?;
            match self.ask(stream_id).await? {
                Some(found) => self.take_over(found, principal).await?,
                None => self.recall(stream_id, principal).await?,
            }
        }
        self.find(stream_id, principal)
    }

    /// Asks every worker that can be reached for an answer.
    ///
    /// # Errors
    /// Not all of them could be asked.
    pub(super) async fn ask(self: &Arc<Self>, stream_id: &str) -> Result<Option<Found>, Failure> {
        let workers = self.workers.reachable();
        let (said, mut saying) = mpsc::channel(workers.len().max(1));
        let mut asked: Vec<Option<(Arc<Probe>, Call)>> = Vec::new();
        for (index, worker) in workers.iter().enumerate() {
            let probe = Arc::new(Probe {
                index,
                said: said.clone(),
                taken: Mutex::new(Taken::Waiting(Vec::new())),
            });
            let attach = Command::Attach(AttachRequest {
                stream_id: stream_id.to_owned(),
                position: 0,
                adopt: true,
            });
            let call = worker.call(attach, Arc::clone(&probe) as Arc<dyn Feed>, worker.take_seats(1));
            asked.push(call.map(|call| (probe, call)));
        }
        drop(said);
        let mut left = asked.iter().flatten().count();
        let answered = timeout(ASK, async {
            while left > 0 {
                match saying.recv().await {
                    Some(Said::Mine(index, head, request)) => return Some((index, head, request)),
                    Some(Said::No) => left -= 1,
                    None => return None,
                }
            }
            None
        });
        match answered.await {
            Ok(Some((index, head, request))) => Ok(asked.get_mut(index).and_then(Option::take).map(|(probe, call)| Found {
                stream_id: stream_id.to_owned(),
                probe,
                call,
                head,
                request,
            })),
            Ok(None) if !self.workers.expects_more() => Ok(None),
            Ok(None) | Err(_) => Err(Failure {
                retry_after_ms: 500,
                ..Failure::new(Reason::Unavailable, "not every worker could be asked for this answer")
            }),
        }
    }

    /// Takes over what a worker has, if it is the caller's; else it is let go of, and is not found.
    ///
    /// # Errors
    /// There is no room for it here, or another router has taken it.
    pub(super) async fn take_over(self: &Arc<Self>, found: Found, principal: Option<&Principal>) -> Result<(), Failure> {
        let Found {
            stream_id,
            probe,
            call,
            head,
            request,
        } = found;
        let mut request = origin(&stream_id, request);
        if request.principal.clone().unwrap_or_default() != principal.cloned().unwrap_or_default() {
            return Ok(());
        }
        head.model.clone_into(&mut request.model);
        head.conversation_id.clone_into(&mut request.conversation_id);
        if self.holds(&stream_id) {
            return Ok(()); // somebody was quicker; this call is detached
        }
        let (epoch, to_claim) = match self.claim_to_adopt(&stream_id, head.epoch.max(FIRST_EPOCH)).await? {
            Claimed::Now(epoch) => (epoch, None),
            Claimed::Later(epoch, claim) => (epoch, Some(claim)),
        };
        let answer = Arc::new(self.answer_of(request, head.created.saturating_mul(1000), epoch)?);
        answer.inherit_turn();
        answer.orphan(self.settings.gateway_grace);
        if self.shelve(&answer)?.is_some() {
            return Ok(()); // the same, while the store was asked
        }
        tracing::info!(stream_id = %answer.id, epoch, "taking over an answer of another router");
        let address = call.worker().map(|worker| Arc::clone(worker.address())).unwrap_or_default();
        answer.set_head(&Head { epoch, ..head });
        let ran = answer.run(&address, |_, _| Some(call));
        let leg = Arc::new(Leg {
            router: Arc::clone(self),
            writer: answer.writer(),
            answer: Arc::clone(&answer),
        });
        if ran == Ran::Runs && !probe.give_to(&leg) {
            leg.broken(Failure::new(Reason::WorkerLost, "the worker was lost"));
            return Ok(());
        }
        answer.own();
        if let Some(claim) = to_claim {
            self.claim_later(&answer, claim);
        }
        Ok(())
    }
}

/// What was asked, as the worker tells it, or the little that is known: whose it is never follows from who wants it.
fn origin(stream_id: &str, told: Option<Box<ChatRequest>>) -> ChatRequest {
    let unknown = || ChatRequest {
        disconnect: DisconnectPolicy::Detach.into(),
        keep: true, // the store knows whether it is to be: it takes no more than what was opened there
        ..ChatRequest::default()
    };
    let mut request = told.map_or_else(unknown, |told| *told);
    stream_id.clone_into(&mut request.stream_id);
    request
}
