//! Work whose time nobody can foresee, bounded: a grammar that a user sends may take llama.cpp for ever, and cannot be interrupted there.
//!
//! It runs on a thread of its own, with a large stack. What is not done in time is given up: the thread goes on alone, and once a few such
//! are left behind nothing new is begun until they end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{RecvTimeoutError, sync_channel},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use proto::v1::{Failure, Reason};

/// How long it may take: a usual schema takes milliseconds.
const LIMIT: Duration = Duration::from_secs(5);
/// llama.cpp's parsers recurse. Only what is used of it is taken.
const STACK: usize = 64 * 1024 * 1024;
/// Threads that may be left behind.
const OVERDUE: usize = 2;

/// What becomes of one piece of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Open,
    Done,
    GivenUp,
}

/// Counts the threads that were left behind.
#[derive(Clone, Debug, Default)]
pub(super) struct Watch {
    overdue: Arc<AtomicUsize>,
}

impl Watch {
    /// Does `work` within the limit. `field` is what the request is told of.
    ///
    /// # Errors
    /// What `work` says, or that it took too long, or that too much of that kind goes on already.
    pub(super) fn within<T: Send + 'static>(
        &self,
        field: &str,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        self.within_limit(LIMIT, field, work)
    }

    fn within_limit<T: Send + 'static>(
        &self,
        limit: Duration,
        field: &str,
        work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
    ) -> Result<T, Failure> {
        let limited = |message: &str| Failure {
            param: field.to_owned(),
            ..Failure::new(Reason::Limit, message)
        };
        if self.overdue.load(Ordering::Relaxed) >= OVERDUE {
            return Err(limited("schemas that take too long keep the engine busy; it takes no other now"));
        }
        let (done, result) = sync_channel(1);
        let fate = Arc::new(Mutex::new(Fate::Open));
        let (overdue, own) = (Arc::clone(&self.overdue), Arc::clone(&fate));
        let thread = thread::Builder::new().name("grammar".to_owned()).stack_size(STACK);
        let spawned = thread.spawn(move || {
            let result = work();
            let mut fate = own.lock();
            if *fate == Fate::GivenUp {
                overdue.fetch_sub(1, Ordering::Relaxed);
            } else {
                *fate = Fate::Done;
                let _ = done.send(result);
            }
        });
        if let Err(error) = spawned {
            return Err(Failure::new(Reason::Internal, format!("no thread for a grammar: {error}")));
        }
        let failed = || Failure::new(Reason::Internal, "the engine failed at this grammar");
        match result.recv_timeout(limit) {
            Ok(result) => result,
            Err(RecvTimeoutError::Disconnected) => Err(failed()),
            Err(RecvTimeoutError::Timeout) => {
                let mut fate = fate.lock();
                if *fate == Fate::Done {
                    return result.recv().unwrap_or_else(|_| Err(failed())); // in the same moment
                }
                *fate = Fate::GivenUp;
                self.overdue.fetch_add(1, Ordering::Relaxed);
                Err(limited("it takes too long to compile; a simpler schema or grammar is needed"))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_in_time_is_told() {
        let watch = Watch::default();
        assert_eq!(watch.within("f", || Ok(7)).unwrap(), 7);
        let failure = watch.within("f", || Err::<(), _>(Failure::invalid("g", "no"))).unwrap_err();
        assert_eq!(failure.param, "g");
    }

    #[test]
    fn what_takes_for_ever_is_given_up_and_little_of_it_is_left_behind() {
        let watch = Watch::default();
        let stuck: Vec<_> = (0..OVERDUE)
            .map(|_| {
                let (release, stuck) = sync_channel::<()>(1);
                let work = move || {
                    let _ = stuck.recv();
                    Ok(())
                };
                let failure = watch.within_limit(Duration::from_millis(1), "tools", work).unwrap_err();
                assert_eq!((failure.reason(), failure.param.as_str()), (Reason::Limit, "tools"));
                release
            })
            .collect();
        assert_eq!(watch.within("f", || Ok(())).unwrap_err().reason(), Reason::Limit, "no more of them");
        drop(stuck);
        while watch.within("f", || Ok(())).is_err() {
            thread::yield_now(); // until both have ended
        }
    }
}
