//! A gateway between a router that the test plays and a real store.

use std::{str::FromStr as _, time::Duration};

use chassis::drain::Drain;
use prost::Message as _;
use proto::v1::{
    BeginTurnRequest, ChatRequest, Entry, FinishTurnsRequest, FinishedTurn, GenerateResponse, Message, Role, ToolCall, Usage,
    conversation_service_client::ConversationServiceClient, entry::Event,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{MODEL, Router},
};

/// All three.
pub(crate) struct Stored {
    pub(crate) router: Router,
    pub(crate) gateway: Gateway,
    pub(crate) store: ConversationServiceClient<Channel>,
    drain: Drain,
    _folder: tempfile::TempDir,
}

impl Stored {
    pub(crate) async fn start() -> Self {
        Self::with(&[]).await
    }

    /// With these settings of the gateway.
    pub(crate) async fn with(settings_of_the_gateway: &[&str]) -> Self {
        let folder = tempfile::TempDir::new().unwrap();
        let database = format!("sqlite://{}/chat.db", folder.path().display());
        let settings = conversation_store::Settings {
            store_listen: String::new(),
            data_dir: None,
            database: Some(conversation_store::Address::from_str(&database).unwrap()),
            database_wait: Duration::from_secs(1),
            store_timeout: Duration::from_secs(10),
            lease: Duration::from_secs(15),
            request_log_keep: Duration::from_hours(1),
            responses_keep: Duration::from_hours(1),
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let drain = Drain::new();
        tokio::spawn(conversation_store::run(settings, listener, drain.clone()));
        let store = ConversationServiceClient::new(chassis::channel::lazy(&address).unwrap());
        let router = Router::start();
        let settings = [&["--gateway-store", &address], settings_of_the_gateway].concat();
        let gateway = Gateway::with(&[&router], &settings).await;
        Self {
            router,
            gateway,
            store,
            drain,
            _folder: folder,
        }
    }

    pub(crate) async fn post(&self, path: &str, body: &serde_json::Value) -> Whole {
        client::post(self.gateway.address, path, &body.to_string()).await.whole().await
    }

    pub(crate) async fn get(&self, path: &str) -> Whole {
        client::get(self.gateway.address, path).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Whole {
        client::request(self.gateway.address, "DELETE", path, "").await.whole().await
    }

    /// Asks, and answers with these entries; as the router would, tells the store when it is over.
    pub(crate) async fn ask(&self, body: &serde_json::Value, entries: Vec<Entry>) -> (Whole, ChatRequest) {
        let said = async {
            let request = self.router.say(entries.clone()).await;
            self.finish(&request, &entries).await;
            request
        };
        tokio::join!(self.post("/v1/responses", body), said)
    }

    /// Tells the store of an answer that was made to this request.
    pub(crate) async fn finish(&self, request: &ChatRequest, entries: &[Entry]) {
        let mut store = self.store.clone();
        if !request.conversation_id.is_empty() {
            let turn = BeginTurnRequest {
                principal: request.principal.clone(),
                conversation_id: request.conversation_id.clone(),
                stream_id: request.stream_id.clone(),
                messages: request.messages.clone(),
                model: MODEL.to_owned(),
            };
            store.begin_turn(turn).await.unwrap();
        }
        let last = entries.last().unwrap();
        let (state, finish_reason) = match &last.event {
            Some(Event::Finished(finished)) => ("finished", finished.choices[0].reason().as_word()),
            Some(Event::Failed(failure)) => ("failed", failure.reason().as_word()),
            _ => ("cancelled", "cancelled"),
        };
        let journal = GenerateResponse {
            entries: entries.to_vec(),
            ..GenerateResponse::default()
        };
        let turn = FinishedTurn {
            principal: Some(request.principal.clone().unwrap_or_default()),
            stream_id: request.stream_id.clone(),
            conversation_id: request.conversation_id.clone(),
            message: (request.keep || !request.conversation_id.is_empty()).then(|| message(entries)),
            state: state.to_owned(),
            finish_reason: finish_reason.to_owned(),
            model: MODEL.to_owned(),
            usage: last.usage().or_else(|| Some(Usage::default())),
            epoch: 1,
            journal: if request.keep { journal.encode_to_vec() } else { Vec::new() },
            ..FinishedTurn::default()
        };
        store.finish_turns(FinishTurnsRequest { turns: vec![turn] }).await.unwrap();
    }
}

impl Drop for Stored {
    fn drop(&mut self) {
        self.drain.begin();
    }
}

fn message(entries: &[Entry]) -> Message {
    let mut message = Message {
        role: Role::Assistant.into(),
        ..Message::default()
    };
    for entry in entries {
        message.text.push_str(&entry.token);
        match &entry.event {
            Some(Event::Reasoning(text)) => message.reasoning.push_str(text),
            Some(Event::ToolCall(call)) => {
                message.tool_calls.resize_with(call.index as usize + 1, ToolCall::default);
                let whole = message.tool_calls.last_mut().unwrap();
                whole.id.push_str(&call.id);
                whole.name.push_str(&call.name);
                whole.arguments.push_str(&call.arguments);
            }
            _ => {}
        }
    }
    message
}
