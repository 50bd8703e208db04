//! When a worker is set aside: a circuit breaker, pure but for the time that it is told.

use std::time::Duration;

use tokio::time::Instant;

/// Failures in a row that set a worker aside.
const FAILURES: u32 = 5;
/// How long at first.
const FIRST: Duration = Duration::from_secs(1);
/// And at most.
const LONGEST: Duration = Duration::from_secs(30);

/// Counts failures in a row. While it is open, the worker gets nothing; after that, its next failure opens it for longer.
#[derive(Debug, Default)]
pub(crate) struct Breaker {
    failures: u32,
    opened: u32,
    until: Option<Instant>,
}

impl Breaker {
    pub(crate) fn is_open(&self, now: Instant) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    pub(crate) fn succeeded(&mut self) {
        *self = Self::default();
    }

    pub(crate) fn failed(&mut self, now: Instant) {
        if self.is_open(now) {
            return;
        }
        self.failures += 1;
        if self.failures >= FAILURES || self.opened > 0 {
            self.until = Some(now + growing(FIRST, LONGEST, self.opened));
            self.opened += 1;
            self.failures = 0;
        }
    }
}

/// `first`, doubled `times` times, `longest` at most.
pub(crate) fn growing(first: Duration, longest: Duration, times: u32) -> Duration {
    first.saturating_mul(1 << times.min(16)).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_failures_in_a_row_and_for_longer_each_time() {
        let mut breaker = Breaker::default();
        let mut now = Instant::now();
        for _ in 0..FAILURES - 1 {
            breaker.failed(now);
        }
        breaker.succeeded();
        for _ in 0..FAILURES - 1 {
            breaker.failed(now);
        }
        assert!(!breaker.is_open(now), "a success in between counts");
        breaker.failed(now);
        let mut lasted = Vec::new();
        for _ in 0..7 {
            let mut seconds = 0;
            while breaker.is_open(now) {
                now += Duration::from_secs(1);
                seconds += 1;
            }
            lasted.push(seconds);
            breaker.failed(now);
        }
        assert_eq!(lasted, [1, 2, 4, 8, 16, 30, 30]);
    }
}
