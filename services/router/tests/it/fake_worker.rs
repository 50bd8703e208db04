//! A worker that does what the test says: it shows every command that comes and sends what it is given. It runs on a runtime of
//! its own, so that killing it closes its sockets as a killed process would.

use std::{
    pin::Pin,
    sync::{Arc, Mutex},
    time::Duration,
};

use futures_util::{Stream, StreamExt as _, stream};
use proto::v1::{
    AbortRequest, AbortResponse, AttachRequest, ChoiceEnd, CountTokensRequest, CountTokensResponse, EmbedRequest, EmbedResponse, Embedding,
    EngineCommand, Entry, Failure, FinishReason, GenerateRequest, GenerateResponse, Head, ListModelsRequest, ListModelsResponse, Load,
    Model, Reason, Usage, WarmResponse, WatchLoadRequest,
    engine_command::Command,
    engine_service_server::{EngineService, EngineServiceServer},
};
use tokio::{
    net::TcpListener,
    runtime::Runtime,
    sync::{mpsc, watch},
    time::{sleep, timeout},
};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// No test waits longer for anything.
pub(crate) const PATIENCE: Duration = Duration::from_secs(10);

/// What came.
pub(crate) enum Seen {
    Start(Box<Making>),
    Attach(AttachRequest, Line),
    Own(u32, u32),
    Warm(Box<GenerateRequest>),
    Detach,
    Cancel(u32),
    Abort(AbortRequest),
}

/// A worker.
pub(crate) struct FakeWorker {
    pub(crate) address: String,
    runtime: Option<Runtime>,
    load: watch::Sender<Load>,
    frozen: watch::Sender<bool>,
    seen: tokio::sync::Mutex<mpsc::Receiver<Seen>>,
}

/// The sending side for one call.
#[derive(Clone)]
pub(crate) struct Line {
    pub(crate) call: u32,
    sender: mpsc::Sender<Result<GenerateResponse, Status>>,
}

/// An answer that the test makes.
pub(crate) struct Making {
    pub(crate) request: GenerateRequest,
    pub(crate) line: Line,
}

pub(crate) fn model(id: &str) -> Model {
    Model {
        id: id.to_owned(),
        chat: true,
        embeddings: true,
        continuation: true,
        engine: "fake".to_owned(),
        ..Model::default()
    }
}

impl FakeWorker {
    pub(crate) fn start(models: &[&str], slots: u32) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let load = watch::Sender::new(Load {
            instance: address.clone(),
            slots,
            models: models.iter().map(|id| model(id)).collect(),
            ..Load::default()
        });
        let frozen = watch::Sender::new(false);
        let (sender, seen) = mpsc::channel(1024);
        let service = Service {
            load: load.clone(),
            frozen: frozen.clone(),
            seen: sender,
        };
        runtime.spawn(async move {
            let listener = TcpListener::from_std(listener).unwrap();
            Server::builder()
                .add_service(EngineServiceServer::new(service))
                .serve_with_incoming(TcpListenerStream::new(listener))
                .await
                .unwrap();
        });
        Self {
            address,
            runtime: Some(runtime),
            load,
            frozen,
            seen: tokio::sync::Mutex::new(seen),
        }
    }

    /// Dies, with all its connections.
    pub(crate) fn kill(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }

    /// Falls silent, as a stopped process does.
    pub(crate) fn freeze(&self) {
        self.frozen.send_replace(true);
    }

    /// Goes on, as a process that was stopped and continued.
    pub(crate) fn thaw(&self) {
        self.frozen.send_replace(false);
    }

    pub(crate) fn tell(&self, change: impl FnOnce(&mut Load)) {
        self.load.send_modify(change);
    }

    /// The next command.
    pub(crate) async fn seen(&self) -> Seen {
        timeout(PATIENCE, async { self.seen.lock().await.recv().await })
            .await
            .expect("no command came")
            .expect("the worker is dead")
    }

    /// The next command, which must start an answer.
    pub(crate) async fn started(&self) -> Box<Making> {
        match self.seen().await {
            Seen::Start(making) => making,
            _ => panic!("a start was expected"),
        }
    }

    /// The next command, which must ask for an answer: this worker has none of that name.
    pub(crate) async fn knows_nothing(&self) {
        match self.seen().await {
            Seen::Attach(_, line) => line.refuse(Failure::new(Reason::NotFound, "no such answer")).await,
            _ => panic!("an attach was expected"),
        }
    }

    /// The next command, which must cancel a call.
    pub(crate) async fn cancelled(&self) -> u32 {
        match self.seen().await {
            Seen::Cancel(call) => call,
            _ => panic!("a cancel was expected"),
        }
    }

    /// Whether a command is there now.
    pub(crate) async fn has_seen(&self) -> bool {
        !self.seen.lock().await.is_empty()
    }
}

impl Drop for FakeWorker {
    fn drop(&mut self) {
        self.kill();
    }
}

impl Line {
    pub(crate) async fn send(&self, response: GenerateResponse) {
        let _ = self
            .sender
            .send(Ok(GenerateResponse {
                call: self.call,
                ..response
            }))
            .await;
    }

    pub(crate) async fn head(&self, epoch: u32) {
        let head = Head {
            epoch,
            prompt_tokens: 3,
            ..Head::default()
        };
        self.send(GenerateResponse {
            head: Some(Box::new(head)),
            ..GenerateResponse::default()
        })
        .await;
    }

