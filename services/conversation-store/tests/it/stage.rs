//! A store that serves over a database of its own, and what tests say to it.

use std::{future::Future, str::FromStr as _, sync::Arc, time::Duration};

use chassis::drain::Drain;
use conversation_store::{Address, Error, Settings};
use proto::v1::{
    BeginTurnRequest, Conversation, CreateConversationRequest, Failure, FinishedTurn, ListConversationsRequest, ListMessagesRequest,
    Message, Principal, Role, StoredMessage, Usage, conversation_service_client::ConversationServiceClient,
};
use sqlx::{AssertSqlSafe, PgPool, SqlitePool};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming, transport::Channel};

use crate::postgres;

pub(crate) type Client = ConversationServiceClient<Channel>;

/// A store over a database of its own.
#[derive(Clone)]
pub(crate) struct Stage(Arc<Inner>);

struct Inner {
    store: Running,
    rows: Rows,
    _folder: TempDir,
}

/// The same rows, past the store.
enum Rows {
    Sqlite(SqlitePool),
    Postgres(PgPool),
}

/// A store that serves.
pub(crate) struct Running {
    pub(crate) client: Client,
    drain: Drain,
    serving: JoinHandle<Result<(), Error>>,
}

impl Running {
    /// Starts a store.
    pub(crate) async fn start(settings: Settings) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let drain = Drain::new();
        let serving = tokio::spawn({
            let drain = drain.clone();
            async move {
                let serving = conversation_store::run(settings, listener, drain.clone());
                drain.serve(Duration::from_secs(5), serving).await
            }
        });
        let client = ConversationServiceClient::new(chassis::channel::lazy(&address).unwrap())
            .max_decoding_message_size(proto::MAX_DECODED_MESSAGE)
            .max_encoding_message_size(proto::MAX_ENCODED_MESSAGE);
        Self { client, drain, serving }
    }

    /// Waits until it ends by itself, and says why.
    pub(crate) async fn stop_by_itself(self) -> Result<(), Error> {
        self.serving.await.unwrap()
    }

    /// Stops it as SIGTERM would, and says how that went.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.drain.begin();
        self.serving.await.unwrap()
    }
}

/// Settings as a process without any would have, over this database.
pub(crate) fn settings(database: &str) -> Settings {
    Settings {
        store_listen: String::new(),
        data_dir: None,
        database: Some(Address::from_str(database).unwrap()),
        database_wait: Duration::from_secs(30),
        store_timeout: Duration::from_secs(10),
        lease: Duration::from_millis(300),
        request_log_keep: Duration::from_hours(30 * 24),
        responses_keep: Duration::from_hours(30 * 24),
    }
}

impl Stage {
    pub(crate) async fn over_sqlite() -> Self {
        let folder = TempDir::new().unwrap();
        let database = format!("sqlite://{}/folder/chat.db", folder.path().display());
        let store = Running::start(settings(&database)).await;
        first_call(&store).await;
        let rows = Rows::Sqlite(SqlitePool::connect(&database).await.unwrap());
        Self(Arc::new(Inner {
            store,
            rows,
            _folder: folder,
        }))
    }

    pub(crate) async fn over_postgres() -> Self {
        let database = postgres::shared().await.database().await;
        let store = Running::start(settings(&database)).await;
        first_call(&store).await;
        let rows = Rows::Postgres(PgPool::connect(&database).await.unwrap());
        Self(Arc::new(Inner {
            store,
            rows,
            _folder: TempDir::new().unwrap(),
        }))
    }

    pub(crate) fn client(&self) -> Client {
        self.0.store.client.clone()
    }

