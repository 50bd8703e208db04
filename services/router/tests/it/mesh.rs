//! A router and its fake workers, and what a client does with them.

use std::time::Duration;

use chassis::drain::Drain;
use clap::Parser;
use futures_util::StreamExt as _;
use proto::v1::{
    Cancel, ChatCommand, ChatRequest, ChatResponse, Detach, Entry, ListAnswersRequest, Principal, ResumeChatRequest, RouterStatus,
    WatchStatusRequest, WorkerState, chat_command::Command, chat_service_client::ChatServiceClient,
};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use crate::fake_worker::{FakeWorker, PATIENCE};

pub(crate) type Client = ChatServiceClient<Channel>;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    router: router::Settings,
}

/// A router that runs.
pub(crate) struct Mesh {
    pub(crate) client: Client,
    pub(crate) drain: Drain,
    pub(crate) stopped: tokio::task::JoinHandle<()>,
}

/// Starts a router in front of these workers, and waits until it sees all that are alive as ready.
pub(crate) async fn mesh(workers: &[&FakeWorker], flags: &[&str]) -> Mesh {
    let addresses: Vec<&str> = workers.iter().map(|worker| worker.address.as_str()).collect();
    let mesh = router_at(&addresses.join(","), flags).await;
    mesh.until(|status| ready(status) == workers.len()).await;
    mesh
}

/// Starts a router with these addresses of workers.
pub(crate) async fn router_at(workers: &str, flags: &[&str]) -> Mesh {
    let mut arguments = vec!["router", "--workers", workers];
    if !flags.contains(&"--store") {
        arguments.extend(["--store", "none"]);
    }
    arguments.extend(flags);
    let settings = Flags::parse_from(arguments).router;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let drain = Drain::new();
    let (serving, outer) = (drain.clone(), Drain::new());
    let stopped = outer.spawn(async move {
        let run = router::run(settings, listener, serving.clone());
        serving.serve(PATIENCE, run).await.unwrap();
    });
    let channel = chassis::channel::endpoint(&address).unwrap().connect().await.unwrap();
    Mesh {
        client: ChatServiceClient::new(channel),
        drain,
        stopped,
    }
}

pub(crate) fn ready(status: &RouterStatus) -> usize {
    status.workers.iter().filter(|worker| worker.state() == WorkerState::Ready).count()
}

pub(crate) fn ask(prompt: &str) -> ChatRequest {
    ChatRequest {
        prompt: prompt.to_owned(),
        ..ChatRequest::default()
    }
}

pub(crate) fn tenant(name: &str) -> Principal {
    Principal {
        tenant: name.to_owned(),
        ..Principal::default()
    }
}

impl Mesh {
    /// Waits until the status is so.
    pub(crate) async fn until(&self, so: impl Fn(&RouterStatus) -> bool) -> RouterStatus {
        let mut client = self.client.clone();
        let mut statuses = client.watch_status(WatchStatusRequest {}).await.unwrap().into_inner();
        let mut last = None;
        let found = timeout(PATIENCE, async {
            while let Some(status) = statuses.message().await.unwrap() {
                if so(&status) {
                    return status;
                }
                last = Some(status);
            }
            panic!("the status ended");
        });
        found.await.unwrap_or_else(|_| panic!("the status never came to be so: {last:?}"))
    }

    /// Waits until nothing is taken any more: no answer, no turn, no seat.
    pub(crate) async fn until_idle(&self) {
        self.until(|status| status.running == 0 && status.queue_depth == 0).await;
    }

    pub(crate) async fn stream(&self, request: ChatRequest) -> Result<Streaming<ChatResponse>, Status> {
        let mut client = self.client.clone();
        Ok(client.stream_chat(request).await?.into_inner())
    }

    /// Starts an answer and reads it in the background.
    pub(crate) fn streaming(&self, request: ChatRequest) -> tokio::task::JoinHandle<Result<Vec<ChatResponse>, Status>> {
        let mut client = self.client.clone();
        #[allow(clippy::disallowed_methods)] // a client of the test
        tokio::spawn(async move { all(client.stream_chat(request).await?.into_inner()).await })
    }

