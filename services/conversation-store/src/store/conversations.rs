//! Conversations: make, read, list, change, delete.

use std::collections::{BTreeMap, HashMap};

use proto::v1::{Conversation, CreateConversationRequest, Failure, RenameConversationRequest, UpdateConversationRequest};
use uuid::Uuid;

use super::{
    Store,
    messages::{self, NewMessages},
    must_exist, no_conversation, now_ms,
};
use crate::{check, database::Row, error::Fault, scope::Scope};

/// Where a list of conversations goes on: after the one with this change and this id, in falling order.
#[derive(Clone, Debug)]
pub(crate) struct Cursor {
    updated_ms: i64,
    id: String,
}

impl Cursor {
    /// Before the first.
    pub(crate) fn start() -> Self {
        Self {
            updated_ms: i64::MAX,
            id: String::new(),
        }
    }

    /// After this one.
    pub(crate) fn after(conversation: &Conversation) -> Self {
        Self {
            updated_ms: conversation.updated_ms,
            id: conversation.id.clone(),
        }
    }
}

impl Store {
    /// Makes a conversation, and the user with the first one.
    pub(crate) async fn create_conversation(&self, scope: &Scope, request: &CreateConversationRequest) -> Result<Conversation, Fault> {
        check::title("title", &request.title)?;
        check::metadata(&request.metadata)?;
        check::messages(&request.messages)?;
        let now = now_ms();
        let metadata = metadata_to_text(&request.metadata)?;
        let id = Uuid::now_v7().to_string();
        let mut session = self.database.write().await?;
        session
            .run(
                "INSERT INTO users (tenant_id, user_id, created_ms) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
                scope.params([now.into()]),
            )
            .await?;
        session
            .run(
                "INSERT INTO conversations (tenant_id, user_id, id, title, created_ms, updated_ms, messages, metadata)
                VALUES ($1, $2, $3, $4, $5, $5, $6, $7)",
                scope.params([
                    (&id).into(),
                    (&request.title).into(),
                    now.into(),
                    i64::try_from(request.messages.len()).unwrap_or_default().into(),
                    (&metadata).into(),
                ]),
            )
            .await?;
        let new = NewMessages {
            conversation: &id,
            stream_id: "",
            first: 0,
            now,
            messages: &request.messages,
        };
        messages::insert(&mut *session, scope, new).await?;
        session.commit().await?;
        Ok(Conversation {
            id,
            title: request.title.clone(),
            created_ms: now,
            updated_ms: now,
            messages: u32::try_from(request.messages.len()).unwrap_or_default(),
            metadata: request.metadata.clone(),
        })
    }

    /// Reads one.
    pub(crate) async fn get_conversation(&self, scope: &Scope, id: &str) -> Result<Conversation, Fault> {
        check::name("id", id)?;
        let mut session = self.database.read().await?;
        let row = session
            .row(
                "SELECT id, title, created_ms, updated_ms, messages - removed, metadata FROM conversations
                WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
                scope.params([id.into()]),
            )
            .await?;
        conversation(&row.ok_or_else(no_conversation)?)
    }

    /// Where a list goes on that has come to this conversation. Empty: at the first.
    pub(crate) async fn conversation_cursor(&self, scope: &Scope, after_id: &str) -> Result<Cursor, Fault> {
        if after_id.is_empty() {
            return Ok(Cursor::start());
        }
        check::text("after_id", after_id)?;
        let mut session = self.database.read().await?;
        let row = session
            .row(
                "SELECT updated_ms FROM conversations WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
                scope.params([after_id.into()]),
            )
            .await?;
        let row = row.ok_or_else(|| Failure {
            param: "after_id".to_owned(),
            ..Failure::new(proto::v1::Reason::NotFound, "after_id is not one of the conversations")
        })?;
        Ok(Cursor {
            updated_ms: row.int(0)?,
            id: after_id.to_owned(),
        })
    }

    /// The conversations after `cursor`, the last changed first: at most `limit`.
    pub(crate) async fn list_conversations(&self, scope: &Scope, cursor: &Cursor, limit: u32) -> Result<Vec<Conversation>, Fault> {
        let mut session = self.database.read().await?;
        let rows = session
            .rows(
                "SELECT id, title, created_ms, updated_ms, messages - removed, metadata FROM conversations
                WHERE tenant_id = $1 AND user_id = $2 AND (updated_ms, id) < ($3, $4)
                ORDER BY updated_ms DESC, id DESC LIMIT $5",
                scope.params([cursor.updated_ms.into(), (&cursor.id).into(), limit.into()]),
            )
            .await?;
        rows.iter().map(conversation).collect()
    }

