//! A conversation store that only remembers: the real one works on threads, for which a clock that jumps does not wait. What it
//! remembers outlives its deaths, as a database does.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::{Stream, stream};
use proto::v1::{
    ApiKey, BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse, ClaimAnswerRequest, ClaimAnswerResponse,
    Conversation, CreateConversationRequest, CreateKeyRequest, DeleteConversationRequest, DeleteConversationResponse, FindKeyRequest,
    FinishTurnsRequest, FinishTurnsResponse, GetAnswerRequest, GetConversationRequest, ListConversationsRequest, ListKeysRequest,
    ListMessagesRequest, ListOrphansRequest, ListRequestsRequest, ListRevocationsRequest, ListRevocationsResponse, LoggedRequest,
    NoteKeyUsesRequest, NoteKeyUsesResponse, RenameConversationRequest, RevokeKeyRequest, StoredAnswer, StoredMessage, TakeTicketRequest,
    TakeTicketResponse, conversation_service_server::ConversationService,
};
use tonic::{Request, Response, Status};

/// What it remembers.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    conversations: BTreeMap<String, Vec<StoredMessage>>,
    answers: BTreeMap<String, StoredAnswer>,
    /// Epochs that were claimed, and by whom.
    claims: BTreeMap<String, (u32, String)>,
    /// Answers whose turn was closed more than once, with another outcome.
    twice: Vec<String>,
}

impl Kept {
    /// Answers that were closed once more, and otherwise: a router's second delivery of the same turn is no harm.
    pub(crate) fn twice(&self) -> Vec<String> {
        self.twice.clone()
    }
}

/// The service over it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Store(pub(crate) Arc<Mutex<Kept>>);

type Listed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("nobody asks the simulated store for it"))
}

#[tonic::async_trait]
impl ConversationService for Store {
    type ListConversationsStream = Listed<Conversation>;
    type ListKeysStream = Listed<ApiKey>;
    type ListMessagesStream = Listed<StoredMessage>;
    type ListOrphansStream = Listed<StoredAnswer>;
    type ListRequestsStream = Listed<LoggedRequest>;

    async fn create_conversation(&self, _: Request<CreateConversationRequest>) -> Result<Response<Conversation>, Status> {
        let mut kept = self.0.lock().unwrap();
        let id = format!("conversation-{}", kept.conversations.len());
        kept.conversations.insert(id.clone(), Vec::new());
        Ok(Response::new(Conversation {
            id,
            ..Conversation::default()
        }))
    }

