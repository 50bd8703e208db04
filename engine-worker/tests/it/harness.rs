//! A worker under test, and a client that refuses to see a gap, a double or a second head.

use std::{collections::HashMap, sync::Arc, time::Duration};

use chassis::{drain::Drain, listen::listen};
use engine_worker::{
    engine::Engine,
    scripted::{Scripted, Settings},
    serve,
    service::Bounds,
};
use proto::v1::{
    AttachRequest, Cancel, ChatRequest, Detach, EngineCommand, Entry, Failure, GenerateRequest, GenerateResponse, Head, Load, Own,
    WatchLoadRequest, engine_command::Command, engine_service_client::EngineServiceClient, entry::Event,
};
use tokio::{sync::mpsc, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Streaming, transport::Channel};

/// Nothing here takes that long; a test that waits for ever fails instead.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) type Client = EngineServiceClient<Channel>;

/// A worker under test.
pub(crate) struct Worker {
    pub(crate) address: String,
    pub(crate) drain: Drain,
    pub(crate) serving: tokio::task::JoinHandle<Result<(), engine_worker::Error>>,
}

pub(crate) fn bounds() -> Bounds {
    Bounds {
        queue: 4,
        unattended_grace: Duration::from_secs(30),
        retention: Duration::from_mins(1),
    }
}

pub(crate) fn seats(seats: u32) -> Settings {
    Settings {
        script_seats: seats,
        ..Settings::default()
    }
}

impl Worker {
    pub(crate) fn scripted(settings: &Settings, bounds: Bounds) -> Self {
        let drain = Drain::new();
        let engine = Scripted::start(settings, &drain).unwrap();
        Self::over(engine, bounds, drain)
    }

    pub(crate) fn over(engine: Arc<dyn Engine>, bounds: Bounds, drain: Drain) -> Self {
        let listener = listen("127.0.0.1:0", "test").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let serving = tokio::spawn(serve(engine, bounds, listener, drain.clone()));
        Self { address, drain, serving }
    }

    pub(crate) async fn client(&self) -> Client {
        EngineServiceClient::new(self.channel().await)
    }

    /// A connection of its own, as another router would have.
    pub(crate) async fn channel(&self) -> Channel {
        chassis::channel::endpoint(&self.address).unwrap().connect().await.unwrap()
    }

    pub(crate) async fn exchange(&self) -> Exchange {
        Exchange::open(self.client().await).await
    }
}

/// A request for what the script says; `script` is the inside of the directive.
pub(crate) fn ask(stream_id: &str, script: &str) -> GenerateRequest {
    said(stream_id, &format!("[[script {script}]]"))
}

/// A request with this prompt.
pub(crate) fn said(stream_id: &str, prompt: &str) -> GenerateRequest {
    GenerateRequest {
        stream_id: stream_id.to_owned(),
        epoch: 1,
        request: Some(ChatRequest {
            prompt: prompt.to_owned(),
            ..ChatRequest::default()
        }),
        ..GenerateRequest::default()
    }
}

/// What a call has read.
#[derive(Debug, Default)]
pub(crate) struct Got {
    pub(crate) head: Option<Head>,
    pub(crate) first: u32,
    pub(crate) entries: Vec<Entry>,
    pub(crate) refused: Option<Failure>,
    pub(crate) disowned: bool,
}

impl Got {
    /// Takes a response. A gap, a double, a late or a second head, or anything after the end is a failed test.
    pub(crate) fn take(&mut self, response: GenerateResponse) {
        assert!(!self.is_over(), "something came after the end: {response:?}");
        if let Some(head) = response.head {
            assert!(self.head.is_none() && self.entries.is_empty(), "the head comes once, and first");
            self.head = Some(*head);
            self.first = response.position;
        }
        assert!(self.head.is_some() || response.refused.is_some(), "the head comes first");
        if !response.entries.is_empty() {
            let next = self.first + u32::try_from(self.entries.len()).unwrap();
            assert_eq!(response.position, next, "positions are dense");
        }
        for entry in response.entries {
            assert!(!self.is_over(), "an entry came after the terminal one");
            self.entries.push(entry);
        }
        self.refused = response.refused.map(|refused| *refused);
        self.disowned |= response.disowned;
    }

    pub(crate) fn is_over(&self) -> bool {
        self.refused.is_some() || self.entries.last().is_some_and(Entry::is_terminal)
    }

    pub(crate) fn text(&self) -> String {
        self.entries.iter().map(|entry| entry.token.as_str()).collect()
    }

