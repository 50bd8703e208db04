//! Journals by name: the running ones, and the finished ones that somebody may still want to read.

use std::{
    collections::{VecDeque, hash_map::Entry as Place},
    hash::Hash,
    time::{Duration, Instant},
};

use foldhash::{HashMap, HashMapExt as _};

use crate::{Entry, Journal};

/// What a shelf must know of what it keeps.
pub trait Kept {
    /// Bytes that it takes in memory, nearly.
    fn weight(&self) -> usize;
}

impl<E: Entry> Kept for Journal<E> {
    fn weight(&self) -> usize {
        self.bytes()
    }
}

/// How much a shelf keeps.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// The most that may run at once.
    pub running: usize,
    /// The most bytes that finished ones may take together.
    pub finished_bytes: usize,
    /// The most finished ones.
    pub finished: usize,
    /// How long a finished one is kept.
    pub retention: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            running: 16 * 1024,
            finished_bytes: 256 * 1024 * 1024,
            finished: 16 * 1024,
            retention: Duration::from_mins(15),
        }
    }
}

/// As many run as may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0} answers run already, which is the bound")]
pub struct ShelfFull(pub usize);

/// Things by name, running or finished. A finished one leaves when it is too old, or when the younger ones need its room.
#[derive(Debug)]
pub struct Shelf<K, V> {
    bounds: Bounds,
    items: HashMap<K, Item<V>>,
    /// The finished ones, the oldest first.
    finished: VecDeque<(Instant, K)>,
    finished_bytes: usize,
    running: usize,
}

#[derive(Debug)]
struct Item<V> {
    value: V,
    /// Its weight when it finished.
    finished: Option<usize>,
}

impl<K: Hash + Eq + Clone, V: Kept> Shelf<K, V> {
    /// An empty shelf.
    pub fn new(bounds: Bounds) -> Self {
        Self {
            bounds,
            items: HashMap::new(),
            finished: VecDeque::new(),
            finished_bytes: 0,
            running: 0,
        }
    }

    /// Puts a running one on the shelf, unless one of that name is there: names are never used twice.
    ///
    /// # Errors
    /// [`ShelfFull`] if as many run as may.
    pub fn insert(&mut self, key: K, value: V) -> Result<(), ShelfFull> {
        if self.running >= self.bounds.running {
            return Err(ShelfFull(self.bounds.running));
        }
        if let Place::Vacant(place) = self.items.entry(key) {
            place.insert(Item { value, finished: None });
            self.running += 1;
        }
        Ok(())
    }

