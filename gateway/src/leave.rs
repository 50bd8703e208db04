//! How clients are sent away when the gateway stops. One that can come back is told to, at a time of its own within the first
//! seconds of the drain, so that they don't all arrive elsewhere at once; the others stay for their answers until the last call.
//!
//! [`crate::sse`] and the WebSocket door wait for [`Leaving`]; what they say then is theirs.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use chassis::drain::Drain;

use crate::{app::App, clients::rank};

/// When a client that was sent away may come back, and over how long all of them do: at once would be a herd.
const RETRY_LEAST: Duration = Duration::from_millis(100);
const RETRY_SPREAD: Duration = Duration::from_millis(1900);

/// Ready when a client has to go. A stream asks for each token: before the drain begins, that is a look at a flag.
pub(crate) struct Leaving {
    drain: Drain,
    time: Pin<Box<dyn Future<Output = ()> + Send>>,
    asked: bool,
}

impl Future for Leaving {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.asked && !self.drain.is_draining() {
            return Poll::Pending;
        }
        self.asked = true;
        self.time.as_mut().poll(context)
    }
}

/// When `client` has to go: one that comes back, at its time in the handover; else at the last call.
pub(crate) fn when(app: &App, client: &str, comes_back: bool) -> Leaving {
    let handover = app.settings().handover();
    let wait = (comes_back && !handover.is_zero()).then(|| spread(client, "leave", handover));
    let drain = app.drain().clone();
    let time = async move {
        drain.draining().await;
        match wait {
            None => drain.last_call().await,
            Some(wait) => _ = tokio::time::timeout(wait, drain.last_call()).await,
        }
    };
    Leaving {
        drain: app.drain().clone(),
        time: Box::pin(time),
        asked: false,
    }
}

/// What an event stream says last to a client that is to come back. One line, and no blank one after it: a client takes the time as
/// it reads it, and an event without data would be no event to some and a broken one to others.
pub(crate) fn farewell(client: &str) -> String {
    let retry = RETRY_LEAST + spread(client, "retry", RETRY_SPREAD);
    format!("retry: {}\n", retry.as_millis())
}

/// A time up to `over` that is always the same for the same client, and evenly spread over all.
fn spread(client: &str, salt: &str, over: Duration) -> Duration {
    #[expect(clippy::cast_precision_loss, reason = "a share needs no more")]
    let share = rank(client, salt) as f64 / u64::MAX as f64;
    over.mul_f64(share)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_come_back_at_different_times_within_the_window() {
        let times: Vec<u64> = (0..1000)
            .map(|client| {
                let line = farewell(&format!("client-{client}"));
                line.strip_prefix("retry: ").unwrap().trim_end_matches('\n').parse().unwrap()
            })
            .collect();
        assert!(times.iter().all(|time| (100..=2000).contains(time)));
        let early = times.iter().filter(|time| **time < 1050).count();
        assert!((400..600).contains(&early), "{early} of 1000 in the first half");
        assert_eq!(farewell("a"), farewell("a"));
    }
}
