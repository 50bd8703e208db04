//! A store that keeps what it is told in memory, counts it, and can be away.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{Arc, Mutex},
};

use futures_util::Stream;
use proto::v1::{
    AddMessagesRequest, AddMessagesResponse, ApiKey, BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse,
    ClaimAnswerRequest, ClaimAnswerResponse, Conversation, CreateConversationRequest, CreateKeyRequest, DeleteConversationRequest,
    DeleteConversationResponse, DeleteMessageRequest, DeleteMessageResponse, DeleteRecordRequest, DeleteRecordResponse, FindKeyRequest,
    FinishTurnsRequest, FinishTurnsResponse, FinishedTurn, GetAnswerRequest, GetConversationRequest, GetMessageRequest, GetRecordRequest,
    ListConversationsRequest, ListKeysRequest, ListMessagesRequest, ListOrphansRequest, ListRecordsRequest, ListRequestsRequest,
    ListRevocationsRequest, ListRevocationsResponse, LoggedRequest, Message, NoteKeyUsesRequest, NoteKeyUsesResponse, OpenRecordRequest,
    OpenRecordResponse, Record, RenameConversationRequest, RevokeKeyRequest, Role, StoredAnswer, StoredMessage, TakeTicketRequest,
    TakeTicketResponse, UpdateConversationRequest,
    conversation_service_server::{ConversationService, ConversationServiceServer},
};
use tokio::{net::TcpListener, runtime::Runtime, sync::watch};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

/// What the store holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Held {
    pub(crate) begun: Vec<BeginTurnRequest>,
    /// By the answer's name.
    pub(crate) finished: BTreeMap<String, FinishedTurn>,
    /// How often each was sent.
    pub(crate) sent: BTreeMap<String, u32>,
    /// The epochs that were claimed.
    pub(crate) claims: Vec<ClaimAnswerRequest>,
    /// Who was the first to claim the beginning of an answer.
    pub(crate) begun_by: BTreeMap<String, String>,
    /// What another router has claimed before.
    pub(crate) claimed_by_others: u32,
    pub(crate) checkpoints: Vec<CheckpointRequest>,
    /// What it knows of answers, by their names; the orphans among them are listed.
    pub(crate) answers: BTreeMap<String, StoredAnswer>,
}

pub(crate) struct FakeStore {
    pub(crate) address: String,
    held: Arc<watch::Sender<Held>>,
    runtime: Option<Runtime>,
    port: u16,
    /// Turns that are stored, and then the answer to the call is lost.
    forget: Arc<Mutex<u32>>,
}

impl FakeStore {
    pub(crate) fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut store = Self {
            address: format!("127.0.0.1:{port}"),
            held: Arc::new(watch::Sender::new(Held::default())),
            runtime: None,
            port,
            forget: Arc::default(),
        };
        store.serve(listener);
        store
    }

    fn serve(&mut self, listener: std::net::TcpListener) {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let service = Service {
            held: Arc::clone(&self.held),
            forget: Arc::clone(&self.forget),
        };
        listener.set_nonblocking(true).unwrap();
        runtime.spawn(async move {
            let (_, health) = tonic_health::server::health_reporter();
            Server::builder()
                .add_service(health)
                .add_service(ConversationServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(TcpListener::from_std(listener).unwrap()))
                .await
                .unwrap();
        });
        self.runtime = Some(runtime);
    }

    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // On a thread of its own, for it waits until the socket is closed.
            let shut_down = std::thread::spawn(move || runtime.shutdown_timeout(std::time::Duration::from_secs(5)));
            shut_down.join().unwrap();
        }
    }

    pub(crate) fn restart(&mut self) {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
        socket.set_reuse_address(true).unwrap();
        let address: std::net::SocketAddr = ([127, 0, 0, 1], self.port).into();
        socket.bind(&address.into()).unwrap();
        socket.listen(16).unwrap();
        self.serve(socket.into());
    }

    /// The next so many calls that close turns do so, and the caller never hears of it.
    pub(crate) fn lose_replies(&self, calls: u32) {
        *self.forget.lock().unwrap() = calls;
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut Held)) {
        self.held.send_modify(change);
    }

    /// Waits until what it holds is so.
    pub(crate) async fn until(&self, so: impl FnMut(&Held) -> bool) -> Held {
        let mut changes = self.held.subscribe();
        let found = tokio::time::timeout(crate::fake_worker::PATIENCE, changes.wait_for(so)).await;
        found.expect("the store never came to hold that").unwrap().clone()
    }
}

