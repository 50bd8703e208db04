//! What the scheduler tells of itself without being asked: a few numbers that anybody may read.

use std::{
    sync::atomic::{AtomicU32, AtomicU64, Ordering},
    time::{Duration, Instant},
};

/// How busy the scheduler is.
#[derive(Debug)]
pub(super) struct Gauges {
    born: Instant,
    used: AtomicU32,
    /// When the last step ended, in microseconds since `born`, plus one. 0: nothing runs.
    stepped: AtomicU64,
}

impl Gauges {
    pub(super) fn new() -> Self {
        Self {
            born: Instant::now(),
            used: AtomicU32::new(0),
            stepped: AtomicU64::new(0),
        }
    }

    /// Something runs, and a step has ended.
    pub(super) fn stepped(&self, used: usize) {
        self.used.store(u32::try_from(used).unwrap_or(u32::MAX), Ordering::Relaxed);
        self.stepped.store(self.now() + 1, Ordering::Relaxed);
    }

    /// Nothing runs.
    pub(super) fn idle(&self) {
        self.used.store(0, Ordering::Relaxed);
        self.stepped.store(0, Ordering::Relaxed);
    }

    /// Cells of the KV cache that running answers hold.
    pub(super) fn used(&self) -> u32 {
        self.used.load(Ordering::Relaxed)
    }

    /// Since the last step, while something runs.
    pub(super) fn step_age(&self) -> Option<Duration> {
        let stepped = self.stepped.load(Ordering::Relaxed).checked_sub(1)?;
        Some(Duration::from_micros(self.now().saturating_sub(stepped)))
    }

    fn now(&self) -> u64 {
        u64::try_from(self.born.elapsed().as_micros()).unwrap_or(u64::MAX)
    }
}
