//! Finished turns on their way to the store. They wait here while it is away, so an answer never waits for it, and they are sent
//! again until the store has said yes: it takes each once, by the answer's name.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prost::Message as _;
use proto::v1::{Failure, FinishedTurn, Reason};
use tokio::{
    sync::Notify,
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::Store;

/// Turns in one call; the store's own bound.
const BATCH: usize = 512;
/// Bytes in one call: a quarter of what a message may have.
const BATCH_BYTES: usize = proto::MAX_ENCODED_MESSAGE / 4;
/// Turns are gathered for so long: many end in the same second, and one transaction serves them all. Not for longer, as it has a core for
/// itself meanwhile, and a token that needs that core waits.
const GATHER: Duration = Duration::from_millis(20);
/// How long a turn waits for the one before it in its conversation.
const SETTLE: Duration = Duration::from_secs(1);
/// The first pause after a failure, doubled each time.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// And the longest: a store that is back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The outbox.
#[derive(Debug)]
pub(crate) struct Outbox {
    waiting: Mutex<Waiting>,
    added: Notify,
    /// Something was added that is not to wait for others.
    hurry: Notify,
    sent: Notify,
}

impl Outbox {
    /// An empty one, for at most `bound` turns.
    pub(crate) fn new(bound: usize) -> Self {
        Self {
            waiting: Mutex::new(Waiting::new(bound)),
            added: Notify::new(),
            hurry: Notify::new(),
            sent: Notify::new(),
        }
    }

    /// Waits until no turn of this conversation waits here any more, or the store is away for too long: the next turn's history
    /// must have what was said just before.
    pub(crate) async fn settled(&self, conversation_id: &str) {
        let wait = async {
            loop {
                let mut sent = std::pin::pin!(self.sent.notified());
                sent.as_mut().enable();
                if !self.waiting.lock().holds(conversation_id) {
                    return;
                }
                sent.await;
            }
        };
        let _ = timeout(SETTLE, wait).await;
    }

    /// Adds a turn. Never waits: past the bound, a turn that only logs a request goes first.
    pub(crate) fn push(&self, turn: FinishedTurn) {
        let (dropped, hurries) = {
            let mut waiting = self.waiting.lock();
            (waiting.push(turn), waiting.hurries())
        };
        if dropped.is_some_and(u64::is_power_of_two) {
            tracing::warn!(dropped, "the store has been away for so long that finished turns were dropped");
        }
        self.added.notify_one();
        if hurries {
            self.hurry.notify_one();
        }
    }

    /// Sends turns until the router is over and nothing waits any more.
    pub(crate) async fn deliver(&self, store: &Store, over: &CancellationToken) {
        let mut failures = 0;
        loop {
            tokio::select! {
                () = self.gather() => {}
                () = over.cancelled() => {}
            }
            let batch = self.waiting.lock().batch(BATCH, BATCH_BYTES);
            if batch.is_empty() {
                if over.is_cancelled() {
                    return;
                }
            } else if let Err(failure) = store.finish_turns(batch.clone()).await {
                self.failed(batch, &failure);
                sleep(crate::worker::growing(FIRST_PAUSE, LONGEST_PAUSE, failures)).await;
                failures += 1;
            } else {
                failures = 0;
                self.waiting.lock().in_flight.clear();
                self.sent.notify_waiters();
            }
        }
    }

    /// Waits until there is something to send. A conversation's turn goes at once, as the next one waits for it; what only logs a request
    /// gathers for a while.
    async fn gather(&self) {
        self.until(&self.added, |waiting| waiting.len() > 0).await;
        let _ = timeout(GATHER, self.until(&self.hurry, Waiting::hurries)).await;
    }

    /// Waits until `is_so`, which may become so whenever `told` is.
    async fn until(&self, told: &Notify, is_so: impl Fn(&Waiting) -> bool) {
        loop {
            let told = told.notified();
            if is_so(&self.waiting.lock()) {
                return;
            }
            told.await;
        }
    }

    fn failed(&self, mut batch: Vec<FinishedTurn>, failure: &Failure) {
        if failure.reason() != Reason::StoreUnavailable && batch.len() == 1 {
            // The store has looked at this very turn and will never take it.
            tracing::error!(stream_id = %batch[0].stream_id, %failure, "the store does not take a turn; it is dropped");
            batch.clear();
        }
        self.waiting.lock().put_back(batch, failure.reason() != Reason::StoreUnavailable);
    }
}

/// Turns that wait. Pure.
#[derive(Debug)]
struct Waiting {
    bound: usize,
    /// Sent one by one, to find the one that the store does not take.
    suspects: VecDeque<FinishedTurn>,
    /// Turns of conversations.
    turns: VecDeque<FinishedTurn>,
    /// Turns that only log a request.
    logs: VecDeque<FinishedTurn>,
    /// The conversations of the turns that are being sent.
    in_flight: Vec<String>,
    dropped: u64,
}

impl Waiting {
    fn new(bound: usize) -> Self {
        Self {
            bound,
            suspects: VecDeque::new(),
            turns: VecDeque::new(),
            logs: VecDeque::new(),
            in_flight: Vec::new(),
            dropped: 0,
        }
    }

    fn len(&self) -> usize {
        self.suspects.len() + self.turns.len() + self.logs.len()
    }

    /// Whether somebody waits for one of them, or there are enough for a call.
    fn hurries(&self) -> bool {
        !self.turns.is_empty() || !self.suspects.is_empty() || self.logs.len() >= BATCH
    }

    /// Says how many were dropped so far, if one was now.
    fn push(&mut self, turn: FinishedTurn) -> Option<u64> {
        let full = self.len() >= self.bound;
        if full {
            let oldest = self
                .logs
                .pop_front()
                .or_else(|| self.turns.pop_front())
                .or_else(|| self.suspects.pop_front());
            self.dropped += u64::from(oldest.is_some());
        }
        if turn.conversation_id.is_empty() {
            self.logs.push_back(turn);
        } else {
            self.turns.push_back(turn);
        }
        full.then_some(self.dropped)
    }

    /// Whether a turn of this conversation has not reached the store yet.
    fn holds(&self, conversation_id: &str) -> bool {
        let mut waiting = self.suspects.iter().chain(&self.turns);
        waiting.any(|turn| turn.conversation_id == conversation_id) || self.in_flight.iter().any(|id| id == conversation_id)
    }

    /// The next ones to send, the conversations' first.
    fn batch(&mut self, most: usize, most_bytes: usize) -> Vec<FinishedTurn> {
        let batch = self.take(most, most_bytes);
        let conversations = batch.iter().map(|turn| &turn.conversation_id).filter(|id| !id.is_empty());
        self.in_flight = conversations.cloned().collect();
        batch
    }

    fn take(&mut self, most: usize, most_bytes: usize) -> Vec<FinishedTurn> {
        if let Some(suspect) = self.suspects.pop_front() {
            return vec![suspect];
        }
        let (mut batch, mut bytes) = (Vec::new(), 0);
        while batch.len() < most {
            let Some(queue) = [&mut self.turns, &mut self.logs].into_iter().find(|queue| !queue.is_empty()) else {
                break;
            };
            let Some(turn) = queue.pop_front() else { break };
            bytes += turn.encoded_len();
            if bytes > most_bytes && !batch.is_empty() {
                queue.push_front(turn);
                break;
            }
            batch.push(turn);
        }
        batch
    }

    /// These could not be sent.
    fn put_back(&mut self, batch: Vec<FinishedTurn>, one_by_one: bool) {
        self.in_flight.clear();
        for turn in batch.into_iter().rev() {
            if one_by_one {
                self.suspects.push_front(turn);
            } else if turn.conversation_id.is_empty() {
                self.logs.push_front(turn);
            } else {
                self.turns.push_front(turn);
            }
        }
    }
}

/// Starts what the store needs: the delivery, and the probe.
pub(crate) fn spawn(outbox: &Arc<Outbox>, store: &Arc<Store>, drain: &chassis::drain::Drain, over: CancellationToken) {
    let probed = Arc::clone(store);
    let until = over.clone();
    drain.spawn(async move {
        tokio::select! {
            () = until.cancelled() => {}
            () = probed.probe() => {}
        }
    });
    let (outbox, store) = (Arc::clone(outbox), Arc::clone(store));
    drain.spawn(async move { outbox.deliver(&store, &over).await });
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn turn(id: u32, conversation: bool) -> FinishedTurn {
        FinishedTurn {
            stream_id: id.to_string(),
            conversation_id: if conversation { "c".to_owned() } else { String::new() },
            ..FinishedTurn::default()
        }
    }

    fn ids(turns: &[FinishedTurn]) -> Vec<&str> {
        turns.iter().map(|turn| turn.stream_id.as_str()).collect()
    }

    /// How long a batch gathers to which `later` is added soon after a log.
    async fn gathers(later: FinishedTurn) -> Duration {
        let (outbox, start) = (Outbox::new(10), tokio::time::Instant::now());
        outbox.push(turn(0, false));
        tokio::join!(outbox.gather(), async {
            sleep(GATHER / 4).await;
            outbox.push(later);
        });
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn logs_gather_until_a_turn_comes_that_its_conversation_waits_for() {
        assert!(gathers(turn(1, false)).await >= GATHER);
        assert!(gathers(turn(1, true)).await < GATHER / 2);
    }

    #[test]
    fn past_the_bound_the_oldest_log_goes_and_the_conversations_stay() {
        let mut waiting = Waiting::new(3);
        assert_eq!(waiting.push(turn(0, true)), None);
        assert_eq!(waiting.push(turn(1, false)), None);
        assert_eq!(waiting.push(turn(2, false)), None);
        assert_eq!(waiting.push(turn(3, true)), Some(1));
        assert_eq!(waiting.push(turn(4, true)), Some(2));
        assert_eq!(ids(&waiting.batch(10, 1000)), ["0", "3", "4"]);
    }

    #[test]
    fn a_batch_that_the_store_refuses_is_sent_one_by_one() {
        let mut waiting = Waiting::new(10);
        for id in 0..3 {
            waiting.push(turn(id, true));
        }
        let batch = waiting.batch(10, 1000);
        waiting.put_back(batch, true);
        assert_eq!(ids(&waiting.batch(10, 1000)), ["0"]);
        assert_eq!(ids(&waiting.batch(10, 1000)), ["1"]);
    }

    #[test]
    fn a_batch_is_bounded_by_bytes_but_never_empty() {
        let mut waiting = Waiting::new(10);
        for id in 0..3 {
            waiting.push(turn(id, true));
        }
        assert_eq!(waiting.batch(10, 1).len(), 1);
        let one = turn(1, true).encoded_len();
        assert_eq!(waiting.batch(10, 2 * one).len(), 2);
    }

    proptest! {
        #[test]
        fn what_is_put_back_is_neither_lost_nor_doubled(kinds in prop::collection::vec(any::<bool>(), 0..50), most in 1..20_usize, fails in prop::collection::vec(any::<bool>(), 0..10)) {
            let mut waiting = Waiting::new(100);
            for (id, &kind) in (0..).zip(&kinds) {
                waiting.push(turn(id, kind));
            }
            let mut sent = Vec::new();
            let mut fails = fails.into_iter();
            loop {
                let batch = waiting.batch(most, 1 << 20);
                if batch.is_empty() {
                    break;
                }
                if fails.next() == Some(true) {
                    waiting.put_back(batch, false);
                } else {
                    sent.extend(batch.into_iter().map(|turn| turn.stream_id.parse::<usize>().unwrap()));
                }
            }
            sent.sort_unstable();
            prop_assert_eq!(sent, (0..kinds.len()).collect::<Vec<_>>());
        }
    }
}
