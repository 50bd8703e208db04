//! An answer's legs: opening one, what its entries do, and leaving it.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use journal::Writer;
use proto::v1::{ChatRequest, Entry, Failure, Reason, entry::Event};
use tokio::time::Instant;

use super::{Answer, Phase, millis};
use crate::worker::Call;

/// What entries did to their answer.
#[derive(Debug)]
pub(crate) enum Fed {
    /// It goes on.
    More,
    /// Its terminal entry came.
    Ended,
    /// The leg is at fault; the answer could go on elsewhere.
    Broken(Failure),
    /// It is longer than a router keeps.
    Full,
    /// The leg is not the answer's any more.
    Stale,
}

/// A leg that is no more.
pub(crate) struct Unrun {
    /// The call that was its.
    pub(crate) call: Call,
    /// Whether there are entries: another worker must go on with it rather than begin.
    pub(crate) begun: bool,
    /// How often this has happened to the answer, this time included.
    pub(crate) times: u32,
    /// The leg's epoch.
    pub(crate) epoch: u32,
}

/// What became of an attempt to run an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It runs.
    Runs,
    /// It has ended, or runs already.
    Over,
    /// The worker was gone.
    NoWorker,
}

impl Answer {
    /// Takes entries of the leg that writes with `writer`, the first for `position`. Called for every token.
    pub(crate) fn feed(&self, writer: &Writer<Entry>, position: u32, mut entries: Vec<Entry>, now: Instant) -> Fed {
        let latency_ms = millis(now.saturating_duration_since(self.progress.started));
        let broken = takes_over(&mut entries);
        let terminal = entries.last().is_some_and(Entry::is_terminal);
        let appended = {
            let mut tokens = self.progress.tokens.lock();
            if tokens.epoch != writer.epoch() {
                return Fed::Stale;
            }
            if position <= tokens.next {
                tokens.take(position, &mut entries, latency_ms);
            }
            writer.append_from(position, entries)
        };
        self.progress.last_ms.store(latency_ms, Ordering::Relaxed);
        match appended {
            Ok(_) if terminal => Fed::Ended,
            Ok(_) => broken.map_or(Fed::More, Fed::Broken),
            Err(journal::Error::Full) => Fed::Full,
            Err(journal::Error::Gap { .. }) => Fed::Broken(Failure::new(Reason::WorkerLost, "the worker left entries out")),
            Err(journal::Error::Closed | journal::Error::Fenced(_)) => Fed::Stale,
        }
    }

    /// The worker to avoid, as it has just failed there.
    pub(crate) fn avoids(&self) -> Option<u64> {
        self.state.lock().avoid
    }

    /// Takes over writing in this epoch: what the leg before still sends is not taken.
    ///
    /// # Errors
    /// The answer has ended, or the epoch is not a later one.
    pub(crate) fn claim(&self, epoch: u32) -> Result<(), journal::Error> {
        let mut state = self.state.lock();
        let mut tokens = self.progress.tokens.lock();
        state.writer = self.journal.claim(epoch)?;
        tokens.epoch = epoch;
        Ok(())
    }

    /// Opens a leg: `call` makes the call on the worker and must not block. Says whether the answer runs now; it does not if it
    /// has ended, or if the worker was gone.
    pub(crate) fn run(&self, worker: &Arc<str>, call: impl FnOnce(&Arc<ChatRequest>, &Writer<Entry>) -> Option<Call>) -> Ran {
        let mut state = self.state.lock();
        let Phase::Waiting(_) = state.phase else { return Ran::Over };
        let Some(request) = state.request.clone() else { return Ran::Over };
        let Some(call) = call(&request, &state.writer) else {
            return Ran::NoWorker;
        };
        state.phase = Phase::Running(Instant::now(), call);
        state.worker = Arc::clone(worker);
        Ran::Runs
    }

    /// The leg of this epoch is broken: the answer waits for another one. `None` if it was not the current one, or if the answer
    /// has ended. The call is the caller's to end.
    pub(crate) fn unrun(&self, epoch: u32) -> Option<Unrun> {
        let mut state = self.state.lock();
        if state.writer.epoch() != epoch || !matches!(state.phase, Phase::Running(..)) || self.journal.is_closed() {
            return None;
        }
        let Phase::Running(_, call) = std::mem::replace(&mut state.phase, Phase::Waiting(Instant::now())) else {
            return None;
        };
        state.avoid = call.worker().map(|worker| worker.name());
        let begun = !self.journal.is_empty();
        let again = if begun { &mut state.migrations } else { &mut state.attempts };
        *again += 1;
        let times = *again;
        Some(Unrun { call, begun, times, epoch })
    }

    /// It lost its last leg to another router's, which is no worker's fault and does not count as that. Says how often so far.
    pub(crate) fn contested(&self) -> u32 {
        let mut state = self.state.lock();
        let begun = !self.journal.is_empty();
        let again = if begun { &mut state.migrations } else { &mut state.attempts };
        *again = again.saturating_sub(1);
        state.contests += 1;
        state.contests
    }

    /// Its worker is stopping, and another one is to be made ready for it. Says in which epoch it runs there; `None` if it does not run,
    /// if that is being done already, or if it will have ended within a moment.
    pub(crate) fn begin_move(&self, moment: Duration, now: Instant) -> Option<u32> {
        let mut state = self.state.lock();
        let Phase::Running(since, _) = state.phase else { return None };
        let most = state.request.as_ref().and_then(|request| request.max_tokens);
        if state.moving || most.is_some_and(|most| self.ends_within(moment, most, now.saturating_duration_since(since))) {
            return None;
        }
        state.moving = true;
        Some(state.writer.epoch())
    }

