//! The books of all callers in this process: the default, and what stands in while Redis is away.

use std::{
    collections::HashMap,
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
};

use parking_lot::Mutex;

use super::{
    Ledger, LedgerGone,
    book::Book,
    now_ms,
    terms::{Ask, Settlement, Verdict},
};

/// Parts, so that requests on many cores seldom meet at one lock.
const PARTS: usize = 16;
/// Books of a part before those that say nothing are looked for.
const LOOK_AT: usize = 256;

/// Books in memory.
#[derive(Debug)]
pub(super) struct Memory {
    parts: [Mutex<Part>; PARTS],
    hash: RandomState,
}

#[derive(Debug, Default)]
struct Part {
    books: HashMap<Arc<str>, Book>,
    /// The number of books at which blank ones are let go: twice as many as were left the last time, so that looking costs little.
    look_at: usize,
}

impl Memory {
    /// No books yet.
    pub(super) fn new() -> Self {
        Self {
            parts: std::array::from_fn(|_| Mutex::default()),
            hash: RandomState::new(),
        }
    }

    /// Judges a request; see [`Book::admit`].
    pub(super) fn judge(&self, ask: &Ask, now: u64) -> Verdict {
        let mut part = self.part(&ask.who).lock();
        if part.books.len() >= part.look_at.max(LOOK_AT) {
            part.books.retain(|_, book| !book.is_blank(now));
            part.look_at = part.books.len() * 2;
        }
        part.books.entry(Arc::clone(&ask.who)).or_default().admit(ask, now)
    }

    /// Closes a reservation; see [`Book::settle`].
    pub(super) fn close(&self, end: &Settlement, now: u64) -> bool {
        let mut part = self.part(&end.who).lock();
        match part.books.get_mut(&end.who) {
            Some(book) => book.settle(end, now),
            None if end.owed.is_none() => false,
            None => part.books.entry(Arc::clone(&end.who)).or_default().settle(end, now),
        }
    }

    fn part(&self, who: &str) -> &Mutex<Part> {
        #[expect(clippy::cast_possible_truncation, reason = "any bits of a hash will do")]
        let hash = self.hash.hash_one(who) as usize;
        &self.parts[hash % PARTS]
    }
}

#[tonic::async_trait]
impl Ledger for Memory {
    async fn admit(&self, ask: &Ask, now: u64) -> Result<Verdict, LedgerGone> {
        Ok(self.judge(ask, or_clock(now)))
    }

    async fn settle(&self, end: &Settlement, now: u64) -> Result<bool, LedgerGone> {
        Ok(self.close(end, or_clock(now)))
    }
}

fn or_clock(now: u64) -> u64 {
    if now == 0 { now_ms() } else { now }
}

#[cfg(test)]
mod tests {
    use super::{super::terms::Bounds, *};

    #[test]
    fn callers_that_have_gone_are_forgotten() {
        let memory = Memory::new();
        let ask = |number: usize| Ask {
            who: number.to_string().into(),
            name: "a".to_owned(),
            prompt: 1,
            output: 1,
            least: 1,
            bounds: Bounds::default(),
        };
        let day = super::super::terms::DAY_MS;
        for number in 0..20_000 {
            memory.judge(&ask(number), number as u64 * day);
        }
        let books: usize = memory.parts.iter().map(|part| part.lock().books.len()).sum();
        assert!(books <= PARTS * LOOK_AT, "{books}");
    }
}
