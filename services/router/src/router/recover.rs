//! Answers that lost both copies of their journal, or whose router is gone and nobody has asked for them since: the store still counts
//! them as running, and their lease is over.
//!
//! Some worker may make one all the same, or have made it to its end: then it is taken over and its turn is stored. Else a background answer
//! goes on from what was saved, at the router that the claim of the next epoch decides for. Any other has been interrupted, and is stored as
//! that, with the text that was saved. This is a guess: the router that carries it may only have been kept from the store for a lease. So no
//! epoch is claimed for it, which would shut that router out, and the store lets the whole answer take the guess's place.

use std::{sync::Arc, time::Duration};

use proto::v1::{ClaimAnswerRequest, DisconnectPolicy, Failure, FinishedTurn, Head, Principal, Reason, StoredAnswer, Usage};
use tokio::time::{Instant, sleep};

use super::Router;
use crate::store::Store;

/// How often the store is asked for orphans.
const EVERY: Duration = Duration::from_secs(2);
/// Orphans that are looked at in one turn.
const ORPHANS: u32 = 100;

impl Router {
    /// Looks for orphans for ever.
    pub(super) async fn keep_recovering(self: Arc<Self>, store: Arc<Store>) {
        loop {
            sleep(EVERY).await;
            if !store.is_up() {
                continue;
            }
            match store.list_orphans(ORPHANS).await {
                Ok(orphans) => {
                    for orphan in orphans {
                        if let Err(failure) = self.recover(&store, &orphan.stream_id, orphan.principal.as_ref()).await {
                            tracing::debug!(stream_id = orphan.stream_id, %failure, "an orphan has to wait");
                        }
                    }
                }
                Err(failure) => tracing::debug!(%failure, "the store does not tell its orphans"),
            }
        }
    }

    /// Sees to an answer that neither this router nor, as far as is known, any worker has.
    ///
    /// # Errors
    /// What became of it, or that it is not known yet; `Ok` if it is here now, or if the store does not know it either.
    pub(super) async fn recall(self: &Arc<Self>, stream_id: &str, principal: Option<&Principal>) -> Result<(), Failure> {
        let Some(store) = &self.store else { return Ok(()) };
        let Ok(known) = store.get_answer(stream_id, principal).await else {
            return Ok(());
        };
        match (known.state.as_str(), known.finish_reason.as_str()) {
            ("running", _) if known.orphan => self.see_to(store, known, principal).await,
            ("running", _) => Err(Failure {
                retry_after_ms: 1000,
                ..Failure::new(Reason::Unavailable, "the answer runs, but nobody here knows where")
            }),
            ("failed", "interrupted") => Err(interrupted()),
            _ => Err(Failure {
                param: "stream_id".to_owned(),
                ..Failure::new(Reason::Expired, "the answer has ended, and its entries are not kept any more")
            }),
        }
    }

    async fn recover(self: &Arc<Self>, store: &Store, stream_id: &str, principal: Option<&Principal>) -> Result<(), Failure> {
        if self.holds(stream_id) {
            return Ok(());
        }
        if let Some(mut found) = self.ask(stream_id).await? {
            // Whoever still reads it elsewhere may do so to its end.
            if let Some(request) = &mut found.request {
                request.disconnect = DisconnectPolicy::Background.into();
            }
            return self.take_over(found, principal).await;
        }
        let known = store.get_answer(stream_id, principal).await?;
        if known.orphan {
            self.see_to(store, known, principal).await?;
        }
        Ok(())
    }

    /// Claims an orphan that no worker has and goes on with it, or says that it was interrupted.
    async fn see_to(self: &Arc<Self>, store: &Store, known: StoredAnswer, principal: Option<&Principal>) -> Result<(), Failure> {
        if known.request.is_none() {
            tracing::warn!(stream_id = known.stream_id, "both copies of an answer were lost");
            if let Some(outbox) = &self.outbox {
                outbox.push(interrupted_turn(known, principal));
            }
            return Err(interrupted());
        }
        if !self.workers.serves(&known.model, !known.entries.is_empty()) {
            return Err(Failure {
                retry_after_ms: 1000,
                ..Failure::new(Reason::Unavailable, "no worker can go on with this answer now")
            });
        }
        let claim = ClaimAnswerRequest {
            stream_id: known.stream_id.clone(),
            epoch: known.epoch,
            owner: self.name.clone(),
        };
        let claimed = store.claim(claim).await?;
        if !claimed.won {
            return Err(Failure::new(Reason::Unavailable, "another router sees to this answer"));
        }
        self.go_on_from(known, claimed.epoch)
    }

    /// Goes on with a background answer from what was saved of it.
    fn go_on_from(self: &Arc<Self>, known: StoredAnswer, epoch: u32) -> Result<(), Failure> {
        let request = known.request.unwrap_or_default();
        let answer = Arc::new(self.answer_of(request, known.created_ms, epoch)?);
        answer.inherit_turn();
        let position = u32::try_from(known.entries.len()).unwrap_or(u32::MAX);
        answer.feed(&answer.writer(), 0, known.entries, Instant::now());
        if position > 0 {
            // Its readers need not wait for the worker that goes on.
            answer.set_head(&Head {
                epoch,
                prompt_tokens: known.usage.map_or(0, |usage| usage.prompt_tokens),
                ..Head::default()
            });
        }
        if self.shelve(&answer)?.is_none() {
            tracing::info!(stream_id = %answer.id, position, epoch, "a background answer goes on from what was saved");
            self.wait_again(&answer);
        }
        Ok(())
    }
}

fn interrupted() -> Failure {
    Failure::new(
        Reason::Interrupted,
        "the worker and the router of this answer were lost together; what was saved of it is in its conversation",
    )
}

/// The end of an answer of which nothing is left but what was saved: it keeps that. In the last epoch that is known, so that it is not taken
/// if a router has gone on with the answer meanwhile.
fn interrupted_turn(known: StoredAnswer, principal: Option<&Principal>) -> FinishedTurn {
    FinishedTurn {
        principal: principal.cloned(),
        stream_id: known.stream_id,
        conversation_id: known.conversation_id,
        message: None,
        state: "failed".to_owned(),
        finish_reason: Reason::Interrupted.as_word().to_owned(),
        model: known.model,
        usage: Some(Usage {
            completion_tokens: known.position, // an entry is a token but for a few
            ..Usage::default()
        }),
        started_ms: known.created_ms,
        epoch: known.epoch,
        ..FinishedTurn::default()
    }
}