    /// The one of that name.
    pub fn get<Q>(&self, key: &Q) -> Option<&V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        self.items.get(key).map(|item| &item.value)
    }

    /// Says that the one of that name has finished, and makes room. Returns what had to leave.
    pub fn finish(&mut self, key: &K, now: Instant) -> Vec<V> {
        let Some(item) = self.items.get_mut(key) else { return Vec::new() };
        if item.finished.is_none() {
            let weight = item.value.weight();
            item.finished = Some(weight);
            self.running -= 1;
            self.finished_bytes += weight;
            self.finished.push_back((now, key.clone()));
        }
        self.sweep(now)
    }

    /// Lets go of finished ones that are too old or too many, and returns them.
    pub fn sweep(&mut self, now: Instant) -> Vec<V> {
        let mut gone = Vec::new();
        while let Some((since, _)) = self.finished.front() {
            let old = now.saturating_duration_since(*since) >= self.bounds.retention;
            if !(old || self.finished_bytes > self.bounds.finished_bytes || self.finished.len() > self.bounds.finished) {
                break;
            }
            if let Some((_, key)) = self.finished.pop_front()
                && let Some(item) = self.items.remove(&key)
            {
                self.finished_bytes -= item.finished.unwrap_or(0);
                gone.push(item.value);
            }
        }
        gone
    }

    /// Takes a running one off at once: it never began.
    pub fn remove(&mut self, key: &K) -> Option<V> {
        if self.items.get(key)?.finished.is_some() {
            return None;
        }
        self.running -= 1;
        self.items.remove(key).map(|item| item.value)
    }

    /// Takes one off, running or finished, to make place for another of its name.
    pub fn take<Q>(&mut self, key: &Q) -> Option<V>
    where
        K: std::borrow::Borrow<Q>,
        Q: Hash + Eq + ?Sized,
    {
        let item = self.items.remove(key)?;
        match item.finished {
            None => self.running -= 1,
            Some(weight) => {
                self.finished_bytes -= weight;
                self.finished.retain(|(_, finished)| finished.borrow() != key);
            }
        }
        Some(item.value)
    }

    /// All, with whether each still runs.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V, bool)> {
        self.items.iter().map(|(key, item)| (key, &item.value, item.finished.is_none()))
    }

    /// How many run.
    pub fn running(&self) -> usize {
        self.running
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.items.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Weighs(usize);
    impl Kept for Weighs {
        fn weight(&self) -> usize {
            self.0
        }
    }

    fn shelf(running: usize, finished_bytes: usize, finished: usize) -> Shelf<u32, Weighs> {
        Shelf::new(Bounds {
            running,
            finished_bytes,
            finished,
            retention: Duration::from_secs(10),
        })
    }

    #[test]
    fn a_running_one_is_never_let_go() {
        let mut shelf = shelf(2, 10, 1);
        let now = Instant::now();
        shelf.insert(1, Weighs(100)).unwrap();
        shelf.insert(2, Weighs(100)).unwrap();
        assert_eq!(shelf.insert(3, Weighs(0)), Err(ShelfFull(2)));
        shelf.sweep(now + Duration::from_secs(1000));
        assert_eq!(shelf.len(), 2);
    }

    #[test]
    fn finished_ones_leave_by_age_then_by_size_then_by_number() {
        let mut shelf = shelf(10, 100, 3);
        let now = Instant::now();
        for key in 0..6 {
            shelf.insert(key, Weighs(30)).unwrap();
            shelf.finish(&key, now + Duration::from_secs(u64::from(key)));
        }
        assert_eq!(shelf.len(), 3, "three of 30 bytes fit");
        assert!(shelf.get(&2).is_none() && shelf.get(&3).is_some());
        let gone = shelf.sweep(now + Duration::from_secs(14));
        assert_eq!(gone.len(), 2, "who let them go is told");
        assert_eq!(shelf.len(), 1, "only the one that finished at 5 is younger than 10 s");
        shelf.insert(9, Weighs(500)).unwrap();
        shelf.finish(&9, now + Duration::from_secs(14));
        assert!(shelf.is_empty(), "larger than the bound by itself");
    }

    #[test]
    fn a_taken_name_is_free_again_and_its_past_does_not_touch_the_next_one() {
        let mut shelf = shelf(10, 100, 10);
        let now = Instant::now();
        shelf.insert(1, Weighs(60)).unwrap();
        shelf.finish(&1, now);
        assert_eq!(shelf.take(&1).unwrap().0, 60);
        shelf.insert(1, Weighs(70)).unwrap();
        shelf.sweep(now + Duration::from_secs(1000));
        assert_eq!(
            (shelf.running(), shelf.get(&1).unwrap().0),
            (1, 70),
            "the second runs, whatever the first did"
        );
        shelf.take(&1).unwrap();
        assert!(shelf.is_empty() && shelf.running() == 0 && shelf.finished_bytes == 0);
    }

    #[test]
    fn a_name_is_used_once() {
        let mut shelf = shelf(10, 100, 10);
        shelf.insert(1, Weighs(1)).unwrap();
        shelf.insert(1, Weighs(2)).unwrap();
        assert_eq!((shelf.running(), shelf.get(&1).unwrap().0), (1, 1));
    }
}
