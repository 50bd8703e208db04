//! The journal itself and its writer. Readers are in [`crate::reader`].

use std::{iter, sync::Arc, task::Waker};

use parking_lot::Mutex;

use crate::entries::Entries;

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
    pub bytes: usize,
}

impl Default for Limits {
    /// A context of 128 Ki tokens: entries of about 150 bytes.
    fn default() -> Self {
        Self {
            entries: 128 * 1024,
            bytes: 32 * 1024 * 1024,
        }
    }
}

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

/// The entries of one answer. Cheap to clone: clones share them.
#[derive(Debug)]
pub struct Journal<E> {
    state: Arc<Mutex<State<E>>>,
}

#[derive(Debug)]
pub(crate) struct State<E> {
    pub(crate) entries: Entries<E>,
    pub(crate) closed: bool,
    epoch: u32,
    bytes: usize,
    limits: Limits,
    /// One place for each reader; a waiting one has its waker there. Most answers have one reader, whose place is here.
    first: Place,
    others: Vec<Place>,
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
            others: Vec::new(),
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
        Ok(Writer {
            journal: self.clone(),
            epoch,
        })
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
        self.state.lock().bytes
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
    fn admit(&mut self, others: u32, entry: &E) -> Result<(), Error>
    where
        E: Entry,
    {
        if self.closed {
            return Err(Error::Closed);
        }
        let terminal = entry.is_terminal();
        let bytes = self.bytes + entry.weight();
        if !terminal && (self.len() + others >= self.limits.entries || bytes > self.limits.bytes) {
            return Err(Error::Full);
        }
        self.bytes = bytes;
        self.closed = terminal;
        Ok(())
    }

    fn places(&mut self) -> impl Iterator<Item = &mut Place> {
        iter::once(&mut self.first).chain(&mut self.others)
    }

    fn place(&mut self, number: usize) -> &mut Place {
        match number.checked_sub(1) {
            None => &mut self.first,
            Some(other) => &mut self.others[other],
        }
    }

    /// Takes a place for a reader; its number is returned.
    pub(crate) fn enter(&mut self) -> usize {
        let free = self.places().position(|place| matches!(place, Place::Free));
        let number = free.unwrap_or_else(|| {
            self.others.push(Place::Free);
            self.others.len()
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
    fn waiting(&mut self) -> Woken {
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
struct Woken {
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

    fn wake(self) {
        self.first.into_iter().chain(self.rest).for_each(Waker::wake);
    }
}

/// The right to append to a journal, until a later epoch's writer takes it away.
#[derive(Debug)]
pub struct Writer<E> {
    journal: Journal<E>,
    epoch: u32,
}

impl<E: Entry> Writer<E> {
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
