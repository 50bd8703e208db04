//! A conversation store that only remembers: the real one works on threads, for which a clock that jumps does not wait. What it
//! remembers outlives its deaths, as a database does. It knows leases as the real one does: what is not saved in time is an orphan, but
//! for one lease after its start it knows of none.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, stream};
use proto::v1::{
    AddMessagesRequest, AddMessagesResponse, ApiKey, BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse,
    ClaimAnswerRequest, ClaimAnswerResponse, Conversation, CreateConversationRequest, CreateKeyRequest, DeleteConversationRequest,
    DeleteConversationResponse, DeleteMessageRequest, DeleteMessageResponse, DeleteRecordRequest, DeleteRecordResponse, Failure,
    FindKeyRequest, FinishTurnsRequest, FinishTurnsResponse, GetAnswerRequest, GetConversationRequest, GetMessageRequest, GetRecordRequest,
    ListConversationsRequest, ListKeysRequest, ListMessagesRequest, ListOrphansRequest, ListRecordsRequest, ListRequestsRequest,
    ListRevocationsRequest, ListRevocationsResponse, LoggedRequest, NoteKeyUsesRequest, NoteKeyUsesResponse, OpenRecordRequest,
    OpenRecordResponse, Principal, Reason, Record, RenameConversationRequest, RevokeKeyRequest, StoredAnswer, StoredMessage,
    TakeTicketRequest, TakeTicketResponse, UpdateConversationRequest, conversation_service_server::ConversationService,
};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

/// How long an answer counts as made after it was saved: the real store's default.
pub(crate) const LEASE: Duration = Duration::from_secs(15);

/// What it remembers.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    conversations: BTreeMap<String, Vec<StoredMessage>>,
    answers: BTreeMap<String, StoredAnswer>,
    /// When the leases of those that run began.
    leases: BTreeMap<String, Instant>,
    claims: BTreeMap<String, Claim>,
    /// Answers whose turn was closed more than once, with another outcome.
    twice: Vec<String>,
    /// When it was started last.
    born: Option<Instant>,
}

/// An epoch that was claimed.
#[derive(Debug)]
struct Claim {
    epoch: u32,
    owner: String,
    when: Instant,
}

impl Kept {
    /// It is started, once more.
    pub(crate) fn begin(&mut self) {
        self.born = Some(Instant::now());
    }

    fn knows_orphans(&self) -> bool {
        self.born.is_some_and(|born| born.elapsed() >= LEASE)
    }

    fn is_orphan(&self, answer: &StoredAnswer) -> bool {
        let lapsed = self.leases.get(&answer.stream_id).is_none_or(|since| since.elapsed() >= LEASE);
        answer.state == "running" && lapsed && self.knows_orphans()
    }

    fn epoch(&self, stream_id: &str) -> u32 {
        self.claims.get(stream_id).map_or(1, |claim| claim.epoch)
    }