impl Drop for FakeStore {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

struct Service {
    held: Arc<watch::Sender<Held>>,
    forget: Arc<Mutex<u32>>,
}

type Listed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no router asks for it"))
}

#[tonic::async_trait]
impl ConversationService for Service {
    type ListConversationsStream = Listed<Conversation>;
    type ListKeysStream = Listed<ApiKey>;
    type ListMessagesStream = Listed<StoredMessage>;
    type ListOrphansStream = Listed<StoredAnswer>;
    type ListRequestsStream = Listed<LoggedRequest>;
    type ListRecordsStream = Listed<Record>;

    async fn begin_turn(&self, request: Request<BeginTurnRequest>) -> Result<Response<BeginTurnResponse>, Status> {
        let request = request.into_inner();
        if request.conversation_id == "unknown" {
            return Err(proto::v1::Failure::new(proto::v1::Reason::NotFound, "no such conversation").into());
        }
        self.held.send_modify(|held| held.begun.push(request));
        let history = vec![Message {
            role: Role::User.into(),
            text: "before".to_owned(),
            ..Message::default()
        }];
        Ok(Response::new(BeginTurnResponse { history }))
    }

    async fn finish_turns(&self, request: Request<FinishTurnsRequest>) -> Result<Response<FinishTurnsResponse>, Status> {
        let turns = request.into_inner().turns;
        if turns.iter().any(|turn| turn.request_id == "poison") {
            return Err(proto::v1::Failure::invalid("turns", "poison").into());
        }
        self.held.send_modify(|held| {
            for turn in turns {
                *held.sent.entry(turn.stream_id.clone()).or_default() += 1;
                if let Some(answer) = held.answers.get_mut(&turn.stream_id) {
                    answer.orphan = false;
                }
                held.finished.entry(turn.stream_id.clone()).or_insert(turn);
            }
        });
        let lost = {
            let mut forget = self.forget.lock().unwrap();
            let lost = *forget > 0;
            *forget -= u32::from(lost);
            lost
        };
        if lost {
            return Err(Status::unavailable("the reply was lost"));
        }
        Ok(Response::new(FinishTurnsResponse::default()))
    }

    async fn claim_answer(&self, request: Request<ClaimAnswerRequest>) -> Result<Response<ClaimAnswerResponse>, Status> {
        let request = request.into_inner();
        let held = self.held.borrow().clone();
        let others = held.claimed_by_others;
        let begun = held.begun_by.get(&request.stream_id).is_some_and(|owner| *owner != request.owner);
        let (won, epoch) = if request.epoch == 0 {
            (!begun, 1)
        } else if others > request.epoch {
            (false, others)
        } else {
            (true, request.epoch + 1)
        };
        self.held.send_modify(|held| {
            if won && let Some(answer) = held.answers.get_mut(&request.stream_id) {
                (answer.epoch, answer.orphan) = (epoch, false);
            }
            if request.epoch == 0 {
                held.begun_by.entry(request.stream_id).or_insert(request.owner);
            } else {
                held.claims.push(request);
            }
        });
        let lease_ms = 300;
        Ok(Response::new(ClaimAnswerResponse { won, epoch, lease_ms }))
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Result<Response<CheckpointResponse>, Status> {
        let request = request.into_inner();
        let position = request.position;
        self.held.send_modify(|held| held.checkpoints.push(request));
        Ok(Response::new(CheckpointResponse { position, lease_ms: 300 }))
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<StoredAnswer>, Status> {
        let found = self.held.borrow().answers.get(&request.into_inner().stream_id).cloned();
        let unknown = || Status::from(proto::v1::Failure::new(proto::v1::Reason::NotFound, "no such answer"));
        found.map(Response::new).ok_or_else(unknown)
    }

    async fn list_orphans(&self, _: Request<ListOrphansRequest>) -> Result<Response<Self::ListOrphansStream>, Status> {
        let held = self.held.borrow();
        let orphans: Vec<_> = held.answers.values().filter(|answer| answer.orphan).cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(orphans))))
    }

    async fn list_requests(&self, _: Request<ListRequestsRequest>) -> Result<Response<Self::ListRequestsStream>, Status> {
        not_here()
    }

    async fn create_conversation(&self, _: Request<CreateConversationRequest>) -> Result<Response<Conversation>, Status> {
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

    async fn list_messages(&self, _: Request<ListMessagesRequest>) -> Result<Response<Self::ListMessagesStream>, Status> {
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
