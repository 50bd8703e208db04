//! Something that happens once in the life of a process, and that thousands of tasks wait for while they do other things.
//!
//! Each of them is woken for its own reasons, a connection for each token, and would look at what it waits for each time: a lock and
//! two cold cache lines, for an event that comes once. A [`Notice`] asks to be woken the first time, and then looks at one flag that
//! all share.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
};

use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

/// What happens once. Cloning shares.
#[derive(Clone, Debug, Default)]
pub struct Event {
    happened: Arc<AtomicBool>,
    token: CancellationToken,
}

/// Waits for an event, within one task: it keeps the waker of its first poll.
#[derive(Debug)]
pub struct Notice {
    happened: Arc<AtomicBool>,
    wait: Pin<Box<WaitForCancellationFutureOwned>>,
    asked: bool,
}

impl Event {
    /// It happens, now or before.
    pub fn happen(&self) {
        self.happened.store(true, Ordering::Release);
        self.token.cancel();
    }

    /// Whether it has happened.
    pub fn has_happened(&self) -> bool {
        self.happened.load(Ordering::Acquire)
    }

    /// Waits for it.
    pub async fn wait(&self) {
        self.token.cancelled().await;
    }

    /// Waits for it beside much else.
    pub fn notice(&self) -> Notice {
        Notice {
            happened: Arc::clone(&self.happened),
            wait: Box::pin(self.token.clone().cancelled_owned()),
            asked: false,
        }
    }
}

impl Future for Notice {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.asked && !self.happened.load(Ordering::Acquire) {
            return Poll::Pending;
        }
        self.asked = true;
        self.wait.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_is_woken_though_it_looked_before() {
        let (event, looked) = (Event::default(), Event::default());
        let (mut notice, mut looks, on_look) = (event.notice(), 0, looked.clone());
        let waits = tokio::spawn(std::future::poll_fn(move |context| {
            looks += 1;
            if looks < 3 {
                context.waker().wake_by_ref(); // for reasons of its own
            } else {
                on_look.happen();
            }
            Pin::new(&mut notice).poll(context)
        }));
        looked.wait().await;
        assert!(!event.has_happened() && !waits.is_finished());
        event.happen();
        waits.await.unwrap();
        event.notice().await;
    }
}