    /// Takes the epoch after this one; 0: begins an answer.
    fn claim(&mut self, ClaimAnswerRequest { stream_id, epoch, owner }: ClaimAnswerRequest) -> ClaimAnswerResponse {
        let (now, may_lapse) = (Instant::now(), self.knows_orphans());
        let claim = self.claims.entry(stream_id).or_insert_with(|| Claim {
            epoch: 1,
            owner: if epoch == 0 { owner.clone() } else { String::new() },
            when: now,
        });
        let won = if epoch == 0 && claim.owner == owner {
            claim.when = now;
            true
        } else if epoch == 0 && may_lapse && claim.when.elapsed() >= LEASE {
            (claim.epoch, claim.when) = (claim.epoch + 1, now);
            claim.owner.clone_from(&owner);
            true
        } else if epoch > 0 && claim.epoch <= epoch {
            (claim.epoch, claim.when) = (epoch + 1, now);
            claim.owner.clone_from(&owner);
            true
        } else {
            epoch > 0 && claim.epoch == epoch + 1 && claim.owner == owner
        };
        ClaimAnswerResponse {
            won,
            epoch: claim.epoch,
            lease_ms: u32::try_from(LEASE.as_millis()).unwrap(),
        }
    }

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
    type ListRecordsStream = Listed<Record>;

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
        let stream_id = request.stream_id.clone();
        kept.answers.entry(request.stream_id.clone()).or_insert_with(|| StoredAnswer {
            stream_id: request.stream_id,
            state: "running".to_owned(),
            epoch: 1,
            conversation_id: request.conversation_id,
            principal: Some(Principal::default()),
            ..StoredAnswer::default()
        });
        kept.leases.insert(stream_id, Instant::now());
        Ok(Response::new(BeginTurnResponse { history }))
    }

    async fn finish_turns(&self, request: Request<FinishTurnsRequest>) -> Result<Response<FinishTurnsResponse>, Status> {
        let mut kept = self.0.lock().unwrap();
        let mut closed = 0;
        for turn in request.into_inner().turns {
            if turn.epoch < kept.epoch(&turn.stream_id) {
                continue; // another router has taken the answer over
            }
            let gives_way = |answer: &StoredAnswer| answer.state == "failed" && turn.state == "finished" && answer.epoch <= turn.epoch;
            let known = kept.answers.get(&turn.stream_id);
            let known = known.filter(|answer| answer.state != "running" && !gives_way(answer));
            if let Some(known) = known {
                if (&known.state, &known.message, &known.usage) != (&turn.state, &turn.message, &turn.usage) {
                    let was = (&known.state, &known.message, &known.usage);
                    let words = format!("{} was closed as {was:?} and then as {turn:?}", turn.stream_id);
                    kept.twice.push(words);
                }
                continue;
            }
            closed += 1;
            let saved = kept.answers.get(&turn.stream_id).and_then(|answer| answer.message.clone());
            let message = turn.message.or(saved); // one that was interrupted keeps what was saved of it
            if let Some(messages) = kept.conversations.get_mut(&turn.conversation_id) {
                messages.retain(|stored| stored.stream_id != turn.stream_id);
                messages.push(StoredMessage {
                    message: message.clone(),
                    stream_id: turn.stream_id.clone(),
                    state: turn.state.clone(),
                    ..StoredMessage::default()
                });
            }
            let answer = StoredAnswer {
                stream_id: turn.stream_id.clone(),
                state: turn.state,
                epoch: turn.epoch,
                message,
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
        Ok(Response::new(self.0.lock().unwrap().claim(request.into_inner())))
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Result<Response<CheckpointResponse>, Status> {
        let request = request.into_inner();
        let mut kept = self.0.lock().unwrap();
        if request.epoch < kept.epoch(&request.stream_id) {
            return Err(Failure::new(Reason::Conflict, "epoch has ended").into());
        }
        let position = request.position;
        let answer = kept.answers.get_mut(&request.stream_id);
        let answer = answer.ok_or_else(|| Status::from(Failure::new(Reason::NotFound, "no such answer")))?;
        if answer.state == "running" {
            (answer.epoch, answer.position, answer.message) = (request.epoch, position, request.message);
            if request.release {
                kept.leases.remove(&request.stream_id);
            } else {
                kept.leases.insert(request.stream_id, Instant::now());
            }
        }
        let lease_ms = u32::try_from(LEASE.as_millis()).unwrap();
        Ok(Response::new(CheckpointResponse { position, lease_ms }))
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<StoredAnswer>, Status> {
        let kept = self.0.lock().unwrap();
        let stream_id = request.into_inner().stream_id;
        let known = kept.answers.get(&stream_id).ok_or_else(|| Status::not_found("no such answer"))?;
        Ok(Response::new(StoredAnswer {
            orphan: kept.is_orphan(known),
            epoch: known.epoch.max(kept.epoch(&stream_id)),
            ..known.clone()
        }))
    }

    async fn list_orphans(&self, _: Request<ListOrphansRequest>) -> Result<Response<Self::ListOrphansStream>, Status> {
        let kept = self.0.lock().unwrap();
        let orphans: Vec<_> = kept
            .answers
            .values()
            .filter(|answer| kept.is_orphan(answer))
            .cloned()
            .map(Ok)
            .collect();
        Ok(Response::new(Box::pin(stream::iter(orphans))))
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

    async fn update_conversation(&self, _: Request<UpdateConversationRequest>) -> Result<Response<Conversation>, Status> {
        not_here()
    }

    async fn add_messages(&self, _: Request<AddMessagesRequest>) -> Result<Response<AddMessagesResponse>, Status> {
        not_here()
    }

    async fn get_message(&self, _: Request<GetMessageRequest>) -> Result<Response<StoredMessage>, Status> {
        not_here()
    }

    async fn delete_message(&self, _: Request<DeleteMessageRequest>) -> Result<Response<DeleteMessageResponse>, Status> {
        not_here()
    }

    async fn open_record(&self, _: Request<OpenRecordRequest>) -> Result<Response<OpenRecordResponse>, Status> {
        not_here()
    }

    async fn get_record(&self, _: Request<GetRecordRequest>) -> Result<Response<Record>, Status> {
        not_here()
    }

    async fn list_records(&self, _: Request<ListRecordsRequest>) -> Result<Response<Self::ListRecordsStream>, Status> {
        not_here()
    }

    async fn delete_record(&self, _: Request<DeleteRecordRequest>) -> Result<Response<DeleteRecordResponse>, Status> {
        not_here()
    }
}
