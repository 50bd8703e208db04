//! Who may begin: a fixed number of seats, and a short queue in the order of arrival. Past that, an immediate refusal.
//!
//! Seats and places in the queue are guards: they come back when they are dropped, wherever that happens. The service admits;
//! an [`Answer`](crate::answer::Answer) holds its seats. This knows nothing of journals or requests.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use proto::v1::{Failure, Reason};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Instant,
};

/// What a refusal proposes at least, and before any answer has ended: shorter waits only make herds.
const RETRY_LEAST: Duration = Duration::from_millis(250);
/// What a refusal proposes at most: by then everything may have changed.
const RETRY_MOST: Duration = Duration::from_secs(30);

/// The seats of an engine and the queue before them.
#[derive(Debug)]
pub struct Admission {
    semaphore: Arc<Semaphore>,
    seats: u32,
    queue_limit: u32,
    busy: AtomicU32,
    queued: AtomicU32,
    /// How long an answer keeps its seats: a moving mean, in milliseconds.
    mean_ms: AtomicU32,
    changed: watch::Sender<()>,
}

/// Seats that an answer holds.
#[derive(Debug)]
pub struct Seats {
    admission: Arc<Admission>,
    permit: Option<OwnedSemaphorePermit>,
    since: Instant,
}

/// A place in the queue.
struct Place<'a>(&'a Admission);

impl Admission {
    /// All seats free.
    pub fn new(seats: u32, queue_limit: u32) -> Arc<Self> {
        Arc::new(Self {
            semaphore: Arc::new(Semaphore::new(seats as usize)),
            seats,
            queue_limit,
            busy: AtomicU32::new(0),
            queued: AtomicU32::new(0),
            mean_ms: AtomicU32::new(0),
            changed: watch::Sender::new(()),
        })
    }

    /// Takes `seats` seats for one answer, now or when its turn has come. Dropping the future leaves the queue.
    ///
    /// # Errors
    /// More seats than there are, or the queue is full.
    pub async fn admit(self: &Arc<Self>, seats: u32) -> Result<Seats, Failure> {
        if seats > self.seats {
            let message = format!("n asks for {seats} choices, and this worker makes {} at once", self.seats);
            return Err(Failure::invalid("n", message));
        }
        // Who waits in the semaphore's own queue has all free seats assigned already, so this overtakes nobody.
        if let Ok(permit) = Arc::clone(&self.semaphore).try_acquire_many_owned(seats) {
            return Ok(self.seated(permit));
        }
        let _place = self.queue()?;
        let permit = Arc::clone(&self.semaphore).acquire_many_owned(seats).await;
        let permit = permit.map_err(|_| Failure::new(Reason::Draining, "the worker is stopping"))?;
        Ok(self.seated(permit))
    }

    /// Answers that hold seats.
    pub fn busy(&self) -> u32 {
        self.busy.load(Ordering::Acquire)
    }

    /// Answers that wait for seats.
    pub fn queued(&self) -> u32 {
        self.queued.load(Ordering::Acquire)
    }

    /// The most that may wait.
    pub fn queue_limit(&self) -> u32 {
        self.queue_limit
    }

    /// All seats, free or not.
    pub fn seats(&self) -> u32 {
        self.seats
    }

    /// Sees every change of these numbers.
    pub fn watch(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Tells the watchers that something changed.
    pub fn touch(&self) {
        self.changed.send_replace(());
    }

    /// Why nobody more may wait.
    pub fn full(&self) -> Failure {
        let queued = self.queued();
        let mean = self.mean_ms.load(Ordering::Relaxed);
        Failure {
            queue_depth: queued,
            retry_after_ms: retry_after_ms(mean, queued, self.seats),
            ..Failure::new(
                Reason::QueueFull,
                format!("all {} seats are taken, and {queued} answers wait for one already", self.seats),
            )
        }
    }

    fn queue(&self) -> Result<Place<'_>, Failure> {
        let free = |queued| (queued < self.queue_limit).then_some(queued + 1);
        match self.queued.fetch_update(Ordering::AcqRel, Ordering::Acquire, free) {
            Ok(_) => {
                self.touch();
                Ok(Place(self))
            }
            Err(_) => Err(self.full()),
        }
    }

