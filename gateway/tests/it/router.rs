//! A router whose every word the test decides: commands of the gateway arrive in the test, and what it says to them goes out.

use std::{net::SocketAddr, pin::Pin, sync::Arc};

use chassis::{drain::Drain, listen::listen};
use futures_util::{Stream, StreamExt as _};
use proto::v1::{
    AnswerSummary, CancelChatRequest, CancelChatResponse, ChatCommand, ChatRequest, ChatResponse, ChoiceEnd, CountTokensRequest,
    CountTokensResponse, EmbedRequest, EmbedResponse, Embedding, Entry, Failure, FinishReason, Finished, Head, ListAnswersRequest, Load,
    Model, Reason, ResumeChatRequest, RouterStatus, Usage, WatchStatusRequest, WorkerState, WorkerStatus,
    chat_command::Command,
    chat_service_server::{ChatService, ChatServiceServer},
    entry::Event,
};
use tokio::sync::{Mutex, Notify, mpsc, watch};
use tonic::{Request, Response, Status, Streaming};

type Answers = Pin<Box<dyn Stream<Item = Result<ChatResponse, Status>> + Send>>;
type Outgoing = mpsc::Sender<Result<ChatResponse, Status>>;

/// The router, as the test plays it.
pub(crate) struct Router {
    pub(crate) address: SocketAddr,
    pub(crate) status: watch::Sender<RouterStatus>,
    commands: Mutex<mpsc::Receiver<Received>>,
    exchanges: watch::Receiver<usize>,
    counted: Arc<Mutex<Vec<ChatRequest>>>,
    slow: Arc<Slow>,
    /// Its own, so that it can die with all its connections.
    runtime: Option<tokio::runtime::Runtime>,
}

/// A command of the gateway.
pub(crate) struct Received {
    pub(crate) call: u32,
    pub(crate) command: Command,
    pub(crate) exchange: Outgoing,
}

struct Service {
    commands: mpsc::Sender<Received>,
    status: watch::Receiver<RouterStatus>,
    exchanges: watch::Sender<usize>,
    counted: Arc<Mutex<Vec<ChatRequest>>>,
    slow: Arc<Slow>,
}

/// Vectors of the text `slow`, which are made when the test says so.
#[derive(Default)]
struct Slow {
    asked: Notify,
    go: Notify,
}

pub(crate) const MODEL: &str = "tiny";
pub(crate) const CREATED: i64 = 1_700_000_000;

impl Router {
    /// One that listens, with a ready worker and a model.
    pub(crate) fn start() -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = {
            let _inside = runtime.enter();
            listen("127.0.0.1:0", "test").unwrap()
        };
        let address = listener.local_addr().unwrap();
        let (commands, received) = mpsc::channel(4096);
        let (status, told) = watch::channel(ready());
        let (connected, exchanges) = watch::channel(0);
        let counted = Arc::default();
        let slow = Arc::<Slow>::default();
        let service = Service {
            counted: Arc::clone(&counted),
            slow: Arc::clone(&slow),
            commands,
            status: told,
            exchanges: connected,
        };
        let services = chassis::grpc::Services::new(proto::FILE_DESCRIPTOR_SET)
            .unwrap()
            .with(ChatServiceServer::new(service));
        runtime.spawn(services.serve(listener, Drain::new()));
        Self {
            address,
            status,
            commands: Mutex::new(received),
            exchanges,
            counted,
            slow,
            runtime: Some(runtime),
        }
    }

    /// Waits until a gateway has an exchange with it.
    pub(crate) async fn connected(&self) {
        self.exchanges.clone().wait_for(|count| *count > 0).await.unwrap();
    }

    /// The requests whose tokens it has counted.
    pub(crate) async fn counted(&self) -> Vec<ChatRequest> {
        self.counted.lock().await.clone()
    }

    /// Waits until vectors of the text `slow` are asked for.
    pub(crate) async fn asked_slowly(&self) {
        self.slow.asked.notified().await;
    }

    /// Makes them.
    pub(crate) fn go_on(&self) {
        self.slow.go.notify_one();
    }

    /// The next command.
    pub(crate) async fn next(&self) -> Received {
        self.commands.lock().await.recv().await.unwrap()
    }

    /// The next command, which must start an answer.
    pub(crate) async fn started(&self) -> (Received, ChatRequest) {
        let received = self.next().await;
        match &received.command {
            Command::Start(request) => {
                let request = (**request).clone();
                (received, request)
            }
            other => panic!("expected a start, got {other:?}"),
        }
    }

    /// The next command, which must attach to an answer.
    pub(crate) async fn attached(&self) -> (Received, ResumeChatRequest) {
        let received = self.next().await;
        match &received.command {
            Command::Attach(request) => {
                let request = request.clone();
                (received, request)
            }
            other => panic!("expected an attach, got {other:?}"),
        }
    }

    /// Starts one answer and says all of it.
    pub(crate) async fn say(&self, entries: Vec<Entry>) -> ChatRequest {
        let (received, request) = self.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, entries).await;
        request
    }

    /// Closes all connections at once, as a process that was killed.
    pub(crate) fn die(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.die();
    }
}

impl Received {
    pub(crate) async fn send(&self, response: ChatResponse) {
        let response = ChatResponse {
            call: self.call,
            ..response
        };
        self.exchange.send(Ok(response)).await.unwrap();
    }

