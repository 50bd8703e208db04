//! One reader of one journal.

use std::{
    future::poll_fn,
    task::{Context, Poll},
};

use crate::{Entry, Journal};

/// A position in a journal, and the rule "deliver the entry at `next`, then `next += 1`".
#[derive(Debug)]
pub struct Reader<E: Entry> {
    journal: Journal<E>,
    next: u32,
    place: usize,
}

impl<E: Entry> Journal<E> {
    /// A reader whose first entry is the one at `next`, which need not be there yet.
    pub fn reader(&self, next: u32) -> Reader<E> {
        let place = self.lock().enter();
        Reader {
            journal: self.clone(),
            next,
            place,
        }
    }
}

impl<E: Entry> Reader<E> {
    /// The position of the entry that comes next.
    pub fn next(&self) -> u32 {
        self.next
    }

    /// The journal that this reads.
    pub fn journal(&self) -> &Journal<E> {
        &self.journal
    }

    /// Hands entries that are ready to `take` in one batch, with the position of the first: `most` at most, and those that lie
    /// together in memory, so ask again while there are more. `None` once the terminal entry was taken, or if `next` lies past
    /// it. The task is woken when more can be taken, also after a batch that left nothing behind, so that nobody has to ask twice.
    ///
    /// `take` runs while the journal is locked: it copies, and does nothing else.
    pub fn poll_read<R>(&mut self, context: &Context<'_>, most: usize, take: impl FnOnce(u32, &[E]) -> R) -> Poll<Option<R>> {
        let mut state = self.journal.lock();
        let first = self.next;
        let ready = state.entries.run(first as usize);
        let ready = &ready[..ready.len().min(most)];
        let taken = (!ready.is_empty()).then(|| take(first, ready));
        self.next += u32::try_from(ready.len()).unwrap_or(u32::MAX);
        if self.next >= state.len() && !state.closed {
            state.wait(self.place, context.waker());
        }
        match taken {
            Some(taken) => Poll::Ready(Some(taken)),
            None if state.closed => Poll::Ready(None),
            None => Poll::Pending,
        }
    }

    /// Whether everything was taken, the terminal entry too.
    pub fn is_done(&self) -> bool {
        let state = self.journal.lock();
        state.closed && self.next >= state.len()
    }

    /// Whether an entry is ready now.
    pub fn is_ready(&self) -> bool {
        self.next < self.journal.len()
    }

    /// Waits for entries and copies those that are ready, `most` at most. See [`Reader::poll_read`].
    pub async fn read(&mut self, most: usize) -> Option<Vec<E>> {
        poll_fn(|context| self.poll_read(context, most, |_, entries| entries.to_vec())).await
    }
}

impl<E: Entry> Drop for Reader<E> {
    fn drop(&mut self) {
        self.journal.lock().leave(self.place);
    }
}
