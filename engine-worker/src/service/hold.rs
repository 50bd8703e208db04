//! Whose an answer is. The call that started it answers for it, until a call of another router takes it over: the first is told
//! then, reads on if it likes, and can end nothing any more.
//!
//! Holds are kept by [`Record`](super::answers::Record); an exchange asks its [`Notices`] which of its calls have lost theirs.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Waker},
};

use parking_lot::Mutex;

/// The calls of one exchange that have lost their answers to another router, and have not been told.
#[derive(Debug, Default)]
pub(super) struct Notices {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<u32>,
    waker: Option<Waker>,
}

impl Notices {
    /// The next call to tell. The task is woken when there is one.
    pub(super) fn poll(&self, context: &Context<'_>) -> Option<u32> {
        let mut inner = self.inner.lock();
        let call = inner.calls.pop_front();
        if call.is_none() {
            match &mut inner.waker {
                Some(waker) => waker.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        call
    }

    fn put(&self, call: u32) {
        let waker = {
            let mut inner = self.inner.lock();
            inner.calls.push_back(call); // each call loses its hold once, so there are no more than there are calls
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// A call's hold on the answer that it reads.
#[derive(Debug)]
pub(super) struct Hold {
    notices: Arc<Notices>,
    call: u32,
    lost: AtomicBool,
}

impl Hold {
    pub(super) fn new(notices: &Arc<Notices>, call: u32) -> Arc<Self> {
        Arc::new(Self {
            notices: Arc::clone(notices),
            call,
            lost: AtomicBool::new(false),
        })
    }

    /// Whether another router has taken the answer over.
    pub(super) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Another router has.
    pub(super) fn lose(&self) {
        if !self.lost.swap(true, Ordering::AcqRel) {
            self.notices.put(self.call);
        }
    }
}