    /// Says that the answer was admitted.
    pub(crate) async fn admit(&self, stream_id: &str) {
        self.send(ChatResponse {
            head: Some(Box::new(head(stream_id))),
            ..ChatResponse::default()
        })
        .await;
    }

    pub(crate) async fn entries(&self, position: u32, entries: Vec<Entry>) {
        self.send(ChatResponse {
            position: Some(position),
            entries,
            ..ChatResponse::default()
        })
        .await;
    }

    pub(crate) async fn refuse(&self, failure: Failure) {
        self.send(ChatResponse {
            refused: Some(Box::new(failure)),
            ..ChatResponse::default()
        })
        .await;
    }

    /// Breaks the whole exchange.
    pub(crate) async fn break_exchange(&self) {
        self.exchange.send(Err(Status::unavailable("broken by the test"))).await.unwrap();
    }

    pub(crate) fn is_detach(&self, lagging: bool) -> bool {
        matches!(self.command, Command::Detach(detach) if detach.lagging == lagging)
    }
}

pub(crate) fn head(stream_id: &str) -> Head {
    Head {
        stream_id: stream_id.to_owned(),
        model: MODEL.to_owned(),
        created: CREATED,
        epoch: 1,
        ..Head::default()
    }
}

/// Tokens, one for each word.
pub(crate) fn texts(words: &[&str]) -> Vec<Entry> {
    (0..).zip(words).map(|(id, word)| Entry::text(*word, id)).collect()
}

/// The end of an answer.
pub(crate) fn finished(reason: FinishReason, completion_tokens: u32) -> Entry {
    let usage = Usage {
        prompt_tokens: 5,
        completion_tokens,
        ..Usage::default()
    };
    let end = ChoiceEnd {
        reason: reason.into(),
        ..ChoiceEnd::default()
    };
    Entry {
        event: Some(Event::Finished(Box::new(Finished {
            choices: vec![end],
            usage: Some(usage),
            ended_ms: (CREATED + 2) * 1000,
        }))),
        ..Entry::default()
    }
}

pub(crate) fn ready() -> RouterStatus {
    let model = Model {
        id: MODEL.to_owned(),
        context_length: 2048,
        created: CREATED,
        chat: true,
        embeddings: true,
        ..Model::default()
    };
    RouterStatus {
        queue_limit: 10,
        store_up: true,
        workers: vec![WorkerStatus {
            address: "worker:1".to_owned(),
            state: WorkerState::Ready.into(),
            load: Some(Load {
                slots: 4,
                ..Load::default()
            }),
            ..WorkerStatus::default()
        }],
        models: vec![model],
        ..RouterStatus::default()
    }
}

#[tonic::async_trait]
impl ChatService for Service {
    type StreamChatStream = Answers;
    type BiStreamChatStream = Answers;
    type ResumeChatStream = Answers;
    type ListAnswersStream = Pin<Box<dyn Stream<Item = Result<AnswerSummary, Status>> + Send>>;
    type WatchStatusStream = Pin<Box<dyn Stream<Item = Result<RouterStatus, Status>> + Send>>;

    async fn bi_stream_chat(&self, request: Request<Streaming<ChatCommand>>) -> Result<Response<Answers>, Status> {
        let (exchange, outgoing) = mpsc::channel(64);
        let commands = self.commands.clone();
        let mut incoming = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(ChatCommand { call, command })) = incoming.next().await {
                let received = Received {
                    call,
                    command: command.unwrap(),
                    exchange: exchange.clone(),
                };
                if commands.send(received).await.is_err() {
                    return;
                }
            }
        });
        self.exchanges.send_modify(|count| *count += 1);
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(outgoing))))
    }

    async fn watch_status(&self, _: Request<WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        let states = tokio_stream::wrappers::WatchStream::new(self.status.clone());
        Ok(Response::new(Box::pin(states.map(Ok))))
    }

    async fn cancel_chat(&self, request: Request<CancelChatRequest>) -> Result<Response<CancelChatResponse>, Status> {
        match request.into_inner().stream_id.as_str() {
            "running" => Ok(Response::new(CancelChatResponse { was_running: true })),
            _ => Err(Failure::new(Reason::NotFound, "no such answer").into()),
        }
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let embedding = |_: &String| Embedding { values: vec![0.5, -0.5] };
        let inputs = request.into_inner().inputs;
        if inputs.iter().any(|text| text == "slow") {
            self.slow.asked.notify_one();
            self.slow.go.notified().await;
        }
        Ok(Response::new(EmbedResponse {
            model: MODEL.to_owned(),
            embeddings: inputs.iter().map(embedding).collect(),
            usage: Some(Usage {
                prompt_tokens: 3,
                ..Usage::default()
            }),
        }))
    }

    async fn count_tokens(&self, request: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        self.counted.lock().await.extend(request.into_inner().request);
        Ok(Response::new(CountTokensResponse {
            model: MODEL.to_owned(),
            prompt_tokens: 7,
            estimated: false,
        }))
    }

    async fn stream_chat(&self, _: Request<ChatRequest>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("the gateway uses the exchange"))
    }

    async fn resume_chat(&self, _: Request<ResumeChatRequest>) -> Result<Response<Answers>, Status> {
        Err(Status::unimplemented("the gateway uses the exchange"))
    }

    async fn list_answers(&self, _: Request<ListAnswersRequest>) -> Result<Response<Self::ListAnswersStream>, Status> {
        Err(Status::unimplemented("the gateway does not list"))
    }
}