    pub(crate) async fn entries(&self, position: u32, entries: Vec<Entry>) {
        self.send(GenerateResponse {
            position,
            entries,
            ..GenerateResponse::default()
        })
        .await;
    }

    /// Tokens `from..to` of the one answer that all fake workers make: token i is `i `, with the id 100 + i.
    pub(crate) async fn tokens(&self, from: u32, to: u32) {
        self.entries(from, (from..to).map(token).collect()).await;
    }

    pub(crate) async fn finish(&self, position: u32) {
        self.entries(position, vec![finished(position)]).await;
    }

    pub(crate) async fn refuse(&self, failure: Failure) {
        self.send(GenerateResponse {
            refused: Some(Box::new(failure)),
            ..GenerateResponse::default()
        })
        .await;
    }
}

impl Making {
    /// Makes the answer to its end: `count` tokens.
    pub(crate) async fn whole(&self, count: u32) {
        self.line.head(self.request.epoch).await;
        self.line.tokens(self.request.position, count).await;
        self.line.finish(count).await;
    }
}

pub(crate) fn token(index: u32) -> Entry {
    Entry::text(format!("{index} "), 100 + index)
}

pub(crate) fn finished(count: u32) -> Entry {
    let end = ChoiceEnd {
        reason: FinishReason::Stop.into(),
        ..ChoiceEnd::default()
    };
    Entry::finished(
        vec![end],
        Usage {
            prompt_tokens: 3,
            completion_tokens: count,
            ..Usage::default()
        },
    )
}

/// The text of tokens `0..count`.
pub(crate) fn text(count: u32) -> String {
    (0..count).map(|index| token(index).token).collect()
}

struct Service {
    load: watch::Sender<Load>,
    frozen: watch::Sender<bool>,
    seen: mpsc::Sender<Seen>,
}

type Sent<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl EngineService for Service {
    type GenerateStream = Sent<GenerateResponse>;
    type AttachStream = Sent<GenerateResponse>;
    type BiGenerateStream = Sent<GenerateResponse>;
    type WatchLoadStream = Sent<Load>;

    async fn generate(&self, _: Request<GenerateRequest>) -> Result<Response<Self::GenerateStream>, Status> {
        Err(Status::unimplemented("the router uses exchanges"))
    }

    async fn attach(&self, _: Request<AttachRequest>) -> Result<Response<Self::AttachStream>, Status> {
        Err(Status::unimplemented("the router uses exchanges"))
    }

    async fn bi_generate(&self, request: Request<Streaming<EngineCommand>>) -> Result<Response<Self::BiGenerateStream>, Status> {
        let mut commands = request.into_inner();
        let (sender, outgoing) = mpsc::channel(1024);
        let seen = self.seen.clone();
        #[allow(clippy::disallowed_methods)] // dies with the worker's own runtime
        tokio::spawn(async move {
            while let Ok(Some(EngineCommand { call, command })) = commands.message().await {
                let line = Line {
                    call,
                    sender: sender.clone(),
                };
                let command = match command {
                    Some(Command::Start(request)) => Seen::Start(Box::new(Making { request: *request, line })),
                    Some(Command::Attach(request)) => Seen::Attach(request, line),
                    Some(Command::Detach(_)) => Seen::Detach,
                    Some(Command::Cancel(_)) => Seen::Cancel(call),
                    Some(Command::Own(own)) => Seen::Own(call, own.epoch),
                    None => continue,
                };
                let _ = seen.send(command).await;
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(outgoing))))
    }

    async fn warm(&self, request: Request<GenerateRequest>) -> Result<Response<WarmResponse>, Status> {
        let _ = self.seen.send(Seen::Warm(Box::new(request.into_inner()))).await;
        Ok(Response::new(WarmResponse {}))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        let _ = self.seen.send(Seen::Abort(request.into_inner())).await;
        Ok(Response::new(AbortResponse::default()))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let request = request.into_inner();
        Ok(Response::new(EmbedResponse {
            model: request.model,
            embeddings: request.inputs.iter().map(|_| Embedding { values: vec![1.0] }).collect(),
            usage: Some(Usage::default()),
        }))
    }

    async fn count_tokens(&self, request: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        let request = request.into_inner().request.unwrap();
        Ok(Response::new(CountTokensResponse {
            prompt_tokens: u32::try_from(request.prompt.len()).unwrap(),
            model: request.model,
            estimated: true,
        }))
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let models = self.load.borrow().models.clone();
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn watch_load(&self, _: Request<WatchLoadRequest>) -> Result<Response<Self::WatchLoadStream>, Status> {
        let (changes, frozen) = (self.load.subscribe(), self.frozen.subscribe());
        let first = Arc::new(Mutex::new(true));
        let loads = stream::unfold((changes, frozen, first), |(mut changes, mut frozen, first)| async move {
            if !std::mem::take(&mut *first.lock().unwrap()) {
                tokio::select! {
                    () = sleep(Duration::from_millis(100)) => {}
                    told = changes.changed() => told.ok()?,
                }
            }
            frozen.wait_for(|frozen| !frozen).await.ok()?;
            let load = changes.borrow_and_update().clone();
            Some((Ok(load), (changes, frozen, first)))
        });
        Ok(Response::new(loads.boxed()))
    }
}
