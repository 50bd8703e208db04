//! The store's part in an answer: its history before, its turn after, and the epoch when it moves.

use std::{sync::Arc, time::Duration};

use proto::v1::{BeginTurnRequest, ChatRequest, ClaimAnswerRequest, Entry, Failure, Message, Reason};
use tokio::time::sleep;

use super::{Router, end::ClosedBy};
use crate::{
    answer::{Answer, Policy, Turn, end::Ending, millis},
    request::{self, MAX_TEXT_BYTES},
    store::turn::{self, Ended},
};

/// How long to wait before an epoch is claimed again that the store did not grant or refuse.
const CLAIM_AGAIN: Duration = Duration::from_secs(1);
/// How often that is tried: as long as finished turns wait for a store.
const CLAIMS: u32 = 600;

/// An epoch that this router writes in.
pub(super) enum Claimed {
    /// The store has given it.
    Now(u32),
    /// The store could not be asked; this is to be claimed when it can.
    Later(u32, ClaimAnswerRequest),
}

impl Router {
    /// Opens the turn of an answer that belongs to a conversation, then waits for its turn in the queue.
    pub(super) async fn open_turn(self: Arc<Self>, answer: Arc<Answer>) {
        let Some(request) = answer.request() else { return };
        let opened = self.history(&answer, &request).await;
        let ended = answer.turn_opened(opened.is_ok());
        let admitted = opened.and_then(|history| {
            if history.is_empty() && request.messages.is_empty() {
                return Err(Failure::invalid(
                    "messages",
                    "there is nothing to answer: messages (or prompt) must not be empty in a conversation that is",
                ));
            }
            if !(history.is_empty() && request.instructions.is_empty()) {
                let mut request = (*request).clone();
                let new = std::mem::take(&mut request.messages);
                request.messages = before(history, new);
                request::instruct(&mut request);
                answer.set_request(request);
            }
            Ok(())
        });
        if ended && !answer.is_owned() {
            return; // another router has it, and closes its turn
        }
        if ended {
            let nobody = Ended {
                worker: "",
                epoch: answer.given(),
                duration_ms: millis(answer.started().elapsed()),
            };
            self.send_turn(&answer, nobody);
        } else if let Err(failure) = admitted.and_then(|()| self.admit(&answer)) {
            answer.close(Entry::failed(failure));
            self.finish(&answer, ClosedBy::Router);
        }
    }

    async fn history(&self, answer: &Answer, request: &ChatRequest) -> Result<Vec<Message>, Failure> {
        let begun = match &self.store {
            Some(store) => {
                let turn = BeginTurnRequest {
                    principal: Some(answer.principal.clone()),
                    conversation_id: answer.conversation_id.clone(),
                    stream_id: answer.id.to_string(),
                    messages: request.messages.clone(),
                    model: request.model.clone(),
                };
                if let Some(outbox) = &self.outbox {
                    outbox.settled(&answer.conversation_id).await;
                }
                store.begin_turn(turn).await.map(|response| response.history)
            }
            None => Err(Failure::new(
                Reason::StoreUnavailable,
                "this router has no conversation store (UNBROKEN_STORE)",
            )),
        };
        match begun {
            Err(failure) if failure.reason() == Reason::StoreUnavailable && request.history_optional => Ok(Vec::new()),
            begun => begun,
        }
    }

    /// The store hears of an answer that has ended. Of one that never began and has no turn there is nothing to store, but its gateway may
    /// wait for the log to say what it took.
    pub(super) fn store_turn(&self, answer: &Answer, ending: &Ending, by: ClosedBy) {
        if ending.turn == Turn::Opening {
            return; // whoever opens it also closes it, so that the store hears of them in order
        }
        if !ending.began && ending.turn == Turn::None {
            let told = ending.read || by == ClosedBy::Refused; // whoever asked hears of it, and logs it
            let goes_on = answer.policy == Policy::Background && answer.state_word() == "failed"; // from the store, when it is an orphan
            if told || goes_on {
                return;
            }
        }
        let ended = Ended {
            worker: &ending.worker,
            epoch: ending.given,
            duration_ms: millis(answer.started().elapsed()),
        };
        self.send_turn(answer, ended);
    }

    /// The answer may have ended while its next epoch was being claimed. Its turn bore the epoch before then, in which the store takes
    /// nothing any more.
    fn store_again(&self, answer: &Answer) {
        if !answer.journal.is_closed() || !answer.is_owned() || answer.head().is_none() {
            return;
        }
        let ended = Ended {
            worker: &answer.summary().worker,
            epoch: answer.given(),
            duration_ms: millis(answer.started().elapsed()),
        };
        self.send_turn(answer, ended);
    }

