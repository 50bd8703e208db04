//! What is known of a credential for a while: bounded in number, and each with its own end. Two generations: when the young one is
//! full it becomes the old one, and what nobody has asked for since the last time is forgotten. Pure: the caller says what time it is.

use std::{borrow::Borrow, collections::HashMap, hash::Hash, mem};

use tokio::time::Instant;

/// A map of at most so many entries.
#[derive(Debug)]
pub(super) struct Cache<K, V> {
    young: HashMap<K, Entry<V>>,
    old: HashMap<K, Entry<V>>,
    /// Entries of one generation.
    half: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    until: Instant,
}

impl<K: Eq + Hash, V: Clone> Cache<K, V> {
    /// One that holds at most `most` entries, two at least.
    pub(super) fn new(most: usize) -> Self {
        Self {
            young: HashMap::new(),
            old: HashMap::new(),
            half: (most / 2).max(1),
        }
    }

    /// What is known under `key`, if it is still good at `now`.
    pub(super) fn get<Q>(&mut self, key: &Q, now: Instant) -> Option<V>
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        if let Some(entry) = self.young.get(key) {
            return (now < entry.until).then(|| entry.value.clone());
        }
        let (key, entry) = self.old.remove_entry(key)?;
        if now >= entry.until {
            return None;
        }
        let value = entry.value.clone();
        self.keep(key, entry);
        Some(value)
    }

    /// Knows `value` under `key` until then.
    pub(super) fn put(&mut self, key: K, value: V, until: Instant) {
        self.old.remove(&key);
        self.keep(key, Entry { value, until });
    }

    fn keep(&mut self, key: K, entry: Entry<V>) {
        if self.young.len() >= self.half && !self.young.contains_key(&key) {
            self.old = mem::take(&mut self.young);
        }
        self.young.insert(key, entry);
    }

    /// Knows nothing of `key` any more.
    pub(super) fn forget<Q>(&mut self, key: &Q)
    where
        K: Borrow<Q>,
        Q: Eq + Hash + ?Sized,
    {
        self.young.remove(key);
        self.old.remove(key);
    }

    /// Knows nothing any more.
    pub(super) fn clear(&mut self) {
        self.young.clear();
        self.old.clear();
    }

    /// Whether it knows nothing.
    pub(super) fn is_empty(&self) -> bool {
        self.young.is_empty() && self.old.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, time::Duration};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_never_tells_what_is_over_or_forgotten_and_never_grows(
            steps in proptest::collection::vec((0..4_u8, 0..12_u8, 1..50_u64), 1..200),
        ) {
            let start = Instant::now();
            let mut now = start;
            let mut cache = Cache::new(6);
            let mut model: BTreeMap<u8, (u64, Instant)> = BTreeMap::new();
            for (step, key, number) in steps {
                match step {
                    0 => {
                        let until = now + Duration::from_secs(number);
                        cache.put(key, number, until);
                        model.insert(key, (number, until));
                    }
                    1 => {
                        cache.forget(&key);
                        model.remove(&key);
                    }
                    2 => now += Duration::from_secs(number / 10),
                    _ => {
                        if let Some(known) = cache.get(&key, now) {
                            let (value, until) = model[&key];
                            prop_assert!(known == value && now < until);
                        }
                    }
                }
                prop_assert!(cache.young.len() + cache.old.len() <= 6);
            }
        }
    }

    #[test]
    fn what_is_asked_for_stays_while_others_come_and_go() {
        let now = Instant::now();
        let until = now + Duration::from_secs(1);
        let mut cache = Cache::new(10);
        cache.put("often", 0, until);
        for (number, name) in ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l", "m"]
            .into_iter()
            .enumerate()
        {
            cache.put(name, number, until);
            assert_eq!(cache.get("often", now), Some(0));
        }
        assert_eq!(cache.get("a", now), None);
        assert_eq!(cache.get("often", until), None, "its time is over");
    }
}
