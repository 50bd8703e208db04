//! How a process stops: not ready → finish or hand over what runs, within the grace time → last call → cut → flush → gone.
//!
//! Every task of a process is spawned through [`Drain::spawn`], so that stopping knows them all. Cloning shares.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use tokio::{task::JoinHandle, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::notice::{Event, Notice};

/// How long tasks have to say goodbye when the grace time is over: one write to a client that reads.
const LAST_CALL: Duration = Duration::from_millis(500);
/// How long tasks have to go once they were cut: they only drop what they hold.
const CUT_TIME: Duration = Duration::from_secs(2);
/// How long those that gather what the others leave have at the very end: a few calls to a service that answers.
const FLUSH: Duration = Duration::from_secs(2);

/// The stopping of one service.
#[derive(Clone, Debug, Default)]
pub struct Drain {
    draining: Event,
    last_call: CancellationToken,
    cut: Event,
    tasks: TaskTracker,
    over: CancellationToken,
    last: TaskTracker,
    gone: CancellationToken,
}

impl Drain {
    /// A service that runs.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes nothing new from now on. Saying it twice is harmless.
    pub fn begin(&self) {
        self.draining.happen();
    }

    /// Whether it takes nothing new.
    pub fn is_draining(&self) -> bool {
        self.draining.has_happened()
    }

    /// Waits until it takes nothing new.
    pub async fn draining(&self) {
        self.draining.wait().await;
    }

    /// Waits until it takes nothing new, in a task that is woken often for other reasons.
    pub fn notice(&self) -> Notice {
        self.draining.notice()
    }

    /// Waits until the grace time is over: what still runs ends now, with a word to whoever waits for it.
    pub async fn last_call(&self) {
        self.last_call.cancelled().await;
    }

    /// Waits until even that is over: what still runs is dropped.
    pub async fn cut(&self) {
        self.cut.wait().await;
    }

    /// Runs a task that [`Drain::finish`] waits for, and that is dropped when it is cut.
    pub fn spawn<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let cut = self.cut.notice();
        self.tasks.spawn(async move {
            let (mut cut, mut task) = (pin!(cut), pin!(task));
            poll_fn(|context| {
                if cut.as_mut().poll(context).is_ready() {
                    return Poll::Ready(());
                }
                task.as_mut().poll(context)
            })
            .await;
        })
    }

    /// Runs a task that has no end of its own: it is dropped as soon as draining begins.
    pub fn spawn_until_draining<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let draining = self.draining.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = draining.wait() => {}
                () = task => {}
            }
        })
    }

    /// Waits until no other task runs, in one that gathers what the others leave ([`Drain::spawn_last`]): nothing more comes.
    pub async fn over(&self) {
        self.over.cancelled().await;
    }

    /// Runs a task that gathers what others leave, also while they end. When they have, [`Drain::over`] says so, and it is waited for a moment
    /// until it has handed over what it has.
    pub fn spawn_last<F>(&self, task: F) -> JoinHandle<()>
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let gone = self.gone.clone();
        self.last.spawn(async move {
            tokio::select! {
                () = gone.cancelled() => {}
                () = task => {}
            }
        })
    }

    /// Runs a service to its end: `serving` until draining begins, then its tasks within `grace`.
    pub async fn serve<T>(&self, grace: Duration, serving: impl Future<Output = T>) -> T {
        let finish = async {
            self.draining().await;
            self.finish(grace).await;
        };
        let serving = async {
            let served = serving.await;
            self.begin();
            served
        };
        tokio::join!(serving, finish).0
    }

    /// Begins to drain, waits for the tasks as long as `grace`, then calls for the last time and cuts; at the end what they left is handed
    /// over. Says whether all ended in time.
    pub async fn finish(&self, grace: Duration) -> bool {
        self.begin();
        self.tasks.close();
        let whole = timeout(grace, self.tasks.wait()).await.is_ok();
        self.last_call.cancel();
        if !whole {
            tracing::warn!(tasks = self.tasks.len(), "the grace time is over; what still runs is cut");
            let _ = timeout(LAST_CALL, self.tasks.wait()).await;
        }
        self.cut.happen();
        if !whole {
            let _ = timeout(CUT_TIME, self.tasks.wait()).await;
        }
        self.over.cancel();
        self.last.close();
        if timeout(FLUSH, self.last.wait()).await.is_err() {
            tracing::warn!(tasks = self.last.len(), "what was gathered could not all be handed over");
        }
        self.gone.cancel();
        whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_in_time_is_not_cut() {
        let drain = Drain::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = sender.send(());
        });
        assert!(drain.finish(Duration::from_secs(10)).await);
        assert!(receiver.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_outlasts_the_grace_time_may_say_a_last_word() {
        let drain = Drain::new();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let heard = drain.clone();
        drain.spawn(async move {
            heard.last_call().await;
            tokio::time::sleep(LAST_CALL / 2).await;
            let _ = sender.send(());
        });
        assert!(!drain.finish(Duration::from_secs(10)).await);
        assert!(receiver.await.is_ok());
    }

    #[tokio::test(start_paused = true)]
    async fn what_tasks_leave_at_their_end_is_handed_over_within_a_moment() {
        let drain = Drain::new();
        let (leave, mut left) = tokio::sync::mpsc::channel(1);
        let (told, mut hears) = tokio::sync::mpsc::channel(1);
        let gathering = drain.clone();
        drain.spawn_last(async move {
            gathering.over().await;
            let _ = told.send(left.recv().await).await;
            std::future::pending::<()>().await; // the next it cannot hand over
        });
        drain.spawn(async move {
            tokio::time::sleep(Duration::from_secs(5)).await;
            let _ = leave.send("a last word").await;
        });
        assert!(drain.finish(Duration::from_secs(10)).await);
        assert_eq!(hears.recv().await, Some(Some("a last word")));
        tokio::task::yield_now().await;
        assert!(drain.last.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_outlasts_the_grace_time_is_dropped() {
        let drain = Drain::new();
        drain.spawn(std::future::pending());
        assert!(!drain.finish(Duration::from_secs(10)).await);
        assert!(drain.tasks.is_empty());
    }
}
