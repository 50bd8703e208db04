//! A reader's presence at an answer: a guard, so that an answer knows when its last reader has gone.

use std::sync::Arc;

use crate::{
    answer::{Answer, Left},
    mailbox::Mailbox,
    router::Router,
};

/// Somebody reads an answer. Dropped, the reader has gone and the answer's policy decides.
pub(crate) struct Reading {
    router: Arc<Router>,
    answer: Arc<Answer>,
    mailbox: Arc<Mailbox>,
    call: u32,
    left: Left,
}

impl Reading {
    /// A reader comes. `mailbox` gets `call` once the head is known.
    pub(crate) fn new(router: &Arc<Router>, answer: Arc<Answer>, mailbox: &Arc<Mailbox>, call: u32) -> Self {
        answer.enter(mailbox, call);
        Self {
            router: Arc::clone(router),
            answer,
            mailbox: Arc::clone(mailbox),
            call,
            left: Left::Gone,
        }
    }

    /// The answer.
    pub(crate) fn answer(&self) -> &Arc<Answer> {
        &self.answer
    }

    /// The reader goes, in this way.
    pub(crate) fn leave(mut self, left: Left) {
        self.left = left;
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.router.left(&self.answer, &self.mailbox, self.call, self.left);
    }
}
