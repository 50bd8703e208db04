//! A request that may have been made before under the same name. With an idempotency key, who asks again reads the answer to the
//! first request: whether it runs or has ended, and also if the router that carried it is gone.
//!
//! Two gateways that do not see the same routers bring one key to two of them at once. So a router begins such an answer only after the store
//! has given it to this one ([`Router::claim_beginning`]), and keeps the claim for as long as the answer runs ([`super::save`]). Without the
//! store it begins all the same: one death at a time is what the mesh promises to survive.

use std::sync::Arc;

use proto::v1::{ChatRequest, ClaimAnswerRequest, Failure, Principal, Reason};

use super::{FIRST_EPOCH, Router};
use crate::answer::{Answer, Shelved};

impl Router {
    /// Starts an answer, or finds the one that this is a repetition of: here, or at the worker that makes it.
    ///
    /// # Errors
    /// The request is wrong, or cannot be served now. Also if not every worker could be asked, or if another router is about to begin
    /// it: it must not be answered twice.
    pub(crate) async fn find_or_start(self: &Arc<Self>, request: ChatRequest) -> Result<Arc<Answer>, Failure> {
        if !self.may_be_elsewhere(&request) {
            return self.start(request);
        }
        let epoch = match self.ask(&request.stream_id).await? {
            Some(found) => {
                self.take_over(found, request.principal.as_ref()).await?;
                FIRST_EPOCH
            }
            None => self.claim_beginning(&request).await?,
        };
        self.start_in(request, epoch)
    }

    /// Asks the store whether this router may begin an answer that no worker has. Returns the epoch in which it does.
    ///
    /// # Errors
    /// It cannot be served now, another router is about to begin it, or it has ended and is not kept any more.
    async fn claim_beginning(&self, request: &ChatRequest) -> Result<u32, Failure> {
        let Some(store) = &self.store else { return Ok(FIRST_EPOCH) };
        self.model_for(request)?; // what is refused anyway must not keep others from it
        if let Ok(known) = store.get_answer(&request.stream_id, request.principal.as_ref()).await {
            let usage = known.usage.unwrap_or_default();
            let began = usage.prompt_tokens > 0 || usage.completion_tokens > 0; // else it was given up in a queue
            if known.state == "finished" || (known.state == "cancelled" && began) {
                return Err(not_kept());
            }
        }
        let claim = ClaimAnswerRequest {
            stream_id: request.stream_id.clone(),
            epoch: 0,
            owner: self.name.clone(),
        };
        match store.claim(claim).await {
            Ok(claimed) if claimed.won => Ok(claimed.epoch),
            Ok(_) => Err(Failure {
                retry_after_ms: 500,
                ..Failure::new(Reason::Unavailable, "another router is about to begin this answer")
            }),
            Err(failure) => {
                tracing::warn!(stream_id = request.stream_id, %failure, "the beginning of an answer could not be claimed in the store");
                Ok(FIRST_EPOCH)
            }
        }
    }

    /// Whether the answer may have been begun by a router that is gone, so that the workers must be asked. Only names that
    /// clients choose, by an idempotency key, come twice.
    pub(crate) fn may_be_elsewhere(&self, request: &ChatRequest) -> bool {
        let (name, owner) = (&request.stream_id, request.principal.as_ref());
        !request.fingerprint.is_empty() && !name.is_empty() && !self.holds(name) && !self.expired.lock().knows(name, owner)
    }

    /// The answer that was started under this name before.
    ///
    /// # Errors
    /// It is somebody else's, was something else, or is not kept any more.
    pub(super) fn repeated(&self, request: &ChatRequest) -> Result<Option<Arc<Answer>>, Failure> {
        if request.stream_id.is_empty() {
            return Ok(None);
        }
        if !self.holds(&request.stream_id) {
            self.refuse_expired(&request.stream_id, request.principal.as_ref())?;
            return Ok(None);
        }
        let answer = self.find(&request.stream_id, request.principal.as_ref())?;
        same(&answer, &answer.principal, &request.fingerprint)?;
        Ok(Some(answer))
    }

    /// These are not kept any more.
    pub(super) fn expire(&self, gone: Vec<Shelved>) {
        if gone.is_empty() {
            return;
        }
        let mut expired = self.expired.lock();
        for Shelved(answer) in gone {
            expired.remember(&answer.id, &answer.principal);
        }
    }

    /// # Errors
    /// [`Reason::Expired`]: the caller's answer of that name was here, and is not kept any more.
    pub(super) fn refuse_expired(&self, stream_id: &str, principal: Option<&Principal>) -> Result<(), Failure> {
        if !self.expired.lock().knows(stream_id, principal) {
            return Ok(());
        }
        Err(not_kept())
    }
}

fn not_kept() -> Failure {
    Failure {
        param: "stream_id".to_owned(),
        ..Failure::new(
            Reason::Expired,
            "this answer has ended, and is not kept any more (UNBROKEN_RETENTION)",
        )
    }
}

/// Judges a second request under the name of `first`.
///
/// # Errors
/// It is somebody else's, or asks for something else.
pub(super) fn same(first: &Answer, principal: &Principal, fingerprint: &[u8]) -> Result<(), Failure> {
    if first.principal == *principal && first.fingerprint == fingerprint {
        return Ok(());
    }
    Err(Failure {
        param: "fingerprint".to_owned(),
        ..Failure::new(Reason::Conflict, "this stream_id (or idempotency key) was used for another request")
    })
}