    pub(crate) fn terminal(&self) -> &Event {
        let last = self.entries.last().filter(|entry| entry.is_terminal());
        last.unwrap_or_else(|| panic!("no terminal entry: {self:?}"))
            .event
            .as_ref()
            .unwrap()
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        matches!(self.terminal(), Event::Cancelled(_))
    }

    pub(crate) fn failure(&self) -> &Failure {
        match self.terminal() {
            Event::Failed(failure) => failure,
            other => panic!("it did not fail: {other:?}"),
        }
    }

    /// Entries that are tokens.
    pub(crate) fn tokens(&self) -> usize {
        self.entries.iter().filter(|entry| !entry.is_terminal()).count()
    }
}

/// Reads a call with one answer to its end.
pub(crate) async fn whole(mut responses: Streaming<GenerateResponse>) -> Got {
    let mut got = Got::default();
    while let Some(response) = within(responses.message()).await.unwrap() {
        got.take(response);
    }
    got
}

pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(PATIENCE, future).await.expect("it takes too long")
}

/// An exchange as a router has it.
pub(crate) struct Exchange {
    commands: mpsc::Sender<EngineCommand>,
    responses: Streaming<GenerateResponse>,
    pub(crate) got: HashMap<u32, Got>,
}

impl Exchange {
    pub(crate) async fn open(mut client: Client) -> Self {
        let (commands, inbox) = mpsc::channel(1024);
        let responses = client.bi_generate(ReceiverStream::new(inbox)).await.unwrap().into_inner();
        Self {
            commands,
            responses,
            got: HashMap::new(),
        }
    }

    pub(crate) async fn start(&mut self, call: u32, request: GenerateRequest) {
        self.send(call, Command::Start(Box::new(request))).await;
    }

    pub(crate) async fn attach(&mut self, call: u32, stream_id: &str, position: u32) {
        let stream_id = stream_id.to_owned();
        self.send(
            call,
            Command::Attach(AttachRequest {
                stream_id,
                position,
                ..AttachRequest::default()
            }),
        )
        .await;
    }

    pub(crate) async fn cancel(&mut self, call: u32) {
        self.send(call, Command::Cancel(Cancel {})).await;
    }

    pub(crate) async fn own(&mut self, call: u32, epoch: u32) {
        self.send(call, Command::Own(Own { epoch })).await;
    }

    /// Reads until `call` is told that its answer is another router's.
    pub(crate) async fn disowned(&mut self, call: u32) {
        while !self.got.get(&call).is_some_and(|got| got.disowned) {
            assert!(self.read().await, "the exchange ended");
        }
    }

    pub(crate) async fn detach(&mut self, call: u32) {
        self.send(call, Command::Detach(Detach::default())).await;
    }

    async fn send(&mut self, call: u32, command: Command) {
        let command = EngineCommand {
            call,
            command: Some(command),
        };
        self.commands.send(command).await.unwrap();
    }

    /// Reads until `call` has so many tokens, or its end.
    pub(crate) async fn tokens(&mut self, call: u32, tokens: usize) -> &Got {
        while self.got.get(&call).is_none_or(|got| got.tokens() < tokens && !got.is_over()) {
            assert!(self.read().await, "the exchange ended");
        }
        &self.got[&call]
    }

    /// Reads until `call` has its head or its refusal.
    pub(crate) async fn begun(&mut self, call: u32) -> &Got {
        while self.got.get(&call).is_none_or(|got| got.head.is_none() && got.refused.is_none()) {
            assert!(self.read().await, "the exchange ended");
        }
        &self.got[&call]
    }

    /// Reads until `call` has ended.
    pub(crate) async fn end(&mut self, call: u32) -> &Got {
        self.tokens(call, usize::MAX).await
    }

    /// Reads one response. False at the end of the exchange.
    pub(crate) async fn read(&mut self) -> bool {
        let Some(response) = within(self.responses.message()).await.unwrap() else {
            return false;
        };
        self.got.entry(response.call).or_default().take(response);
        true
    }

    /// Closes the router's side, and reads to the end.
    pub(crate) async fn close(self) -> HashMap<u32, Got> {
        let Self { commands, responses, got } = self;
        drop(commands);
        let mut rest = Self {
            commands: mpsc::channel(1).0,
            responses,
            got,
        };
        while rest.read().await {}
        rest.got
    }
}

/// Watches the load until it is as wanted.
pub(crate) async fn load_until(client: &mut Client, wanted: impl Fn(&Load) -> bool) -> Load {
    let mut loads = client.watch_load(WatchLoadRequest { interval_ms: 20 }).await.unwrap().into_inner();
    within(async {
        loop {
            let load = loads.message().await.unwrap().expect("the loads ended");
            if wanted(&load) {
                return load;
            }
        }
    })
    .await
}
