//! When which key was used last, until the store has heard it. Bounded, and pure: the caller says what time it is.

use std::collections::HashMap;

use proto::v1::KeyUse;

/// Keys whose use is known at once: as many as the store takes in one note.
const MOST: usize = 1_000;

/// The last use of each key, in milliseconds since 1970.
#[derive(Debug, Default)]
pub(super) struct Uses(HashMap<String, i64>);

impl Uses {
    /// A key was used. Of more keys than can be known, some are noted the next time.
    pub(super) fn note(&mut self, id: &str, used_ms: i64) {
        if let Some(last) = self.0.get_mut(id) {
            *last = used_ms.max(*last);
        } else if self.0.len() < MOST {
            self.0.insert(id.to_owned(), used_ms);
        }
    }

    /// All of them, to be told.
    pub(super) fn take(&mut self) -> Vec<KeyUse> {
        let uses = std::mem::take(&mut self.0).into_iter();
        uses.map(|(id, used_ms)| KeyUse { id, used_ms }).collect()
    }

    /// These could not be told: they are told the next time, where there is room beside what came meanwhile.
    pub(super) fn give_back(&mut self, uses: &[KeyUse]) {
        for used in uses {
            self.note(&used.id, used.used_ms);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(uses: &mut Uses) -> Vec<(String, i64)> {
        let mut told: Vec<_> = uses.take().into_iter().map(|used| (used.id, used.used_ms)).collect();
        told.sort();
        told
    }

    #[test]
    fn what_could_not_be_told_is_told_the_next_time_and_the_last_use_counts() {
        let mut uses = Uses::default();
        uses.note("a", 1);
        uses.note("b", 5);
        uses.note("a", 3);
        let untold = uses.take();
        uses.note("b", 9);
        uses.give_back(&untold);
        assert_eq!(told(&mut uses), [("a".to_owned(), 3), ("b".to_owned(), 9)]);
        assert!(told(&mut uses).is_empty());
    }

    #[test]
    fn there_are_never_more_than_the_store_takes_at_once() {
        let mut uses = Uses::default();
        (0..MOST + 5).for_each(|number| uses.note(&format!("old{number}"), 1));
        let untold = uses.take();
        assert_eq!(untold.len(), MOST);
        (0..10).for_each(|number| uses.note(&format!("new{number}"), 2));
        uses.give_back(&untold);
        let told = told(&mut uses);
        assert_eq!(told.len(), MOST);
        assert_eq!(told.iter().filter(|(id, _)| id.starts_with("new")).count(), 10);
    }
}
