//! The journal itself. Who writes to it is in [`crate::writer`], who reads in [`crate::reader`].

use std::{iter, sync::Arc, task::Waker};

use parking_lot::Mutex;

use crate::{Error, Writer, entries::Entries};

/// What a journal must know of its entries.
pub trait Entry: Clone {
    /// Whether the journal ends with this entry.
    fn is_terminal(&self) -> bool;
    /// Bytes that it takes in memory, nearly.
    fn weight(&self) -> usize;
}

/// How large one journal may grow. Its terminal entry always has room.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The most entries.
    pub entries: u32,
    /// The most bytes, by [`Entry::weight`].
    pub bytes: u32,
}

impl Default for Limits {
    /// A context of 128 Ki tokens: entries of 120 bytes, and a few that are larger.
    fn default() -> Self {
        Self {
            entries: 128 * 1024,
            bytes: 32 * 1024 * 1024,
        }
    }
}

/// The entries of one answer. Cheap to clone: clones share them.
#[derive(Debug)]
pub struct Journal<E> {
    state: Arc<Mutex<State<E>>>,
}

#[derive(Debug)]
pub(crate) struct State<E> {
    pub(crate) entries: Entries<E>,
    pub(crate) closed: bool,
    pub(crate) epoch: u32,
    bytes: u32,
    limits: Limits,
    /// One place for each reader; a waiting one has its waker there. Most answers have one reader, whose place is here.
    first: Place,
    others: Option<Box<Others>>,
}

/// The places of all readers but the first.
#[derive(Debug, Default)]
struct Others {
    places: Vec<Place>,
}

#[derive(Debug)]
enum Place {
    Free,
    Reading,
    Waiting(Waker),
}

impl<E> Clone for Journal<E> {
    fn clone(&self) -> Self {
        Self {
            state: Arc::clone(&self.state),
        }
    }
}

impl<E: Entry> Journal<E> {
    /// An empty journal. Nobody can write to it before [`Journal::claim`].
    pub fn new(limits: Limits) -> Self {
        let state = State {
            entries: Entries::default(),
            closed: false,
            epoch: 0,
            bytes: 0,
            limits,
            first: Place::Free,
            others: None,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// Takes over writing, in this epoch.
    ///
    /// # Errors
    /// [`Error::Fenced`] unless `epoch` is higher than every one before; [`Error::Closed`] if nothing is left to write.
    pub fn claim(&self, epoch: u32) -> Result<Writer<E>, Error> {
        let mut state = self.state.lock();
        if state.closed {
            return Err(Error::Closed);
        }
        if epoch <= state.epoch {
            return Err(Error::Fenced(state.epoch));
        }
        state.epoch = epoch;
        Ok(Writer::new(self.clone(), epoch))
    }

    /// How many entries there are: the position that comes next.
    pub fn len(&self) -> u32 {
        self.state.lock().len()
    }

    /// Whether there are no entries yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether the terminal entry is there.
    pub fn is_closed(&self) -> bool {
        self.state.lock().closed
    }

    /// Bytes that the entries take, nearly.
    pub fn bytes(&self) -> usize {
        self.state.lock().bytes as usize
    }

    /// How many readers there are.
    pub fn readers(&self) -> usize {
        let mut state = self.state.lock();
        state.places().filter(|place| !matches!(place, Place::Free)).count()
    }

    /// Looks at the entries, all at once. Writers and readers wait meanwhile, so be brief.
    pub fn with_entries<R>(&self, look: impl FnOnce(&Entries<E>) -> R) -> R {
        look(&self.state.lock().entries)
    }

    pub(crate) fn lock(&self) -> parking_lot::MutexGuard<'_, State<E>> {
        self.state.lock()
    }
}

impl<E> State<E> {
    pub(crate) fn len(&self) -> u32 {
        // `Limits::entries` is a `u32`, and only the terminal entry may stand past it.
        u32::try_from(self.entries.len()).unwrap_or(u32::MAX)
    }

    /// Counts an entry in that will stand after the last one and so many others that were counted in.
    pub(crate) fn admit(&mut self, others: u32, entry: &E) -> Result<(), Error>
    where
        E: Entry,
    {
        if self.closed {
            return Err(Error::Closed);
        }
        let terminal = entry.is_terminal();
        let bytes = self.bytes.saturating_add(u32::try_from(entry.weight()).unwrap_or(u32::MAX));
        if !terminal && (self.len() + others >= self.limits.entries || bytes > self.limits.bytes) {
            return Err(Error::Full);
        }
        self.bytes = bytes;
        self.closed = terminal;
        Ok(())
    }

    /// Gives back what a closed journal will not need: it may be kept for long.
    pub(crate) fn seal(&mut self) {
        if self.closed {
            self.entries.seal();
        }
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        let others = self.others.as_mut().map(|others| others.places.iter_mut());
        iter::once(&mut self.first).chain(others.into_iter().flatten())
    }

    fn place(&mut self, number: usize) -> &mut Place {
        match number.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut self.others.get_or_insert_default().places[other],
        }
    }

    /// Takes a place for a reader; its number is returned.
    pub(crate) fn enter(&mut self) -> usize {
        let free = self.places().position(|place| matches!(place, Place::Free));
        let number = free.unwrap_or_else(|| {
            let others = &mut self.others.get_or_insert_default().places;
            others.push(Place::Free);
            others.len()
        });
        *self.place(number) = Place::Reading;
        number
    }

    pub(crate) fn leave(&mut self, number: usize) {
        *self.place(number) = Place::Free;
    }

    pub(crate) fn wait(&mut self, number: usize, waker: &Waker) {
        match self.place(number) {
            Place::Waiting(known) => known.clone_from(waker),
            other => *other = Place::Waiting(waker.clone()),
        }
    }

    /// Takes the wakers of all who wait, to be woken once the lock is released.
    pub(crate) fn waiting(&mut self) -> Woken {
        let mut woken = Woken::default();
        for place in self.places() {
            if matches!(place, Place::Waiting(_))
                && let Place::Waiting(waker) = std::mem::replace(place, Place::Reading)
            {
                woken.add(waker);
            }
        }
        woken
    }
}

/// Wakers on their way out of the lock. Most journals have one reader, and that costs no allocation.
#[derive(Default)]
pub(crate) struct Woken {
    first: Option<Waker>,
    rest: Vec<Waker>,
}

impl Woken {
    fn add(&mut self, waker: Waker) {
        if self.first.is_none() {
            self.first = Some(waker);
        } else {
            self.rest.push(waker);
        }
    }

    pub(crate) fn wake(self) {
        self.first.into_iter().chain(self.rest).for_each(Waker::wake);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each token touches: two lines of memory, where the allocator puts blocks of this size on their boundaries.
    #[test]
    fn a_journal_without_its_entries_is_two_lines_of_memory() {
        let counts = 2 * size_of::<usize>();
        assert_eq!(counts + size_of::<Mutex<State<proto::v1::Entry>>>(), 128);
    }
}
