//! Who may wait for a slot, and what those are told who may not.

use std::sync::Arc;

use proto::v1::{Failure, Reason};

use super::{Router, place::want};
use crate::{admission::QueueFull, answer::Answer};

/// The shortest and the longest time after which a refused caller is told to try again.
const RETRY_AFTER: (u32, u32) = (500, 30_000);

impl Router {
    /// Waits for a turn, which may be now.
    pub(super) fn admit(self: &Arc<Self>, answer: &Arc<Answer>) -> Result<(), Failure> {
        let nobody_waits = self.queue.lock().is_empty();
        if nobody_waits && let Some(seats) = self.workers.pick(want(answer)) {
            self.place(answer, seats); // where its worker has just gone, it waits again
            return Ok(());
        }
        let slots = self.has_room(answer)?;
        let bound = self.queue_bound(slots);
        let pushed = self.queue.lock().push(&answer.claim, bound, Arc::clone(answer));
        pushed.map_err(|full| queue_full(answer, full, slots))?;
        self.dispatch();
        Ok(())
    }

    /// How many slots there are for the answer, if it may wait for one now.
    pub(super) fn has_room(&self, answer: &Answer) -> Result<u32, Failure> {
        let slots = self.workers.slots(answer.model());
        if slots == 0 {
            return Err(self.nobody(answer.model()));
        }
        let depth = self.queue.lock().depth(answer.model());
        if depth as usize >= self.queue_bound(slots) {
            return Err(queue_full(answer, QueueFull { depth }, slots));
        }
        Ok(slots)
    }

    fn queue_bound(&self, slots: u32) -> usize {
        slots.saturating_mul(self.settings.queue_factor).max(1) as usize
    }

    pub(super) fn nobody(&self, model: &str) -> Failure {
        match self.workers.resolve(model, |model| model.chat) {
            Err(failure) => failure,
            Ok(_) => Failure::new(Reason::Unavailable, "no worker is ready"),
        }
    }
}

fn queue_full(answer: &Answer, QueueFull { depth }: QueueFull, slots: u32) -> Failure {
    let rounds = depth / slots + 1;
    Failure {
        queue_depth: depth,
        retry_after_ms: (rounds * 1000).clamp(RETRY_AFTER.0, RETRY_AFTER.1),
        ..Failure::new(
            Reason::QueueFull,
            format!("{depth} requests wait for the model {:?} already", answer.model()),
        )
    }
}