    /// Gives one a new title.
    pub(crate) async fn rename_conversation(&self, scope: &Scope, request: &RenameConversationRequest) -> Result<Conversation, Fault> {
        check::name("id", &request.id)?;
        check::title("title", &request.title)?;
        if request.title.is_empty() {
            return Err(Failure::invalid("title", "title is missing; 1 to 200 characters were expected").into());
        }
        let mut session = self.database.write().await?;
        let row = session
            .row(
                "UPDATE conversations SET title = $4, updated_ms = CASE WHEN updated_ms < $5 THEN $5 ELSE updated_ms END
                WHERE tenant_id = $1 AND user_id = $2 AND id = $3
                RETURNING id, title, created_ms, updated_ms, messages - removed, metadata",
                scope.params([(&request.id).into(), (&request.title).into(), now_ms().into()]),
            )
            .await?;
        let renamed = conversation(&row.ok_or_else(no_conversation)?)?;
        session.commit().await?;
        Ok(renamed)
    }

    /// Gives one other metadata.
    pub(crate) async fn update_conversation(&self, scope: &Scope, request: &UpdateConversationRequest) -> Result<Conversation, Fault> {
        check::name("id", &request.id)?;
        check::metadata(&request.metadata)?;
        let metadata = metadata_to_text(&request.metadata)?;
        let mut session = self.database.write().await?;
        let row = session
            .row(
                "UPDATE conversations SET metadata = $4, updated_ms = CASE WHEN updated_ms < $5 THEN $5 ELSE updated_ms END
                WHERE tenant_id = $1 AND user_id = $2 AND id = $3
                RETURNING id, title, created_ms, updated_ms, messages - removed, metadata",
                scope.params([(&request.id).into(), (&metadata).into(), now_ms().into()]),
            )
            .await?;
        let updated = conversation(&row.ok_or_else(no_conversation)?)?;
        session.commit().await?;
        Ok(updated)
    }

    /// Deletes one with its messages and answers, and the records of those. A turn of it that runs is not stored when it ends.
    pub(crate) async fn delete_conversation(&self, scope: &Scope, id: &str) -> Result<(), Fault> {
        check::name("id", id)?;
        let mut session = self.database.write().await?;
        // The conversation's row is locked before any other of it, as everywhere: two writers then never wait for each other.
        let locked = session
            .run(
                "UPDATE conversations SET messages = messages WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
                scope.params([id.into()]),
            )
            .await?;
        if locked == 0 {
            return Err(no_conversation());
        }
        session
            .run(
                "DELETE FROM records WHERE tenant_id = $1 AND user_id = $2 AND stream_id IN (SELECT m.stream_id FROM messages m
                    WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3 AND m.is_answer = 1)",
                scope.params([id.into()]),
            )
            .await?;
        session
            .run(
                "DELETE FROM answers WHERE tenant_id = $1 AND user_id = $2 AND stream_id IN (SELECT m.stream_id FROM messages m
                    WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3 AND m.is_answer = 1)",
                scope.params([id.into()]),
            )
            .await?;
        session
            .run(
                "DELETE FROM conversations WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
                scope.params([id.into()]),
            )
            .await?;
        session.commit().await
    }

    /// Refuses a conversation that is not the principal's.
    pub(crate) async fn conversation_must_exist(&self, scope: &Scope, id: &str) -> Result<(), Fault> {
        let mut session = self.database.read().await?;
        must_exist(&mut *session, scope, id).await
    }
}

fn conversation(row: &Row) -> Result<Conversation, Fault> {
    Ok(Conversation {
        id: row.text(0)?,
        title: row.text(1)?,
        created_ms: row.int(2)?,
        updated_ms: row.int(3)?,
        messages: row.count(4)?,
        metadata: metadata_from_text(&row.text(5)?)?,
    })
}

/// Metadata as JSON text; empty where there is none.
fn metadata_to_text(given: &HashMap<String, String>) -> Result<String, Fault> {
    if given.is_empty() {
        return Ok(String::new());
    }
    let storable: BTreeMap<_, _> = given
        .iter()
        .map(|(key, value)| (check::storable(key), check::storable(value)))
        .collect();
    serde_json::to_string(&storable).map_err(|error| Fault::Unreadable(error.to_string()))
}

/// Metadata from JSON text.
fn metadata_from_text(text: &str) -> Result<HashMap<String, String>, Fault> {
    if text.is_empty() {
        return Ok(HashMap::new());
    }
    serde_json::from_str(text).map_err(|error| Fault::Unreadable(format!("metadata: {error}")))
}
