//! How many answers may move to another worker after a crash, in a time: a bucket that refills. Pure but for the time that it is told.
//!
//! A request that kills workers takes their other answers with it. Each answer has its own bound; this one keeps the mesh from
//! prefilling everything again and again.

use tokio::time::Instant;

/// In which the bucket refills.
const MINUTE_MS: u128 = 60_000;

/// A bucket.
#[derive(Debug)]
pub(crate) struct Budget {
    most: u32,
    left: u32,
    since: Instant,
}

impl Budget {
    /// A full bucket of so many a minute.
    pub(crate) fn new(a_minute: u32, now: Instant) -> Self {
        Self {
            most: a_minute,
            left: a_minute,
            since: now,
        }
    }

    /// Takes one, if there is one.
    pub(crate) fn take(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since).as_millis();
        let back = u32::try_from(u128::from(self.most) * passed / MINUTE_MS).unwrap_or(u32::MAX);
        if back > 0 {
            self.left = self.left.saturating_add(back).min(self.most);
            self.since = now;
        }
        let there = self.left > 0;
        self.left -= u32::from(there);
        there
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_minute_gives_no_more_than_the_budget() {
        let start = Instant::now();
        let mut budget = Budget::new(60, start);
        let taken = (0..100).filter(|_| budget.take(start)).count();
        assert_eq!(taken, 60);
        assert!(!budget.take(start + Duration::from_millis(900)));
        assert!(budget.take(start + Duration::from_millis(1100)));
        assert!(!budget.take(start + Duration::from_millis(1200)));
        let later = start + Duration::from_mins(10);
        assert_eq!((0..100).filter(|_| budget.take(later)).count(), 60);
    }

    #[test]
    fn none_is_none() {
        assert!(!Budget::new(0, Instant::now()).take(Instant::now() + Duration::from_mins(1)));
    }
}