    pub(crate) async fn resume(&self, stream_id: &str, position: u32) -> Result<Streaming<ChatResponse>, Status> {
        let mut client = self.client.clone();
        let request = ResumeChatRequest {
            stream_id: stream_id.to_owned(),
            position,
            principal: None,
        };
        Ok(client.resume_chat(request).await?.into_inner())
    }

    pub(crate) async fn exchange(&self) -> Exchange {
        let mut client = self.client.clone();
        let (commands, waiting) = mpsc::channel(1024);
        let responses = client.bi_stream_chat(ReceiverStream::new(waiting)).await.unwrap().into_inner();
        Exchange { commands, responses }
    }

    pub(crate) async fn answers(&self) -> Vec<proto::v1::AnswerSummary> {
        let mut client = self.client.clone();
        let answers = client.list_answers(ListAnswersRequest {}).await.unwrap().into_inner();
        answers.map(Result::unwrap).collect().await
    }

    /// Waits until the listed answers are so.
    pub(crate) async fn until_answers(&self, so: impl Fn(&[proto::v1::AnswerSummary]) -> bool) {
        timeout(PATIENCE, async {
            while !so(&self.answers().await) {
                sleep(Duration::from_millis(5)).await;
            }
        })
        .await
        .expect("the answers never came to be so");
    }
}

/// A gateway's exchange.
pub(crate) struct Exchange {
    pub(crate) commands: mpsc::Sender<ChatCommand>,
    pub(crate) responses: Streaming<ChatResponse>,
}

impl Exchange {
    pub(crate) async fn send(&self, call: u32, command: Command) {
        let command = Some(command);
        self.commands.send(ChatCommand { call, command }).await.unwrap();
    }

    pub(crate) async fn start(&self, call: u32, request: ChatRequest) {
        self.send(call, Command::Start(Box::new(request))).await;
    }

    pub(crate) async fn attach(&self, call: u32, stream_id: &str, position: u32) {
        let request = ResumeChatRequest {
            stream_id: stream_id.to_owned(),
            position,
            principal: None,
        };
        self.send(call, Command::Attach(request)).await;
    }

    pub(crate) async fn detach(&self, call: u32, lagging: bool) {
        self.send(call, Command::Detach(Detach { lagging })).await;
    }

    pub(crate) async fn cancel(&self, call: u32) {
        self.send(call, Command::Cancel(Cancel {})).await;
    }

    pub(crate) async fn next(&mut self) -> ChatResponse {
        timeout(PATIENCE, self.responses.message())
            .await
            .expect("nothing came")
            .unwrap()
            .expect("the exchange ended")
    }

    /// Reads one call to its terminal entry, checking that it is dense from `position` on.
    pub(crate) async fn whole(&mut self, call: u32, position: u32) -> Vec<Entry> {
        let mut entries: Vec<Entry> = Vec::new();
        loop {
            let response = self.next().await;
            assert_eq!(response.call, call);
            assert_eq!(response.refused, None);
            if response.entries.is_empty() {
                continue;
            }
            assert_eq!(response.position, Some(position + u32::try_from(entries.len()).unwrap()));
            entries.extend(response.entries);
            if entries.last().is_some_and(Entry::is_terminal) {
                return entries;
            }
        }
    }
}

/// Reads a stream to its end.
pub(crate) async fn all(mut stream: Streaming<ChatResponse>) -> Result<Vec<ChatResponse>, Status> {
    let mut responses = Vec::new();
    while let Some(response) = timeout(PATIENCE, stream.message()).await.expect("the stream hangs")? {
        responses.push(response);
    }
    Ok(responses)
}

/// The text of responses, whose positions must be dense from `position` on, with one end.
pub(crate) fn joined(responses: &[ChatResponse], position: u32) -> String {
    for (expected, response) in (position..).zip(responses) {
        assert_eq!(response.position, Some(expected));
    }
    let ends = responses.iter().filter(|response| response.done == Some(true)).count();
    assert_eq!(ends, 1, "{responses:?}");
    assert_eq!(responses.last().unwrap().done, Some(true));
    responses.iter().map(|response| response.token.as_deref().unwrap()).collect()
}

pub(crate) fn text_of(entries: &[Entry]) -> String {
    entries.iter().map(|entry| entry.token.as_str()).collect()
}
