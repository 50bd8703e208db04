//! Answers that are left: by their readers, or by this router because another one carries them.

use std::sync::Arc;

use proto::v1::{Failure, Reason};

use super::Router;
use crate::{
    answer::{Answer, Left},
    mailbox::Mailbox,
};

impl Router {
    /// A reader has gone.
    pub(crate) fn left(&self, answer: &Arc<Answer>, mailbox: &Arc<Mailbox>, call: u32, left: Left) {
        if answer.leave(mailbox, call, left, self.settings.gateway_grace) {
            self.give_up(answer);
        }
    }

    /// Nobody reads an answer here any more. That ends it, unless another router has it.
    pub(super) fn give_up(&self, answer: &Arc<Answer>) {
        if answer.is_owned() {
            self.cancel(answer);
        } else {
            self.let_go(answer);
        }
    }

    /// Another router has taken an answer over.
    pub(super) fn disowned(&self, answer: &Arc<Answer>) {
        tracing::info!(stream_id = %answer.id, "another router carries the answer now");
        if !answer.disown() {
            self.let_go(answer);
        }
    }

    /// Leaves an answer to the router that owns it; whoever reads it here is sent there.
    pub(super) fn let_go(&self, answer: &Arc<Answer>) {
        answer.disown();
        self.fail(answer, Failure::new(Reason::Moved, "another router carries this answer now"));
    }
}
