//! What the task that makes the tokens tells of itself, and how it is woken.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering as Atomic},
    time::Duration,
};

use tokio::{sync::Notify, time::Instant};

/// The beat of one engine.
#[derive(Debug)]
pub(super) struct Beat {
    /// Answers were cancelled. To ask each one at each token would cost a cache miss a token.
    pub(super) cancelled: AtomicBool,
    pub(super) woken: Notify,
    pub(super) born: Instant,
    pub(super) running: AtomicU32,
    /// Of the last step, in milliseconds since `born`.
    stepped: AtomicU64,
}

impl Default for Beat {
    fn default() -> Self {
        Self {
            cancelled: AtomicBool::new(false),
            woken: Notify::new(),
            born: Instant::now(),
            running: AtomicU32::new(0),
            stepped: AtomicU64::new(0),
        }
    }
}

impl Beat {
    /// Answers were cancelled.
    pub(super) fn poke(&self) {
        self.cancelled.store(true, Atomic::Release);
        self.woken.notify_one();
    }

    /// Since the last step, while something runs.
    pub(super) fn age(&self) -> Option<Duration> {
        let running = self.running.load(Atomic::Relaxed) > 0;
        running.then(|| {
            self.born
                .elapsed()
                .saturating_sub(Duration::from_millis(self.stepped.load(Atomic::Relaxed)))
        })
    }

    pub(super) fn stepped(&self, now: Instant) {
        let since = u64::try_from((now - self.born).as_millis()).unwrap_or(u64::MAX);
        self.stepped.store(since, Atomic::Relaxed);
    }
}