    /// What a query counts, past the store.
    pub(crate) async fn count(&self, query: &str) -> i64 {
        let query = AssertSqlSafe(query.to_owned());
        match &self.0.rows {
            Rows::Sqlite(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
            Rows::Postgres(pool) => sqlx::query_scalar(query).fetch_one(pool).await.unwrap(),
        }
    }

    /// Stops the store; nothing may be left open.
    pub(crate) async fn end(self) {
        let inner = Arc::into_inner(self.0).expect("the test has dropped its stage");
        match &inner.rows {
            Rows::Sqlite(pool) => pool.close().await,
            Rows::Postgres(pool) => pool.close().await,
        }
        inner.store.stop().await.unwrap();
    }
}

/// Until the store has opened its database, calls wait in its listener.
async fn first_call(store: &Running) {
    let mut client = store.client.clone();
    let error = client.get_answer(proto::v1::GetAnswerRequest::default()).await.unwrap_err();
    assert_eq!(failure(&error).param, "stream_id");
}

pub(crate) fn failure(status: &Status) -> Failure {
    Failure::from_status(status)
}

pub(crate) fn who(tenant: &str, user: &str) -> Option<Principal> {
    let (tenant, user_id) = (tenant.to_owned(), user.to_owned());
    Principal { tenant, user_id }.into()
}

pub(crate) fn ann() -> Option<Principal> {
    who("acme", "ann")
}

pub(crate) fn says(role: Role, text: &str) -> Message {
    Message {
        role: role.into(),
        text: text.to_owned(),
        ..Message::default()
    }
}

pub(crate) async fn conversation(client: &mut Client, principal: Option<Principal>) -> Conversation {
    let request = CreateConversationRequest {
        principal,
        title: "a title".to_owned(),
        ..CreateConversationRequest::default()
    };
    client.create_conversation(request).await.unwrap().into_inner()
}

pub(crate) fn turn(conversation: &str, stream_id: &str, text: &str) -> BeginTurnRequest {
    BeginTurnRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        stream_id: stream_id.to_owned(),
        messages: vec![says(Role::User, text)],
        model: "m".to_owned(),
    }
}

pub(crate) async fn begin(client: &mut Client, turn: BeginTurnRequest) -> Vec<String> {
    let response = client.begin_turn(turn).await.unwrap().into_inner();
    response.history.into_iter().map(|message| message.text).collect()
}

pub(crate) fn finished(conversation: &str, stream_id: &str, text: &str) -> FinishedTurn {
    FinishedTurn {
        principal: ann(),
        stream_id: stream_id.to_owned(),
        conversation_id: conversation.to_owned(),
        message: Some(says(Role::Assistant, text)),
        state: "finished".to_owned(),
        finish_reason: "stop".to_owned(),
        model: "m".to_owned(),
        usage: Some(Usage {
            prompt_tokens: 3,
            completion_tokens: 5,
            reasoning_tokens: 1,
            cached_tokens: 2,
        }),
        started_ms: 1_700_000_000_000,
        ttft_ms: 7,
        duration_ms: 70,
        worker: "w".to_owned(),
        epoch: 1,
        request_id: "r".to_owned(),
        door: "completions".to_owned(),
        key_id: "k".to_owned(),
        status: 0,
        ..FinishedTurn::default()
    }
}

pub(crate) async fn finish(client: &mut Client, turns: Vec<FinishedTurn>) -> u32 {
    let request = proto::v1::FinishTurnsRequest { turns };
    client.finish_turns(request).await.unwrap().into_inner().closed
}

pub(crate) async fn messages(client: &mut Client, conversation: &str) -> Vec<StoredMessage> {
    let request = ListMessagesRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        page_size: 1_000,
        ..ListMessagesRequest::default()
    };
    all(client.list_messages(request).await.unwrap().into_inner()).await
}

pub(crate) async fn texts(client: &mut Client, conversation: &str) -> Vec<String> {
    let messages = messages(client, conversation).await;
    messages.into_iter().map(|stored| stored.message.unwrap().text).collect()
}

pub(crate) async fn conversations(client: &mut Client, page_size: u32, after_id: &str) -> Vec<Conversation> {
    let request = ListConversationsRequest {
        principal: ann(),
        page_size,
        after_id: after_id.to_owned(),
    };
    all(client.list_conversations(request).await.unwrap().into_inner()).await
}

pub(crate) async fn all<T>(stream: Streaming<T>) -> Vec<T> {
    stream.collect::<Result<_, _>>().await.unwrap()
}

/// Runs many calls at once.
pub(crate) async fn at_once<T: Send + 'static>(calls: impl IntoIterator<Item = impl Future<Output = T> + Send + 'static>) -> Vec<T> {
    let calls: Vec<_> = calls.into_iter().map(tokio::spawn).collect();
    let mut results = Vec::new();
    for call in calls {
        results.push(call.await.unwrap());
    }
    results
}
