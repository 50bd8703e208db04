//! How an answer ends here: it is cancelled, fails, or its worker has closed its journal; and what is left to do then, once.

use std::sync::Arc;

use chassis::trace;
use proto::v1::{Entry, Failure, Reason};

use super::Router;
use crate::{
    answer::{Answer, end::Ending, millis},
    worker::Outcome,
};

/// Who closed a journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ClosedBy {
    /// The worker: its call has ended.
    Worker,
    /// The router: the worker must be told.
    Router,
    /// The router, as it turns the request away: whoever asked is told by that.
    Refused,
}

impl Router {
    /// Somebody ends an answer, whosever it is now. Says whether it ran until then.
    pub(crate) fn cancel(&self, answer: &Arc<Answer>) -> bool {
        if answer.journal.is_closed() {
            return false;
        }
        if !answer.is_owned()
            && let Some(worker) = answer.worker()
        {
            self.drain.spawn(worker.abort(&answer.id));
        }
        answer.close(Entry::cancelled(answer.usage()));
        self.finish(answer, ClosedBy::Router);
        true
    }

    /// Ends an answer with a failure.
    pub(super) fn fail(&self, answer: &Arc<Answer>, failure: Failure) {
        let usage = answer.head().map(|_| answer.usage());
        answer.close(Entry::failed(Failure { usage, ..failure }));
        self.finish(answer, ClosedBy::Router);
    }

    /// Does once what is left to do when a journal is closed.
    pub(super) fn finish(&self, answer: &Arc<Answer>, by: ClosedBy) {
        let Some(mut ending) = answer.end() else { return };
        match (ending.call.take(), by) {
            (Some(call), ClosedBy::Worker) if answer.finish_word() == Reason::Internal.as_word() => call.ended(Outcome::Failed),
            (Some(call), ClosedBy::Worker) => call.ended(Outcome::Served),
            (Some(call), ClosedBy::Router | ClosedBy::Refused) => drop(call), // which cancels it
            (None, _) => drop(self.queue.lock().remove(|_, waiting| Arc::ptr_eq(waiting, answer))),
        }
        // One that was refused has left nothing to read, and may be tried again under its name; one that is another router's is read there.
        let refused = !ending.began && answer.journal.len() == 1 && answer.state_word() == "failed";
        let moved = answer.finish_word() == Reason::Moved.as_word();
        if answer.is_owned() {
            self.store_turn(answer, &ending, by);
        }
        let expired = if refused || moved {
            self.answers.lock().remove(&answer.id);
            Vec::new()
        } else {
            self.answers.lock().finish(&answer.id, std::time::Instant::now())
        };
        self.expire(expired);
        log(answer, &ending);
        self.pulse.status_changed();
    }
}

/// One line for each answer, and never a word of it.
fn log(answer: &Answer, ending: &Ending) {
    let usage = answer.final_usage();
    let _inside = ending.span.enter();
    tracing::info!(
        stream_id = %answer.id,
        request_id = %answer.request_id,
        trace_id = %trace::id_of(&ending.span),
        model = %answer.claim.model,
        worker = %ending.worker,
        epoch = ending.epoch,
        state = answer.state_word(),
        finish_reason = answer.finish_word(),
        prompt_tokens = usage.prompt_tokens,
        completion_tokens = usage.completion_tokens,
        ttft_ms = answer.first_ms(),
        duration_ms = millis(answer.started().elapsed()),
        "answered"
    );
}
