//! The entries of a journal, in segments: a journal that grows copies nothing and leaves at most a part of its last segment unused,
//! where one vector would move all that it has, and touch twice the memory, each time that it doubles.

use std::{
    cmp::Ordering,
    iter::{Chain, Flatten},
    slice,
};

/// Entries of a segment: a few kilobytes, and more than a reader that follows finds ready at once.
pub(crate) const SEGMENT: usize = 64;

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Entries<E> {
    /// Segments that are full.
    full: Vec<Box<[E]>>,
    /// The last segment: here and not among the others, as who appends and who follows look only at it. It grows as vectors do while
    /// it is the only one: most journals are short.
    tail: Vec<E>,
}

impl<E> Default for Entries<E> {
    fn default() -> Self {
        Self {
            full: Vec::new(),
            tail: Vec::new(),
        }
    }
}

impl<E> Entries<E> {
    pub(crate) fn push(&mut self, entry: E) {
        self.make_room(1);
        self.tail.push(entry);
    }

    pub(crate) fn extend(&mut self, mut entries: Vec<E>) {
        while !entries.is_empty() {
            let room = self.make_room(entries.len());
            let rest = entries.split_off(room);
            self.tail.append(&mut entries);
            entries = rest;
        }
    }

    /// Nothing will be added: gives back the room for it.
    pub(crate) fn seal(&mut self) {
        self.tail.shrink_to_fit();
    }

    /// Makes room in the last segment for so many, or for those of them that it can hold, and says for how many: one at least.
    fn make_room(&mut self, wanted: usize) -> usize {
        if self.tail.len() == SEGMENT {
            let full = std::mem::replace(&mut self.tail, Vec::with_capacity(SEGMENT));
            self.full.push(full.into_boxed_slice());
        }
        let len = self.tail.len();
        let room = wanted.min(SEGMENT - len);
        if self.tail.capacity() < len + room {
            let grown = (2 * len).clamp(len + room, SEGMENT);
            self.tail.reserve_exact(grown - len);
        }
        room
    }

    /// The entries from `first` on that lie together in memory. Empty only if there are none.
    pub(crate) fn run(&self, first: usize) -> &[E] {
        let segment = match (first / SEGMENT).cmp(&self.full.len()) {
            Ordering::Less => &self.full[first / SEGMENT],
            Ordering::Equal => &self.tail[..],
            Ordering::Greater => &[],
        };
        segment.get(first % SEGMENT..).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.full.len() * SEGMENT + self.tail.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.tail.is_empty()
    }

    /// The entry at position 0.
    pub fn first(&self) -> Option<&E> {
        self.full.first().map_or(&self.tail[..], |first| first).first()
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&E> {
        self.tail.last()
    }

    /// All, from position 0 on.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &E> + Clone {
        self.into_iter()
    }
}

impl<'entries, E> IntoIterator for &'entries Entries<E> {
    type Item = &'entries E;
    type IntoIter = Chain<Flatten<slice::Iter<'entries, Box<[E]>>>, slice::Iter<'entries, E>>;

    fn into_iter(self) -> Self::IntoIter {
        self.full.iter().flatten().chain(&self.tail)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_its_segment_and_the_next_one_goes_on() {
        let mut entries = Entries::default();
        assert_eq!((entries.run(0), entries.first(), entries.last()), (&[][..], None, None));
        (0..3).for_each(|number| entries.push(number));
        entries.extend((3..2 * SEGMENT).collect());
        entries.extend((2 * SEGMENT..2 * SEGMENT + 3).collect());
        let (mut next, mut runs) = (SEGMENT - 1, Vec::new());
        while let run @ [_, ..] = entries.run(next) {
            assert!(run.iter().copied().eq(next..next + run.len()));
            next += run.len();
            runs.push(run.len());
        }
        assert_eq!(runs, [1, SEGMENT, 3]);
        assert!(entries.iter().copied().eq(0..entries.len()));
        assert_eq!((entries.first(), entries.last()), (Some(&0), Some(&(2 * SEGMENT + 2))));
        assert!(entries.tail.capacity() > 3);
        entries.seal();
        assert_eq!((entries.tail.capacity(), entries.len()), (3, 2 * SEGMENT + 3));
    }
}
