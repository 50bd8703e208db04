//! Saving answers while they run, so that what was said is not lost with both copies of a journal: one task for all, never on the way
//! of a token, and not at all while the store is away. The same task keeps the claims of answers whose names clients chose
//! ([`super::repeat`]).

use std::{sync::Arc, time::Duration};

use futures_util::{StreamExt as _, stream};
use proto::v1::{ClaimAnswerRequest, Reason};
use tokio::time::{Instant, sleep};

use super::Router;
use crate::{answer::Answer, store::Store};

/// How often it is looked what there is to save.
const EVERY: Duration = Duration::from_secs(1);
/// Checkpoints at once.
const AT_ONCE: usize = 8;

impl Router {
    /// Saves until draining has begun and no answer runs.
    pub(super) async fn keep_saving(self: Arc<Self>, store: Arc<Store>) {
        loop {
            tokio::select! {
                () = self.over.cancelled() => return,
                () = sleep(EVERY) => {}
            }
            if !store.is_up() {
                continue;
            }
            let now = Instant::now();
            let mut running = self.running();
            running.retain(|answer| answer.is_owned());
            let keyed: Vec<_> = running.iter().filter(|answer| answer.is_claim_due(now)).cloned().collect();
            let claimed = stream::iter(keyed).for_each_concurrent(AT_ONCE, |answer| self.keep_claim(&store, answer));
            tokio::select! {
                () = self.over.cancelled() => return,
                () = claimed => {}
            }
            running.retain(|answer| answer.is_unsaved(now));
            let saved = stream::iter(running).for_each_concurrent(AT_ONCE, |answer| self.save(&store, answer));
            tokio::select! {
                () = self.over.cancelled() => return,
                () = saved => {}
            }
        }
    }

    /// Claims the beginning of an answer again, so that no other router begins it too.
    async fn keep_claim(&self, store: &Store, answer: Arc<Answer>) {
        let claim = ClaimAnswerRequest {
            stream_id: answer.id.to_string(),
            epoch: 0,
            owner: self.name.clone(),
        };
        match store.claim(claim).await {
            Ok(claimed) if claimed.won => answer.claim_kept(claimed.lease_ms, Instant::now()),
            Ok(_) => self.let_go(&answer),
            Err(failure) => tracing::debug!(stream_id = %answer.id, %failure, "the claim could not be kept"),
        }
    }

    async fn save(&self, store: &Store, answer: Arc<Answer>) {
        // What nobody reads here need not wait until this router has gone: another may have it now.
        let release = self.drain.is_draining() && !answer.is_read();
        let Some(checkpoint) = answer.checkpoint(release, Instant::now()) else {
            return;
        };
        match Box::pin(store.checkpoint(checkpoint)).await {
            Ok(response) => answer.saved(response),
            Err(failure) if failure.reason() == Reason::Conflict && answer.not_saved() => self.disowned(&answer),
            Err(failure) => tracing::debug!(stream_id = %answer.id, %failure, "the answer could not be saved"),
        }
    }
}
