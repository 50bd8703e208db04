//! What it costs to close turns: CPU time of a store over SQLite, with its client and the gRPC between them, per turn.
//! `cargo bench -p conversation-store` prints it; the bound is 20 µs.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::disallowed_methods,
    clippy::cast_precision_loss,
    missing_docs
)]

use std::{str::FromStr as _, time::Duration};

use chassis::drain::Drain;
use conversation_store::{Address, Settings};
use nix::sys::resource::{UsageWho, getrusage};
use proto::v1::{
    BeginTurnRequest, CreateConversationRequest, FinishTurnsRequest, FinishedTurn, Message, Role, Usage,
    conversation_service_client::ConversationServiceClient,
};
use tokio::net::TcpListener;
use tonic::transport::Channel;

/// Turns of a batch, and batches.
const TURNS: usize = 128;
const BATCHES: usize = 40;

fn main() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let folder = tempfile::TempDir::new().unwrap();
        let drain = Drain::new();
        let (address, serving) = serve(&format!("sqlite://{}/chat.db", folder.path().display()), drain.clone()).await;
        let mut client = ConversationServiceClient::new(chassis::channel::lazy(&address).unwrap());
        let conversation = client
            .create_conversation(CreateConversationRequest::default())
            .await
            .unwrap()
            .into_inner()
            .id;
        for (what, conversation) in [("only logged", ""), ("in a conversation", &*conversation)] {
            let batches = batches(&mut client, what, conversation).await;
            let before = cpu_us();
            for batch in batches {
                assert_eq!(client.finish_turns(batch).await.unwrap().into_inner().closed as usize, TURNS);
            }
            let each = (cpu_us() - before) as f64 / (TURNS * BATCHES) as f64;
            println!("closing a turn of 1 KiB, {what}: {each:.1} µs of CPU, {TURNS} to a call");
        }
        drain.begin();
        serving.await.unwrap();
    });
}

async fn serve(database: &str, drain: Drain) -> (String, tokio::task::JoinHandle<()>) {
    let settings = Settings {
        store_listen: String::new(),
        data_dir: None,
        database: Some(Address::from_str(database).unwrap()),
        database_wait: Duration::ZERO,
        store_timeout: Duration::from_mins(1),
        lease: Duration::from_secs(15),
        request_log_keep: Duration::from_hours(1),
        responses_keep: Duration::from_hours(1),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let serving = tokio::spawn(async move {
        let serving = conversation_store::run(settings, listener, drain.clone());
        drain.serve(Duration::from_secs(5), serving).await.unwrap();
    });
    (address, serving)
}

/// The batches, with their turns opened.
async fn batches(client: &mut ConversationServiceClient<Channel>, what: &str, conversation: &str) -> Vec<FinishTurnsRequest> {
    let mut batches = Vec::new();
    for batch in 0..BATCHES {
        let turns: Vec<_> = (0..TURNS).map(|n| turn(format!("{what} {batch}.{n}"), conversation)).collect();
        for turn in turns.iter().filter(|turn| !turn.conversation_id.is_empty()) {
            let begin = BeginTurnRequest {
                conversation_id: turn.conversation_id.clone(),
                stream_id: turn.stream_id.clone(),
                ..BeginTurnRequest::default()
            };
            client.begin_turn(begin).await.unwrap();
        }
        batches.push(FinishTurnsRequest { turns });
    }
    batches
}

fn turn(stream_id: String, conversation: &str) -> FinishedTurn {
    FinishedTurn {
        stream_id,
        conversation_id: conversation.to_owned(),
        message: Some(Message {
            role: Role::Assistant.into(),
            text: "token ".repeat(170),
            ..Message::default()
        }),
        state: "finished".to_owned(),
        finish_reason: "stop".to_owned(),
        model: "SmolLM2-135M-Instruct".to_owned(),
        usage: Some(Usage::default()),
        worker: "127.0.0.1:50061".to_owned(),
        epoch: 1,
        request_id: "0f0e0d0c-0b0a-4908-8706-050403020100".to_owned(),
        ..FinishedTurn::default()
    }
}

fn cpu_us() -> i64 {
    let usage = getrusage(UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|time| time.tv_sec() * 1_000_000 + time.tv_usec())
        .sum()
}
