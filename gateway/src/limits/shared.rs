//! Limits that several gateways share, and what becomes of them while Redis is away: each gateway then grants its share of every limit
//! from its own books, says so in log and metrics, and takes nothing over from Redis but the share's size. When Redis is back, what was
//! used meanwhile is charged there.
//!
//! Answers never wait for it: a request waits for the deadline once, and then nobody does until Redis has answered again.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis::drain::Drain;
use parking_lot::Mutex;
use tokio::{runtime::Handle, sync::Notify, time::sleep};

use super::{
    Ledger, LedgerGone,
    memory::Memory,
    now_ms,
    redis::Redis,
    terms::{Ask, DAY_MS, HOLD_MS, Settlement, Verdict},
};
use crate::metrics::Metrics;

/// How often it is looked whether Redis is back.
const LOOK: Duration = Duration::from_millis(500);
/// Settlements that wait for Redis. What is past that is not lost: the answers are looked up when their caller comes again.
const WAITING: usize = 16 * 1024;

/// Books in Redis, and this gateway's own.
pub(super) struct Shared {
    redis: Redis,
    own: Memory,
    /// How many gateways share the limits.
    gateways: u32,
    up: AtomicBool,
    /// Somebody has found that Redis is away.
    lost: Notify,
    waiting: Mutex<VecDeque<Settlement>>,
    metrics: Arc<Metrics>,
    drain: Drain,
}

impl Shared {
    /// Over this Redis. Whether it is there shows at the first use, or when somebody [looks](Self::look).
    pub(super) fn new(redis: Redis, gateways: u32, metrics: &Arc<Metrics>, drain: &Drain) -> Arc<Self> {
        metrics.limits_shared.set(1);
        Arc::new(Self {
            redis,
            own: Memory::new(),
            gateways,
            up: AtomicBool::new(true),
            lost: Notify::new(),
            waiting: Mutex::default(),
            metrics: Arc::clone(metrics),
            drain: drain.clone(),
        })
    }

    /// Judges a request: in Redis or, if that is away, by this gateway's share (then true).
    pub(super) async fn judge(&self, ask: &mut Ask) -> (Verdict, bool) {
        if self.up.load(Ordering::Relaxed) {
            match self.redis.admit(ask, 0).await {
                Ok(verdict) => return (verdict, false),
                Err(gone) => self.lose(&gone),
            }
        }
        ask.bounds = ask.bounds.share(self.gateways);
        (self.own.judge(ask, now_ms()), true)
    }

    /// Closes a reservation soon; one of this gateway's own is charged here at once, and in Redis as owed.
    pub(super) fn close(self: &Arc<Self>, mut end: Settlement, own: bool) {
        let now = now_ms();
        if own {
            self.own.close(&end, now);
            if end.tokens > 0 {
                end.owed = Some(now / DAY_MS);
                end.keep_ms = end.keep_ms.max(HOLD_MS); // it must not be charged twice if the answer to the first try is lost
            }
        }
        let is_free = !self.drain.is_draining(); // else what is told of is told of by one task, which is waited for
        if is_free && self.up.load(Ordering::Relaxed) && Handle::try_current().is_ok() {
            let shared = Arc::clone(self);
            self.drain.spawn(async move { shared.send(end).await });
        } else {
            self.wait(end);
        }
    }

    async fn send(&self, end: Settlement) {
        if let Err(gone) = self.redis.settle(&end, 0).await {
            self.lose(&gone);
            self.wait(end);
        }
    }

    fn wait(&self, end: Settlement) {
        let mut waiting = self.waiting.lock();
        if waiting.len() >= WAITING {
            waiting.pop_front();
            self.metrics.limits_unsettled.inc();
        }
        waiting.push_back(end);
        drop(waiting);
        self.lost.notify_one();
    }

    fn lose(&self, gone: &LedgerGone) {
        if self.up.swap(false, Ordering::Relaxed) {
            let gateways = self.gateways;
            tracing::warn!(%gone, gateways, "Redis is away: until it is back, this gateway grants its own share of each limit");
            self.metrics.limits_shared.set(0);
            self.metrics.limits_fallbacks.inc();
        }
        self.lost.notify_one();
    }

    /// Looks for Redis at the start and whenever it is away, and tells it what it missed, until nothing else of the gateway runs.
    pub(super) async fn look(&self) {
        if let Err(gone) = self.redis.ping().await {
            self.lose(&gone); // rather now than at the first request
        }
        loop {
            tokio::select! {
                () = self.lost.notified() => {}
                () = self.drain.over() => return,
            }
            while !self.up.load(Ordering::Relaxed) {
                tokio::select! {
                    () = sleep(LOOK) => {}
                    () = self.drain.over() => return,
                }
                self.find().await;
            }
            self.flush().await;
        }
    }

    async fn find(&self) {
        if self.redis.ping().await.is_ok() {
            self.up.store(true, Ordering::Relaxed);
            self.metrics.limits_shared.set(1);
            tracing::info!("Redis is back: limits are shared again");
        }
    }

    /// Tells Redis what waits, in the end: nobody looks for it any more.
    pub(super) async fn flush_last(&self) {
        if !self.up.load(Ordering::Relaxed) {
            self.find().await;
        }
        self.flush().await;
    }

    async fn flush(&self) {
        while self.up.load(Ordering::Relaxed) {
            let Some(end) = self.waiting.lock().pop_front() else { break };
            self.send(end).await;
        }
    }
}