    fn send_turn(&self, answer: &Answer, ended: Ended<'_>) {
        if let Some(outbox) = &self.outbox {
            outbox.push(turn::of(answer, ended));
        }
    }

    /// Takes the next epoch of an answer whose worker is lost. With the store away the router goes on by itself: one death at a
    /// time is what the mesh promises to survive.
    ///
    /// # Errors
    /// Another router has taken it: [`Reason::Moved`].
    pub(super) async fn claim_next(self: &Arc<Self>, answer: &Arc<Answer>, epoch: u32) -> Result<u32, Failure> {
        let Some(store) = &self.store else { return Ok(epoch + 1) };
        let request = ClaimAnswerRequest {
            stream_id: answer.id.to_string(),
            epoch,
            owner: self.name.clone(),
        };
        match store.claim(request.clone()).await {
            Ok(claimed) if claimed.won => {
                answer.give(claimed.epoch);
                self.store_again(answer);
                Ok(claimed.epoch.max(epoch + 1))
            }
            Ok(_) => Err(Failure::new(Reason::Moved, "another router goes on with this answer")),
            Err(failure) => {
                tracing::warn!(stream_id = %answer.id, %failure, "the epoch could not be claimed in the store");
                self.claim_later(answer, request);
                Ok(epoch + 1)
            }
        }
    }

    /// Takes the epoch after this one of an answer that this router is about to adopt, before it does anything else: who carried it until now may be
    /// alive, and about to go on with it elsewhere. While the store is away nobody can tell, and it is this router's in the next epoch
    /// all the same; that is claimed later then.
    ///
    /// # Errors
    /// Another router has taken it.
    pub(super) async fn claim_to_adopt(&self, stream_id: &str, epoch: u32) -> Result<Claimed, Failure> {
        let request = ClaimAnswerRequest {
            stream_id: stream_id.to_owned(),
            epoch,
            owner: self.name.clone(),
        };
        let Some(store) = self.store.as_ref().filter(|store| store.is_up()) else {
            return Ok(Claimed::Later(epoch + 1, request));
        };
        match store.claim(request.clone()).await {
            Ok(claimed) if claimed.won => Ok(Claimed::Now(claimed.epoch.max(epoch + 1))),
            Ok(_) => Err(Failure {
                retry_after_ms: 100,
                ..Failure::new(Reason::Unavailable, "another router goes on with this answer")
            }),
            Err(failure) => {
                tracing::warn!(stream_id, %failure, "the epoch could not be claimed in the store");
                Ok(Claimed::Later(epoch + 1, request))
            }
        }
    }

    /// Claims until the store answers. It may have granted the first claim already, and only the way back was cut: then it takes
    /// the turn of no earlier epoch, and the answer must learn of its own.
    pub(super) fn claim_later(self: &Arc<Self>, answer: &Arc<Answer>, request: ClaimAnswerRequest) {
        let (router, answer) = (Arc::clone(self), Arc::clone(answer));
        self.drain.spawn(async move {
            let Some(store) = &router.store else { return };
            for _ in 0..CLAIMS {
                sleep(CLAIM_AGAIN).await;
                if let Ok(claimed) = store.claim(request.clone()).await {
                    if claimed.won {
                        answer.give(claimed.epoch);
                        router.store_again(&answer);
                    }
                    return;
                }
            }
        });
    }
}

/// The history before the new messages; the oldest are left out if all together would not fit into a message of the mesh.
fn before(mut history: Vec<Message>, new: Vec<Message>) -> Vec<Message> {
    let size = |message: &Message| {
        let calls: usize = message.tool_calls.iter().map(|call| call.arguments.len()).sum();
        let images: usize = message.images.iter().map(|image| image.data.len()).sum();
        message.text.len() + message.reasoning.len() + calls + images
    };
    let mut bytes: usize = history.iter().chain(&new).map(size).sum();
    let out = history.iter().take_while(|message| {
        let too_many = bytes > MAX_TEXT_BYTES;
        bytes = bytes.saturating_sub(if too_many { size(message) } else { 0 });
        too_many
    });
    let out = out.count();
    history.drain(..out);
    history.extend(new);
    history
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_messages_give_way_to_what_fits() {
        let message = |len: usize| Message {
            text: "x".repeat(len),
            ..Message::default()
        };
        let lens = |messages: &[Message]| messages.iter().map(|message| message.text.len()).collect::<Vec<_>>();
        assert_eq!(lens(&before(vec![message(1), message(2)], vec![message(3)])), [1, 2, 3]);
        let most = MAX_TEXT_BYTES;
        assert_eq!(lens(&before(vec![message(5), message(2)], vec![message(most - 2)])), [2, most - 2]);
        assert_eq!(lens(&before(vec![message(5)], vec![message(most + 1)])), [most + 1]);
    }
}
