//! The entries of a journal, in segments: a journal that grows copies nothing and leaves at most a part of its last segment unused,
//! where one vector would move all that it has, and touch twice the memory, each time that it doubles.

/// Entries of a segment: a few kilobytes, and more than a reader that follows finds ready at once.
pub(crate) const SEGMENT: usize = 64;

/// What a journal holds.
#[derive(Debug, PartialEq, Eq)]
pub struct Entries<E> {
    /// All but the last are full. The first one grows as vectors do: most journals are short.
    segments: Vec<Vec<E>>,
    len: usize,
}

impl<E> Default for Entries<E> {
    fn default() -> Self {
        Self {
            segments: Vec::new(),
            len: 0,
        }
    }
}

impl<E> Entries<E> {
    pub(crate) fn push(&mut self, entry: E) {
        if self.len.is_multiple_of(SEGMENT) {
            let room = if self.len == 0 { 0 } else { SEGMENT };
            self.segments.push(Vec::with_capacity(room));
        }
        if let Some(last) = self.segments.last_mut() {
            last.push(entry);
        }
        self.len += 1;
    }

    /// The entries from `first` on that lie together in memory. Empty only if there are none.
    pub(crate) fn run(&self, first: usize) -> &[E] {
        let segment = self.segments.get(first / SEGMENT);
        segment.and_then(|segment| segment.get(first % SEGMENT..)).unwrap_or_default()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The entry at position 0.
    pub fn first(&self) -> Option<&E> {
        self.segments.first()?.first()
    }

    /// The newest entry.
    pub fn last(&self) -> Option<&E> {
        self.segments.last()?.last()
    }

    /// All, from position 0 on.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &E> + Clone {
        self.into_iter()
    }
}

impl<'entries, E> IntoIterator for &'entries Entries<E> {
    type Item = &'entries E;
    type IntoIter = std::iter::Flatten<std::slice::Iter<'entries, Vec<E>>>;

    fn into_iter(self) -> Self::IntoIter {
        self.segments.iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_ends_with_its_segment_and_the_next_one_goes_on() {
        let mut entries = Entries::default();
        assert_eq!((entries.run(0), entries.first(), entries.last()), (&[][..], None, None));
        (0..2 * SEGMENT + 3).for_each(|number| entries.push(number));
        let (mut next, mut runs) = (SEGMENT - 1, Vec::new());
        while let run @ [_, ..] = entries.run(next) {
            assert!(run.iter().copied().eq(next..next + run.len()));
            next += run.len();
            runs.push(run.len());
        }
        assert_eq!(runs, [1, SEGMENT, 3]);
        assert!(entries.iter().copied().eq(0..entries.len()));
        assert_eq!((entries.first(), entries.last()), (Some(&0), Some(&(2 * SEGMENT + 2))));
    }
}
