//! When a sender of many small things may begin its next round of them. An exchange asks before it sends entries.
//!
//! Answers whose decode steps are not aligned bring a token every few microseconds, each by itself. Whoever sends each at once
//! pays for a wake-up and a write on every hop for each of them, and so does who receives it: several times what the token
//! itself costs. As with the interrupts of a network card, the remedy is to begin at once while there is little to do, and to let
//! work gather for a moment while there is much: the first [`SAVED`] rounds are free, another one comes with each period, and
//! whoever is new brings as many as can be saved, so that nobody waits for a first token. Knows nothing of what is sent.
//!
//! Where tokens are made they gather longest ([`MADE`]). A router passes on what came together, and only what several workers bring
//! gathers there for a moment more ([`RELAYED`]). Who makes fewer rounds a second than there are periods never waits.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{Instant, Sleep, sleep_until};

/// One round of a worker comes with each of these: little beside the 10 to 50 ms of a decode step, and several times what tokio's timer can
/// tell apart.
pub const MADE: Duration = Duration::from_millis(6);
/// And one of a router. Both together are the longest that a token waits for others.
pub const RELAYED: Duration = Duration::from_millis(2);
/// So many rounds can be saved up.
pub const SAVED: u32 = 4;

/// The pace of one sender.
#[derive(Debug)]
pub struct Pace {
    period: Duration,
    /// When all rounds that can be saved will have been.
    full: Instant,
    /// In the middle of a round.
    running: bool,
    alarm: Option<Pin<Box<Sleep>>>,
}

impl Pace {
    /// That of a sender whose rounds come with each `period`.
    pub fn new(period: Duration) -> Self {
        Self {
            period,
            full: Instant::now(),
            running: false,
            alarm: None,
        }
    }

    /// Whether something may be sent now. If not, the task is woken when it may be.
    pub fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<()> {
        if self.running {
            return Poll::Ready(());
        }
        let free = self.full - self.period * (SAVED - 1);
        if Instant::now() < free {
            let alarm = self.alarm.get_or_insert_with(|| Box::pin(sleep_until(free)));
            if alarm.deadline() != free {
                alarm.as_mut().reset(free);
            }
            return alarm.as_mut().poll(context);
        }
        Poll::Ready(())
    }

    /// Somebody new is to be served: the next rounds are free.
    pub fn refill(&mut self) {
        self.full = self.full.min(Instant::now());
    }

    /// Something was sent: a round has begun, or goes on.
    pub fn sent(&mut self) {
        self.running = true;
    }

    /// There is nothing more to send: the round is over, if there was one.
    pub fn rest(&mut self) {
        if std::mem::take(&mut self.running) {
            self.full = self.full.max(Instant::now()) + self.period;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;

    use super::*;

    const PERIOD: Duration = Duration::from_millis(4);

    async fn round(pace: &mut Pace) -> Duration {
        let start = Instant::now();
        poll_fn(|context| pace.poll_send(context)).await;
        pace.sent();
        pace.rest();
        start.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn rare_rounds_begin_at_once_and_many_once_a_period() {
        let mut pace = Pace::new(PERIOD);
        for _ in 0..10 {
            assert_eq!(round(&mut pace).await, Duration::ZERO);
            tokio::time::advance(PERIOD).await;
        }
        for _ in 0..SAVED {
            assert_eq!(round(&mut pace).await, Duration::ZERO);
        }
        for _ in 0..10 {
            let waited = round(&mut pace).await;
            assert!(waited > Duration::ZERO && waited <= PERIOD * 2, "{waited:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_is_new_waits_for_nobody() {
        let mut pace = Pace::new(PERIOD);
        for _ in 0..10 {
            pace.refill();
            for _ in 0..SAVED {
                assert_eq!(round(&mut pace).await, Duration::ZERO);
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_round_is_not_interrupted() {
        let mut pace = Pace::new(PERIOD);
        for _ in 0..SAVED {
            round(&mut pace).await;
        }
        round(&mut pace).await;
        poll_fn(|context| pace.poll_send(context)).await;
        for _ in 0..100 {
            pace.sent();
            assert!(poll_fn(|context| Poll::Ready(pace.poll_send(context))).await.is_ready());
        }
        pace.rest();
        assert!(poll_fn(|context| Poll::Ready(pace.poll_send(context))).await.is_pending());
    }
}
