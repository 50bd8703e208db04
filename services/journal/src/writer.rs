//! The writer of a journal: one at a time, as a later epoch's shuts out those before.

use crate::{Entry, Journal, journal::State};

/// Why an entry was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The journal has its terminal entry.
    #[error("the journal is closed")]
    Closed,
    /// A writer of a later epoch has taken over.
    #[error("epoch {0} has taken over the journal")]
    Fenced(u32),
    /// The journal is as large as it may be.
    #[error("the journal is full")]
    Full,
    /// Entries between the end of the journal and the first one offered are missing.
    #[error("a gap: the journal ends at {expected}, and the next entry came for {found}")]
    Gap {
        /// The position that comes next.
        expected: u32,
        /// The position that was offered.
        found: u32,
    },
}

/// The right to append to a journal, until a later epoch's writer takes it away. Clones share it.
#[derive(Debug)]
pub struct Writer<E> {
    journal: Journal<E>,
    epoch: u32,
}

impl<E> Clone for Writer<E> {
    fn clone(&self) -> Self {
        Self {
            journal: self.journal.clone(),
            epoch: self.epoch,
        }
    }
}

impl<E: Entry> Writer<E> {
    pub(crate) fn new(journal: Journal<E>, epoch: u32) -> Self {
        Self { journal, epoch }
    }

    /// Appends one entry and wakes who waits for it. A terminal one closes the journal. Says at which position it stands.
    ///
    /// # Errors
    /// See [`Error`]; the journal is unchanged then.
    pub fn append(&self, entry: E) -> Result<u32, Error> {
        let (position, woken) = {
            let mut state = self.open()?;
            let position = state.len();
            state.admit(0, &entry)?;
            state.entries.push(entry);
            state.seal();
            (position, state.waiting())
        };
        woken.wake();
        Ok(position)
    }

    /// Appends entries that came from another copy of the journal and begin at `position`. Those that are here already are
    /// dropped: this is the rule that makes a repeated or overlapping delivery harmless. Says how many were new.
    ///
    /// # Errors
    /// [`Error::Gap`] if `position` is past the end, and the others as [`Writer::append`]. Entries before the one at fault stay.
    pub fn append_from(&self, position: u32, mut entries: Vec<E>) -> Result<u32, Error> {
        let (outcome, woken) = {
            let mut state = self.open()?;
            let expected = state.len();
            if position > expected {
                return Err(Error::Gap { expected, found: position });
            }
            let known = (expected - position) as usize;
            entries.drain(..known.min(entries.len()));
            let mut new = 0;
            let refused = entries.iter().find_map(|entry| {
                let refused = state.admit(new, entry).err();
                new += u32::from(refused.is_none());
                refused
            });
            entries.truncate(new as usize);
            state.entries.extend(entries);
            state.seal();
            (refused.map_or(Ok(new), Err), state.waiting())
        };
        woken.wake();
        outcome
    }

    /// The journal that this writes.
    pub fn journal(&self) -> &Journal<E> {
        &self.journal
    }

    /// The epoch in which this writes.
    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    fn open(&self) -> Result<parking_lot::MutexGuard<'_, State<E>>, Error> {
        let state = self.journal.lock();
        if state.epoch != self.epoch {
            return Err(Error::Fenced(state.epoch));
        }
        if state.closed { Err(Error::Closed) } else { Ok(state) }
    }
}