    /// The other worker is ready, or there is none.
    pub(crate) fn end_move(&self) {
        self.state.lock().moving = false;
    }

    /// Whether the tokens that are left, at the pace of those that were made since the leg began, come within this time.
    fn ends_within(&self, moment: Duration, most: u32, ran: Duration) -> bool {
        let made: u32 = self
            .progress
            .tokens
            .lock()
            .choices
            .iter()
            .map(|ids| u32::try_from(ids.len()).unwrap_or(u32::MAX))
            .sum();
        let left = u64::from(most) * u64::from(self.seats) - u64::from(made).min(u64::from(most) * u64::from(self.seats));
        made > 0 && ran.as_secs_f64() / f64::from(made) * f64::from(u32::try_from(left).unwrap_or(u32::MAX)) <= moment.as_secs_f64()
    }

    /// Leaves the leg of this epoch, whose worker is not at fault, in the next epoch: the call on it is returned. `None` if it was not
    /// the current one, or if the answer has ended.
    pub(crate) fn leave_leg(&self, epoch: u32, next: u32) -> Option<Call> {
        let mut state = self.state.lock();
        if state.writer.epoch() != epoch || !matches!(state.phase, Phase::Running(..)) {
            return None;
        }
        let writer = self.journal.claim(next).ok()?;
        state.writer = writer;
        self.progress.tokens.lock().epoch = next;
        let Phase::Running(_, call) = std::mem::replace(&mut state.phase, Phase::Waiting(Instant::now())) else {
            return None;
        };
        state.avoid = call.worker().map(|worker| worker.name());
        Some(call)
    }
}

/// Takes a terminal entry off whose fault is the worker's, not the answer's: another worker may go on.
fn takes_over(entries: &mut Vec<Entry>) -> Option<Failure> {
    let Some(Event::Failed(failure)) = &entries.last()?.event else {
        return None;
    };
    if !matches!(
        failure.reason(),
        Reason::Upstream | Reason::WorkerLost | Reason::Draining | Reason::Unavailable | Reason::Moved
    ) {
        return None;
    }
    match entries.pop()?.event {
        Some(Event::Failed(failure)) => Some(*failure),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tracing::Span;

    use super::*;
    use crate::answer::Origin;

    fn answer() -> Answer {
        let origin = Origin {
            id: "ans".into(),
            model: "m".into(),
            limit: Duration::from_mins(1),
            detach_grace: Duration::from_secs(1),
            created_ms: 0,
            epoch: 1,
            span: Span::none(),
        };
        let request = ChatRequest {
            n: 2,
            ..ChatRequest::default()
        };
        Answer::new(origin, request).unwrap()
    }

    fn tokens(ids: &[(u32, u32)]) -> Vec<Entry> {
        let entry = |&(choice, id): &(u32, u32)| Entry {
            choice,
            ..Entry::text(format!("{id} "), id)
        };
        ids.iter().map(entry).collect()
    }

    #[tokio::test]
    async fn ids_are_counted_once_however_often_they_come_and_stay_out_of_the_journal() {
        let (answer, now) = (answer(), Instant::now());
        let writer = answer.writer();
        assert!(matches!(answer.feed(&writer, 0, tokens(&[(0, 1), (1, 2), (0, 3)]), now), Fed::More));
        assert!(matches!(answer.feed(&writer, 1, tokens(&[(1, 2), (0, 3), (1, 4)]), now), Fed::More));
        let points = answer.resume_points();
        assert_eq!(
            (points[0].token_ids.as_slice(), points[0].text.as_str()),
            ([1, 3].as_slice(), "1 3 ")
        );
        assert_eq!(
            (points[1].token_ids.as_slice(), points[1].text.as_str()),
            ([2, 4].as_slice(), "2 4 ")
        );
        answer
            .journal
            .with_entries(|entries| assert!(entries.len() == 4 && entries.iter().all(|entry| entry.token_ids.is_empty())));
    }

    #[tokio::test]
    async fn what_an_old_leg_says_is_not_taken() {
        let (answer, now) = (answer(), Instant::now());
        let old = answer.writer();
        assert!(matches!(answer.feed(&old, 0, tokens(&[(0, 1)]), now), Fed::More));
        answer.claim(2).unwrap();
        assert!(matches!(answer.feed(&old, 1, tokens(&[(0, 9)]), now), Fed::Stale));
        assert!(matches!(answer.feed(&answer.writer(), 1, tokens(&[(0, 2)]), now), Fed::More));
        assert_eq!(answer.resume_points()[0].token_ids, [1, 2]);
    }

    #[tokio::test]
    async fn a_gap_breaks_the_leg_and_takes_nothing() {
        let (answer, now) = (answer(), Instant::now());
        assert!(matches!(answer.feed(&answer.writer(), 3, tokens(&[(0, 1)]), now), Fed::Broken(_)));
        assert!(answer.journal.is_empty() && answer.resume_points()[0].token_ids.is_empty());
    }

    #[tokio::test]
    async fn a_failure_of_the_worker_is_not_the_end_but_one_of_the_answer_is() {
        let (answer, now) = (answer(), Instant::now());
        let mut entries = tokens(&[(0, 1)]);
        entries.push(Entry::failed(Failure::new(Reason::Upstream, "gone")));
        assert!(matches!(answer.feed(&answer.writer(), 0, entries, now), Fed::Broken(failure) if failure.reason() == Reason::Upstream));
        assert_eq!((answer.journal.len(), answer.journal.is_closed()), (1, false));
        let end = vec![Entry::failed(Failure::new(Reason::ContextLengthExceeded, "full"))];
        assert!(matches!(answer.feed(&answer.writer(), 1, end, now), Fed::Ended));
    }
}