    fn seated(self: &Arc<Self>, permit: OwnedSemaphorePermit) -> Seats {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.touch();
        Seats {
            admission: Arc::clone(self),
            permit: Some(permit),
            since: Instant::now(),
        }
    }
}

impl Drop for Seats {
    fn drop(&mut self) {
        let held = u32::try_from(self.since.elapsed().as_millis()).unwrap_or(u32::MAX);
        let mean = self.admission.mean_ms.load(Ordering::Relaxed);
        let mean = if mean == 0 { held } else { mean - mean / 8 + held / 8 }; // two at once may lose one: it is a mean
        self.admission.mean_ms.store(mean, Ordering::Relaxed);
        self.admission.busy.fetch_sub(1, Ordering::AcqRel);
        self.permit = None; // before the watchers look
        self.admission.touch();
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.queued.fetch_sub(1, Ordering::AcqRel);
        self.0.touch();
    }
}

/// When those who wait will have begun, as things go.
fn retry_after_ms(mean_ms: u32, queued: u32, seats: u32) -> u32 {
    let wait = u64::from(mean_ms) * u64::from(queued + 1) / u64::from(seats.max(1));
    let wait = Duration::from_millis(wait).clamp(RETRY_LEAST, RETRY_MOST);
    u32::try_from(wait.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::{FutureExt as _, future::join_all};

    use super::*;

    #[tokio::test]
    async fn seats_then_the_queue_then_a_refusal_that_says_how_many_wait() {
        let admission = Admission::new(2, 1);
        let first = admission.admit(2).await.unwrap();
        let mut second = Box::pin(admission.admit(1));
        assert!(second.as_mut().now_or_never().is_none(), "it waits");
        let refused = admission.admit(1).await.unwrap_err();
        assert_eq!((refused.reason(), refused.queue_depth), (Reason::QueueFull, 1));
        assert!(refused.retry_after_ms >= 250);
        drop(first);
        let second = second.await.unwrap();
        assert_eq!((admission.busy(), admission.queued()), (1, 0));
        drop(second);
        assert_eq!(admission.busy(), 0);
    }

    #[tokio::test]
    async fn who_leaves_the_queue_makes_room_at_once() {
        let admission = Admission::new(1, 1);
        let held = admission.admit(1).await.unwrap();
        let mut waiting = Box::pin(admission.admit(1));
        assert!(waiting.as_mut().now_or_never().is_none());
        drop(waiting);
        assert_eq!(admission.queued(), 0);
        let mut next = Box::pin(admission.admit(1));
        assert!(next.as_mut().now_or_never().is_none(), "it waits, and is not refused");
        drop(held);
        next.await.unwrap();
    }

    #[tokio::test]
    async fn nothing_leaks_over_many_answers_of_many_widths() {
        let admission = Admission::new(8, 64);
        let answers = (0..60u32).map(|i| {
            let admission = &admission;
            async move {
                let seats = admission.admit(1 + i % 8).await.unwrap();
                tokio::task::yield_now().await;
                drop(seats);
            }
        });
        join_all(answers).await;
        assert_eq!((admission.busy(), admission.queued()), (0, 0));
        assert!(admission.admit(8).await.is_ok(), "all seats are there");
    }

    #[tokio::test]
    async fn more_choices_than_seats_are_refused_instead_of_waiting_for_ever() {
        let refused = Admission::new(2, 4).admit(3).await.unwrap_err();
        assert_eq!((refused.reason(), refused.param.as_str()), (Reason::InvalidRequest, "n"));
    }

    #[test]
    fn the_retry_hint_grows_with_the_queue_and_is_bounded() {
        assert_eq!(retry_after_ms(0, 0, 4), 250);
        assert_eq!(retry_after_ms(2000, 3, 4), 2000);
        assert_eq!(retry_after_ms(u32::MAX, 1000, 1), 30_000);
    }
}
