//! Telling readers that an answer's head is known. Entries wake readers through the journal; the head is not an entry, so it has
//! a way of its own: each reader's stream has a mailbox, and the answer drops the number of the call into it.

use std::{
    collections::VecDeque,
    sync::Arc,
    task::{Context, Waker},
};

use parking_lot::Mutex;

/// Calls that have news, for the one stream that they belong to.
#[derive(Debug, Default)]
pub(crate) struct Mailbox {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    calls: VecDeque<u32>,
    waker: Option<Waker>,
}

impl Mailbox {
    /// The next call that has news. The task is woken when there is one.
    pub(crate) fn poll(&self, context: &Context<'_>) -> Option<u32> {
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
            inner.calls.push_back(call);
            inner.waker.take()
        };
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// The mailboxes that wait for one answer's head.
#[derive(Debug, Default)]
pub(crate) struct Mailboxes(Vec<(Arc<Mailbox>, u32)>);

impl Mailboxes {
    pub(crate) fn add(&mut self, mailbox: &Arc<Mailbox>, call: u32) {
        self.0.push((Arc::clone(mailbox), call));
    }

    pub(crate) fn remove(&mut self, mailbox: &Arc<Mailbox>, call: u32) {
        self.0.retain(|(known, of)| !(Arc::ptr_eq(known, mailbox) && *of == call));
    }

    /// Tells all, once.
    pub(crate) fn ring(&mut self) {
        for (mailbox, call) in std::mem::take(&mut self.0) {
            mailbox.put(call);
        }
    }
}
