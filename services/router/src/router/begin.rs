//! How an answer begins here: it is judged, named, put on the shelf, and brought to the store or the queue.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::trace;
use proto::v1::{ChatRequest, Entry, Failure, Reason};
use tracing::info_span;

use super::{FIRST_EPOCH, Router, end::ClosedBy, repeat};
use crate::{
    answer::{Answer, Origin, Shelved},
    request,
};

impl Router {
    /// Starts an answer, or finds the one that this is a repetition of.
    ///
    /// # Errors
    /// The request is wrong, or cannot be served now.
    pub(crate) fn start(self: &Arc<Self>, request: ChatRequest) -> Result<Arc<Answer>, Failure> {
        self.start_in(request, FIRST_EPOCH)
    }

    /// The same for an answer whose first writer is in this epoch.
    pub(super) fn start_in(self: &Arc<Self>, mut request: ChatRequest, epoch: u32) -> Result<Arc<Answer>, Failure> {
        request::check(&request)?;
        if let Some(answer) = self.repeated(&request)? {
            return Ok(answer);
        }
        if self.drain.is_draining() {
            return Err(Failure::new(Reason::Draining, "this router is stopping"));
        }
        let model = self.model_for(&request)?;
        let id = uuid::Uuid::now_v7();
        request::complete(&mut request, seed(id));
        if request.stream_id.is_empty() {
            request.stream_id = format!("ans_{}", id.simple());
        }
        let answer = Arc::new(self.answer(request, &model, epoch)?);
        if let Some(first) = self.shelve(&answer)? {
            repeat::same(&first, &answer.principal, &answer.fingerprint)?;
            return Ok(first);
        }
        let admitted = if answer.conversation_id.is_empty() {
            self.admit(&answer)
        } else {
            self.has_room(&answer).map(|_| {
                let (router, opened) = (Arc::clone(self), Arc::clone(&answer));
                self.drain.spawn(router.open_turn(opened));
            })
        };
        if let Err(failure) = admitted {
            answer.close(Entry::failed(failure.clone()));
            self.finish(&answer, ClosedBy::Refused);
            return Err(failure);
        }
        Ok(answer)
    }

    /// A new answer to this request.
    fn answer(&self, mut request: ChatRequest, model: &str, epoch: u32) -> Result<Answer, Failure> {
        model.clone_into(&mut request.model);
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let created_ms = i64::try_from(since_1970.as_millis()).unwrap_or(i64::MAX);
        self.answer_of(request, created_ms, epoch)
    }

    /// An answer that was started then, and whose writer is in this epoch.
    pub(super) fn answer_of(&self, mut request: ChatRequest, created_ms: i64, epoch: u32) -> Result<Answer, Failure> {
        let asked = Duration::from_millis(request.timeout_ms.into());
        let limit = self.settings.answer_limit;
        let span = info_span!("chat", stream_id = %request.stream_id, model = %request.model, request_id = %request.request_id);
        trace::continue_from(&span, &request.traceparent);
        let context = trace::context_of(&span);
        if !context.is_empty() {
            request.traceparent = context;
        }
        let origin = Origin {
            id: request.stream_id.as_str().into(),
            model: request.model.as_str().into(),
            limit: if asked.is_zero() { limit } else { asked.min(limit) },
            detach_grace: self.settings.detach_grace,
            created_ms,
            epoch,
            span,
        };
        Answer::new(origin, request).map_err(|error| Failure::new(Reason::Internal, error.to_string()))
    }

    /// Puts an answer on the shelf; one of that name that came first is returned.
    pub(super) fn shelve(&self, answer: &Arc<Answer>) -> Result<Option<Arc<Answer>>, Failure> {
        let mut answers = self.answers.lock();
        answers
            .insert(Arc::clone(&answer.id), Shelved(Arc::clone(answer)))
            .map_err(|full| Failure {
                retry_after_ms: 1000,
                ..Failure::new(Reason::QueueFull, full.to_string())
            })?;
        let there = answers
            .get(&answer.id)
            .filter(|there| !Arc::ptr_eq(&there.0, answer))
            .map(|there| Arc::clone(&there.0));
        drop(answers);
        self.pulse.status_changed();
        Ok(there)
    }
}

/// A seed from the random bits of a name.
fn seed(id: uuid::Uuid) -> u64 {
    id.as_u64_pair().1
}