    async fn begin_turn(&self, request: Request<BeginTurnRequest>) -> Result<Response<BeginTurnResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        let messages = kept.conversations.get(&request.conversation_id);
        let messages = messages.ok_or_else(|| Status::not_found("no such conversation"))?;
        let before = messages.iter().filter(|message| message.stream_id != request.stream_id);
        let history = before.filter_map(|stored| stored.message.clone()).collect();
        kept.answers.entry(request.stream_id.clone()).or_insert_with(|| StoredAnswer {
            stream_id: request.stream_id,
            state: "running".to_owned(),
            epoch: 1,
            conversation_id: request.conversation_id,
            ..StoredAnswer::default()
        });
        Ok(Response::new(BeginTurnResponse { history }))
    }

    async fn finish_turns(&self, request: Request<FinishTurnsRequest>) -> Result<Response<FinishTurnsResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        let mut closed = 0;
        for turn in request.into_inner().turns {
            if kept.claims.get(&turn.stream_id).is_some_and(|(epoch, _)| turn.epoch < *epoch) {
                continue; // another router has taken the answer over
            }
            let known = kept.answers.get(&turn.stream_id).filter(|answer| answer.state != "running");
            if let Some(known) = known {
                if (&known.state, &known.message, &known.usage) != (&turn.state, &turn.message, &turn.usage) {
                    let was = (&known.state, &known.message, &known.usage);
                    let words = format!("{} was closed as {was:?} and then as {turn:?}", turn.stream_id);
                    kept.twice.push(words);
                }
                continue;
            }
            closed += 1;
            if let Some(messages) = kept.conversations.get_mut(&turn.conversation_id) {
                messages.push(StoredMessage {
                    message: turn.message.clone(),
                    stream_id: turn.stream_id.clone(),
                    state: turn.state.clone(),
                    ..StoredMessage::default()
                });
            }
            let answer = StoredAnswer {
                stream_id: turn.stream_id.clone(),
                state: turn.state,
                epoch: turn.epoch,
                message: turn.message,
                usage: turn.usage,
                finish_reason: turn.finish_reason,
                conversation_id: turn.conversation_id,
                ..StoredAnswer::default()
            };
            kept.answers.insert(turn.stream_id, answer);
        }
        Ok(Response::new(FinishTurnsResponse { closed }))
    }

    async fn claim_answer(&self, request: Request<ClaimAnswerRequest>) -> Result<Response<ClaimAnswerResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        let (epoch, owner) = kept.claims.entry(request.stream_id).or_insert_with(|| (1, String::new()));
        let next = request.epoch + 1;
        if *epoch < next {
            *epoch = next;
            owner.clone_from(&request.owner);
        }
        let won = *epoch == next && *owner == request.owner;
        Ok(Response::new(ClaimAnswerResponse { won, epoch: *epoch }))
    }

    async fn checkpoint(&self, _: Request<CheckpointRequest>) -> Result<Response<CheckpointResponse>, Status> {
        Ok(Response::new(CheckpointResponse::default()))
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<StoredAnswer>, Status> {
        let kept = self.0.lock().unwrap();
        let answer = kept.answers.get(&request.into_inner().stream_id).cloned();
        Ok(Response::new(answer.ok_or_else(|| Status::not_found("no such answer"))?))
    }

    async fn list_orphans(&self, _: Request<ListOrphansRequest>) -> Result<Response<Self::ListOrphansStream>, Status> {
        Ok(Response::new(Box::pin(stream::iter(Vec::new()))))
    }

    async fn list_requests(&self, _: Request<ListRequestsRequest>) -> Result<Response<Self::ListRequestsStream>, Status> {
        Ok(Response::new(Box::pin(stream::iter(Vec::new()))))
    }

    async fn list_messages(&self, request: Request<ListMessagesRequest>) -> Result<Response<Self::ListMessagesStream>, Status> {
        let kept = self.0.lock().unwrap();
        let messages = kept
            .conversations
            .get(&request.into_inner().conversation_id)
            .cloned()
            .unwrap_or_default();
        Ok(Response::new(Box::pin(stream::iter(messages.into_iter().map(Ok)))))
    }

    async fn create_key(&self, _: Request<CreateKeyRequest>) -> Result<Response<ApiKey>, Status> {
        not_here()
    }

    async fn list_keys(&self, _: Request<ListKeysRequest>) -> Result<Response<Self::ListKeysStream>, Status> {
        not_here()
    }

    async fn revoke_key(&self, _: Request<RevokeKeyRequest>) -> Result<Response<ApiKey>, Status> {
        not_here()
    }

    async fn find_key(&self, _: Request<FindKeyRequest>) -> Result<Response<ApiKey>, Status> {
        not_here()
    }

    async fn list_revocations(&self, _: Request<ListRevocationsRequest>) -> Result<Response<ListRevocationsResponse>, Status> {
        not_here()
    }

    async fn note_key_uses(&self, _: Request<NoteKeyUsesRequest>) -> Result<Response<NoteKeyUsesResponse>, Status> {
        not_here()
    }

    async fn take_ticket(&self, _: Request<TakeTicketRequest>) -> Result<Response<TakeTicketResponse>, Status> {
        not_here()
    }

    async fn get_conversation(&self, _: Request<GetConversationRequest>) -> Result<Response<Conversation>, Status> {
        not_here()
    }

    async fn list_conversations(&self, _: Request<ListConversationsRequest>) -> Result<Response<Self::ListConversationsStream>, Status> {
        not_here()
    }

    async fn rename_conversation(&self, _: Request<RenameConversationRequest>) -> Result<Response<Conversation>, Status> {
        not_here()
    }

    async fn delete_conversation(&self, _: Request<DeleteConversationRequest>) -> Result<Response<DeleteConversationResponse>, Status> {
        not_here()
    }
}
