//! A process's worth of relaying, on a thread of its own: it serves one exchange, and fills it from another, or from nothing.

use std::{
    pin::Pin,
    task::{Context, Poll},
    thread,
};

use chassis::{channel, drain::Drain, grpc::Services, listen::listen};
use futures_util::{Stream, stream};
use journal::{Journal, Limits, Readers, Writer};
use proto::v1::{
    AnswerSummary, CancelChatRequest, CancelChatResponse, ChatCommand, ChatRequest, ChatResponse, CountTokensRequest, CountTokensResponse,
    EmbedRequest, EmbedResponse, Entry, ListAnswersRequest, ResumeChatRequest, RouterStatus, Usage, WatchStatusRequest,
    chat_service_client::ChatServiceClient,
    chat_service_server::{ChatService, ChatServiceServer},
};
use tokio::sync::mpsc;
use tonic::{Request, Response, Status, Streaming, transport::Channel};

/// Answers at once.
pub(super) const CALLS: u32 = 500;
/// Tokens of each.
pub(super) const TOKENS: u32 = 200;
/// Entries of one answer in one message, as a router sends them.
const BATCH: usize = 256;
/// Messages on their way through a relay that keeps nothing.
const WAITING: usize = 4096;

/// What fills the exchange.
pub(super) enum Kind {
    /// Made up: one token of each answer after the other.
    Source,
    /// What comes from there goes out as it is.
    Plain(Channel),
    /// What comes from there is appended to journals, and readers take it out.
    Journaled(Channel),
}

/// A hop that serves.
pub(super) struct Hop {
    address: String,
    drain: Drain,
}

impl Hop {
    /// Starts it.
    pub(super) fn start(kind: Kind) -> anyhow::Result<Self> {
        let drain = Drain::new();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let listener = {
            let _inside = runtime.enter();
            listen("127.0.0.1:0", "the bench")?
        };
        let address = listener.local_addr()?.to_string();
        let services = Services::new(proto::FILE_DESCRIPTOR_SET)?.with(ChatServiceServer::new(Service(kind)));
        let serving = drain.clone();
        thread::spawn(move || runtime.block_on(services.serve(listener, serving)));
        Ok(Self { address, drain })
    }

    /// A way to it.
    pub(super) fn channel(&self) -> anyhow::Result<Channel> {
        Ok(channel::lazy(&self.address)?)
    }
}

impl Drop for Hop {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

/// Reads one exchange to its end, and says how many entries came.
pub(super) async fn drain(channel: Channel) -> anyhow::Result<u32> {
    let mut responses = open(channel).await?;
    let mut count = 0;
    while let Some(response) = responses.message().await? {
        count += u32::try_from(response.entries.len())?;
    }
    Ok(count)
}

async fn open(channel: Channel) -> Result<Streaming<ChatResponse>, Status> {
    let commands = stream::pending::<ChatCommand>();
    Ok(ChatServiceClient::new(channel).bi_stream_chat(commands).await?.into_inner())
}

struct Service(Kind);

type Responses<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("a bench has exchanges only"))
}

#[tonic::async_trait]
impl ChatService for Service {
    type StreamChatStream = Responses<ChatResponse>;
    type BiStreamChatStream = Responses<ChatResponse>;
    type ResumeChatStream = Responses<ChatResponse>;
    type ListAnswersStream = Responses<AnswerSummary>;
    type WatchStatusStream = Responses<RouterStatus>;

    async fn bi_stream_chat(&self, _: Request<Streaming<ChatCommand>>) -> Result<Response<Self::BiStreamChatStream>, Status> {
        Ok(Response::new(match &self.0 {
            Kind::Source => Box::pin(stream::iter(made_up())),
            Kind::Plain(from) => plain(open(from.clone()).await?),
            Kind::Journaled(from) => journaled(open(from.clone()).await?)?,
        }))
    }

    async fn stream_chat(&self, _: Request<ChatRequest>) -> Result<Response<Self::StreamChatStream>, Status> {
        not_here()
    }

    async fn resume_chat(&self, _: Request<ResumeChatRequest>) -> Result<Response<Self::ResumeChatStream>, Status> {
        not_here()
    }

    async fn cancel_chat(&self, _: Request<CancelChatRequest>) -> Result<Response<CancelChatResponse>, Status> {
        not_here()
    }

    async fn list_answers(&self, _: Request<ListAnswersRequest>) -> Result<Response<Self::ListAnswersStream>, Status> {
        not_here()
    }

    async fn watch_status(&self, _: Request<WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        not_here()
    }

    async fn count_tokens(&self, _: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        not_here()
    }

    async fn embed(&self, _: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        not_here()
    }
}

/// One decode step after the other: a token for every answer, and at last the end of each.
fn made_up() -> impl Iterator<Item = Result<ChatResponse, Status>> + Send {
    (0..=TOKENS).flat_map(|position| {
        (0..CALLS).map(move |call| {
            let entry = if position < TOKENS {
                Entry::text(format!("r{call}.{position} "), position)
            } else {
                Entry::finished(Vec::new(), Usage::default())
            };
            Ok(message(call, position, vec![entry]))
        })
    })
}

fn message(call: u32, position: u32, entries: Vec<Entry>) -> ChatResponse {
    ChatResponse {
        call,
        position: Some(position),
        entries,
        ..ChatResponse::default()
    }
}

fn plain(mut from: Streaming<ChatResponse>) -> Responses<ChatResponse> {
    let (sender, mut waiting) = mpsc::channel(WAITING);
    tokio::spawn(async move {
        while let Ok(Some(response)) = from.message().await {
            if sender.send(Ok(response)).await.is_err() {
                return;
            }
        }
    });
    Box::pin(stream::poll_fn(move |context| waiting.poll_recv(context)))
}

fn journaled(mut from: Streaming<ChatResponse>) -> Result<Responses<ChatResponse>, Status> {
    let broken = |error: journal::Error| Status::internal(error.to_string());
    let mut readers = Readers::default();
    let mut writers: Vec<Writer<Entry>> = Vec::new();
    for call in 0..CALLS {
        let journal = Journal::new(Limits::default());
        writers.push(journal.claim(1).map_err(broken)?);
        readers.insert(call, journal.reader(0), ());
    }
    tokio::spawn(async move {
        while let Ok(Some(response)) = from.message().await {
            let (position, entries) = (response.position.unwrap_or_default(), response.entries);
            let taken = writers
                .get(response.call as usize)
                .map(|writer| writer.append_from(position, entries));
            if !matches!(taken, Some(Ok(_))) {
                return;
            }
        }
    });
    Ok(Box::pin(Relay { readers }))
}

/// The sending side of a router's exchange, and nothing else of it.
struct Relay {
    readers: Readers<Entry>,
}

impl Stream for Relay {
    type Item = Result<ChatResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.readers.is_empty() {
            return Poll::Ready(None);
        }
        let delivered = self
            .readers
            .poll_read(context, BATCH, |call, first, entries, ()| message(call, first, entries.to_vec()));
        delivered.map(|delivered| delivered.taken.map(Ok))
    }
}
