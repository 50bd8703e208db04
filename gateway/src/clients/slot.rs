//! Where an exchange puts what arrives for one answer, and where the answer's own reader takes it out: a small bounded buffer.
//!
//! The exchange never waits for a slot. One that is full is closed as [`End::Behind`], the router is told to send no more of that
//! answer, and its reader attaches again at its position once it has taken what is there ([`crate::turn`]).

use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use proto::v1::{ChatResponse, Entry, Failure, Head, Reason, entry::Event};

use super::Bearer;

/// The most entries that wait for one client: with the bound in bytes, more than one message of a router brings.
const ENTRIES: usize = 1024;
/// The most bytes that wait for one client, by [`Entry::weight`]; one message may go over it.
const BYTES: usize = 64 * 1024;

/// The buffer between an exchange and one reader.
#[derive(Debug)]
pub(crate) struct Slot {
    state: Mutex<State>,
    bearer: Bearer,
}

#[derive(Debug)]
struct State {
    /// The position of the entry that is taken next from the exchange.
    next: u32,
    begun: bool,
    head: Option<Box<Head>>,
    entries: Vec<Entry>,
    bytes: usize,
    end: Option<End>,
    waker: Option<Waker>,
}

/// Why nothing more comes into a slot.
#[derive(Debug)]
pub(crate) enum End {
    /// The terminal entry came.
    Done,
    /// The reader is too slow, or entries were missing: it has to attach again at its position.
    Behind,
    /// The exchange broke, or another router carries the answer now.
    Broken,
    /// The router refused the command.
    Refused(Box<Failure>),
}

/// What became of a message that was put into a slot.
#[derive(Debug)]
pub(crate) struct Put {
    /// Who waits for it.
    pub(crate) waker: Option<Waker>,
    /// The slot takes no more.
    pub(crate) closed: bool,
    /// And the router must be told so.
    pub(crate) behind: bool,
}

/// What a reader finds in its slot.
#[derive(Debug)]
pub(crate) enum Taken {
    /// Entries are in the batch now; this is the position of the first.
    Entries(u32),
    /// Nothing more will come.
    End(End),
}

impl Slot {
    /// An empty slot of `bearer`, whose first entry is the one at `next`.
    pub(crate) fn new(next: u32, bearer: Bearer) -> Self {
        let state = State {
            next,
            begun: false,
            head: None,
            entries: Vec::new(),
            bytes: 0,
            end: None,
            waker: None,
        };
        Self {
            state: Mutex::new(state),
            bearer,
        }
    }

    /// Who reads.
    pub(crate) fn bearer(&self) -> &Bearer {
        &self.bearer
    }

    /// Takes a message of the exchange. Entries that were had before are dropped; after a gap the slot is closed.
    pub(crate) fn put(&self, mut message: ChatResponse) -> Put {
        let mut state = self.state.lock();
        if let Some(failure) = message.refused.take() {
            state.end = Some(End::Refused(failure));
        } else {
            if let Some(head) = message.head.take() {
                state.begun = true;
                state.head.get_or_insert(head);
            }
            state.append(message.position.unwrap_or(0), message.entries);
            if state.end.is_none() && message.done == Some(true) {
                state.end = Some(End::Done);
            }
        }
        Put {
            waker: state.waker.take(),
            closed: state.end.is_some(),
            behind: matches!(state.end, Some(End::Behind)),
        }
    }

    /// Says that nothing more will come, unless that was said before. Returns who has to be woken.
    pub(crate) fn close(&self, end: End) -> Option<Waker> {
        let mut state = self.state.lock();
        state.end.get_or_insert(end);
        state.waker.take()
    }

    /// Whether the answer was admitted.
    pub(crate) fn has_begun(&self) -> bool {
        self.state.lock().begun
    }

    /// Whether it was closed because its reader is too slow.
    pub(crate) fn is_behind(&self) -> bool {
        matches!(self.state.lock().end, Some(End::Behind))
    }

    /// Waits for the head, or for the end if there will be none.
    pub(crate) fn poll_head(&self, context: &Context<'_>) -> Poll<Result<Box<Head>, End>> {
        let mut state = self.state.lock();
        let nothing_left = matches!(state.end, Some(End::Done)) && state.entries.is_empty();
        if !nothing_left && let Some(head) = state.head.take() {
            return Poll::Ready(Ok(head));
        }
        if let Some(end) = state.end.take() {
            return Poll::Ready(Err(end));
        }
        state.wait(context)
    }

