//! What the store does, in statements that both databases speak. Each call is one transaction and one scope.
//!
//! - [`conversations`]: make, read, list, change, delete.
//! - [`messages`]: list, and the history of a turn. [`items`]: add, read and delete single ones.
//! - [`turns`]: open a turn. [`finish`]: close many.
//! - [`records`]: what was asked, beside the answer.
//! - [`answers`]: checkpoint, read. [`claims`]: who may write one. [`orphans`]: those that nobody makes any more.
//! - [`requests`]: read the request log.
//! - [`keys`]: API keys, and tickets that were taken.
//! - [`retention`]: let old things go.
//!
//! Called by [`service`](crate::service), which knows gRPC; the databases are behind [`Database`].

mod answers;
mod claims;
mod conversations;
mod finish;
mod items;
mod keys;
mod messages;
mod orphans;
mod records;
mod requests;
mod retention;
mod turns;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use prost::Message as _;
use proto::v1::{Failure, Image, Message, Reason, ToolCall};
use serde::{Deserialize, Serialize};

use crate::{
    check,
    database::{Database, Session},
    error::Fault,
    scope::Scope,
};

pub(crate) use conversations::Cursor;
pub(crate) use keys::KeyCursor;
pub(crate) use messages::MessageCursor;
pub(crate) use requests::LogCursor;

/// The conversations, turns and claims of the mesh. Cloning shares.
#[derive(Clone)]
pub(crate) struct Store {
    database: Arc<dyn Database>,
    /// How long an answer counts as made after it was saved.
    lease: Duration,
    born: Instant,
}

impl Store {
    /// Over this database, with leases of this length.
    pub(crate) fn new(database: Arc<dyn Database>, lease: Duration) -> Self {
        Self {
            database,
            lease,
            born: Instant::now(),
        }
    }

    /// Gives the database back.
    pub(crate) async fn close(&self) {
        self.database.close().await;
    }
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

fn no_conversation() -> Fault {
    Failure::new(Reason::NotFound, "there is no such conversation").into()
}

fn no_answer() -> Fault {
    Failure::new(Reason::NotFound, "there is no such answer").into()
}

/// Refuses a conversation that is not there, or not the principal's: the same to the caller.
async fn must_exist(session: &mut dyn Session, scope: &Scope, conversation: &str) -> Result<(), Fault> {
    let params = scope.params([conversation.into()]);
    let found = session
        .row(
            "SELECT 1 FROM conversations WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
            params,
        )
        .await?;
    found.map(|_| ()).ok_or_else(no_conversation)
}

/// A function call, as a row keeps it.
#[derive(Deserialize, Serialize)]
struct StoredCall {
    id: String,
    name: String,
    arguments: String,
}

/// Function calls as JSON text; empty where there are none.
fn calls_to_text(calls: &[ToolCall]) -> Result<String, Fault> {
    if calls.is_empty() {
        return Ok(String::new());
    }
    let calls: Vec<StoredCall> = calls
        .iter()
        .map(|call| StoredCall {
            id: check::storable(&call.id).into_owned(),
            name: check::storable(&call.name).into_owned(),
            arguments: check::storable(&call.arguments).into_owned(),
        })
        .collect();
    serde_json::to_string(&calls).map_err(|error| Fault::Unreadable(error.to_string()))
}

/// Pictures as the bytes of a message that has nothing else.
fn images_to_bytes(images: &[Image]) -> Vec<u8> {
    let message = Message {
        images: images.to_vec(),
        ..Message::default()
    };
    message.encode_to_vec()
}

/// Pictures from such bytes.
fn images_from_bytes(bytes: &[u8]) -> Result<Vec<Image>, Fault> {
    let message = Message::decode(bytes).map_err(|error| Fault::Unreadable(format!("images: {error}")))?;
    Ok(message.images)
}

/// Function calls from JSON text.
fn calls_from_text(text: &str) -> Result<Vec<ToolCall>, Fault> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let calls: Vec<StoredCall> = serde_json::from_str(text).map_err(|error| Fault::Unreadable(format!("tool_calls: {error}")))?;
    Ok(calls
        .into_iter()
        .map(|call| ToolCall {
            id: call.id,
            name: call.name,
            arguments: call.arguments,
        })
        .collect())
}
