//! Handing answers over: a worker that is stopping gets nothing new, and what it makes moves to others while it still makes it.
//!
//! A move has two steps. The target first brings its KV cache to where the answer stands (`Warm`), which takes as long as a prefill,
//! and the old worker makes token after token meanwhile. Then the answer moves as it would after a crash: the next epoch shuts the old
//! worker out at whatever position it has come to, and the target goes on there; of its prefill only the tokens are left that were made
//! since. There is one way to go on with an answer, and it asks nothing of the two workers' tokens being the same.
//!
//! An answer that would have ended by then anyway stays, and so does one that nobody has room for: it is looked at again in the next
//! sweep. Nobody is to blame for a move, so it counts against no budget.

use std::{sync::Arc, time::Duration};

use proto::v1::{Failure, GenerateRequest, Reason};
use tokio::time::{Instant, timeout};

use super::{
    Router,
    place::{is_of_the_worker, standing},
};
use crate::{answer::Answer, worker::Seats, workers::Want};

/// An answer that has no more than this left stays where it is: a move would take about as long.
const MOMENT: Duration = Duration::from_secs(1);
/// How long the target may take to prefill: past that, whoever is stopping may as well go on.
const WARM: Duration = Duration::from_secs(10);

impl Router {
    /// Moves what the workers that are stopping still make.
    pub(super) fn empty_the_draining(self: &Arc<Self>, now: Instant) {
        let draining = self.workers.draining();
        if draining.is_empty() {
            return;
        }
        for answer in self.running() {
            let there = answer.worker().is_some_and(|worker| draining.contains(&worker.name()));
            if there && answer.is_owned() {
                self.hand_over(answer, now);
            }
        }
    }

    fn hand_over(self: &Arc<Self>, answer: Arc<Answer>, now: Instant) {
        let Some(epoch) = answer.begin_move(MOMENT, now) else { return };
        let target = self.workers.pick(Want {
            model: answer.model(),
            seats: answer.seats,
            affinity: answer.affinity,
            continues: !answer.journal.is_empty(),
            avoid: None, // the one that is stopping is not ready, and so not picked
        });
        let Some(target) = target else {
            answer.end_move();
            return;
        };
        let router = Arc::clone(self);
        self.drain.spawn(async move {
            match warm(&answer, &target).await {
                Ok(()) => router.move_to(&answer, epoch, target).await,
                Err(failure) => {
                    tracing::info!(stream_id = %answer.id, %failure, "the answer stays at the worker that is stopping");
                    if !is_of_the_worker(&failure) {
                        return; // no worker can go on with this one
                    }
                }
            }
            answer.end_move();
        });
    }

    async fn move_to(self: &Arc<Self>, answer: &Arc<Answer>, epoch: u32, target: Seats) {
        let Ok(next) = self.claim_next(answer, epoch).await else {
            self.let_go(answer);
            return;
        };
        let Some(call) = answer.leave_leg(epoch, next) else { return };
        tracing::info!(stream_id = %answer.id, position = answer.journal.len(), epoch = next, worker = %target.worker().address(), "the answer moves");
        if !self.place(answer, target) {
            self.pulse.slots_changed();
        }
        drop(call); // which stops the old worker, now that the new one has begun
    }
}

/// Brings the target's cache to where the answer stands now.
async fn warm(answer: &Answer, target: &Seats) -> Result<(), Failure> {
    let away = || Failure::new(Reason::Unavailable, "the worker is away");
    let mut client = target.worker().client().ok_or_else(away)?;
    let request = GenerateRequest {
        request: answer.request().map(|request| (*request).clone()),
        ..standing(answer)
    };
    match timeout(WARM, client.warm(request)).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(Failure::from_status(&status)),
        Err(_) => Err(Failure::new(Reason::Unavailable, "the worker took too long to prefill")),
    }
}