    /// Takes all entries that are there by exchanging them for the empty `batch`, so that both keep their room.
    pub(crate) fn poll_take(&self, context: &Context<'_>, batch: &mut Vec<Entry>) -> Poll<Taken> {
        let mut state = self.state.lock();
        if !state.entries.is_empty() {
            std::mem::swap(&mut state.entries, batch);
            state.bytes = 0;
            let count = u32::try_from(batch.len()).unwrap_or(u32::MAX);
            return Poll::Ready(Taken::Entries(state.next - count));
        }
        if let Some(end) = state.end.take() {
            return Poll::Ready(Taken::End(end));
        }
        state.wait(context)
    }
}

impl State {
    /// "Deliver the entry at `next`, then `next += 1`."
    fn append(&mut self, first: u32, entries: Vec<Entry>) {
        if self.end.is_some() || entries.is_empty() {
            return;
        }
        let Some(known) = self.next.checked_sub(first) else {
            self.end = Some(End::Behind);
            return;
        };
        if self.entries.capacity() == 0 {
            self.entries.reserve_exact(entries.len()); // most streams wait with one entry or none: no room for more at first
        } else {
            self.entries.reserve(entries.len());
        }
        for entry in entries.into_iter().skip(known as usize) {
            if matches!(&entry.event, Some(Event::Failed(failure)) if failure.reason() == Reason::Moved) {
                self.end = Some(End::Broken); // this router's copy ends here, and not the answer
                return;
            }
            self.bytes += entry.weight();
            self.next += 1;
            let terminal = entry.is_terminal();
            self.entries.push(entry);
            if terminal {
                self.end = Some(End::Done);
                return;
            }
        }
        if self.entries.len() > ENTRIES || self.bytes > BYTES {
            self.end = Some(End::Behind);
        }
    }

    fn wait<T>(&mut self, context: &Context<'_>) -> Poll<T> {
        match &mut self.waker {
            Some(waker) => waker.clone_from(context.waker()),
            none => *none = Some(context.waker().clone()),
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::Usage;

    use super::*;

    fn message(position: u32, entries: Vec<Entry>) -> ChatResponse {
        ChatResponse {
            position: Some(position),
            entries,
            ..ChatResponse::default()
        }
    }

    fn texts(slot: &Slot) -> Option<(u32, Vec<String>)> {
        let mut batch = Vec::new();
        match slot.poll_take(&Context::from_waker(Waker::noop()), &mut batch) {
            Poll::Ready(Taken::Entries(first)) => Some((first, batch.into_iter().map(|entry| entry.token.into()).collect())),
            _ => None,
        }
    }

    #[test]
    fn an_entry_that_came_twice_is_delivered_once() {
        let slot = Slot::new(0, Bearer::default());
        let entries: Vec<Entry> = ["a", "b", "c"].map(|text| Entry::text(text, 1)).into();
        slot.put(message(0, entries[..2].to_vec()));
        slot.put(message(1, entries[1..].to_vec()));
        assert_eq!(texts(&slot), Some((0, vec!["a".into(), "b".into(), "c".into()])));
    }

    #[test]
    fn after_a_gap_the_reader_must_attach_again() {
        let slot = Slot::new(3, Bearer::default());
        let put = slot.put(message(4, vec![Entry::text("e", 1)]));
        assert!(put.closed && put.behind);
        assert_eq!(texts(&slot), None);
    }

    #[test]
    fn a_slot_that_nobody_empties_is_closed_at_its_bound() {
        let slot = Slot::new(0, Bearer::default());
        let closed_at = (0..10_000).find(|position| slot.put(message(*position, vec![Entry::text("token", 1)])).behind);
        assert!(closed_at.is_some_and(|position| position as usize <= ENTRIES));
        let before = texts(&slot).map(|(_, texts)| texts.len());
        assert_eq!(before, closed_at.map(|position| position as usize + 1), "what came before is kept");
    }

    #[test]
    fn nothing_comes_after_the_terminal_entry() {
        let slot = Slot::new(0, Bearer::default());
        let put = slot.put(message(
            0,
            vec![Entry::finished(Vec::new(), Usage::default()), Entry::text("late", 1)],
        ));
        assert!(put.closed && !put.behind);
        assert_eq!(texts(&slot).map(|(_, texts)| texts.len()), Some(1));
    }
}
