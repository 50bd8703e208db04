//! Conversations and messages, as they are shown.

use proto::v1::{Conversation, Role, StoredMessage};
use serde::Serialize;
use utoipa::ToSchema;

/// A conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(crate) struct ConversationOut {
    id: String,
    /// `conversation`.
    object: &'static str,
    /// Empty: none yet.
    title: String,
    /// In seconds since 1970.
    created_at: i64,
    /// Likewise.
    updated_at: i64,
    /// How many messages it has.
    messages: u32,
}

/// A message of a conversation.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ConversationMessage)]
pub(crate) struct MessageOut {
    id: String,
    /// `conversation.message`.
    object: &'static str,
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    role: &'static str,
    content: String,
    /// In seconds since 1970.
    created_at: i64,
    /// The answer that it belongs to.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    stream_id: String,
    /// Of the assistant's: `running`, `finished`, `failed` or `cancelled`.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    state: String,
    /// What the assistant thought before.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    reasoning_content: String,
}

/// A conversation, as it is shown.
pub(super) fn object(conversation: &Conversation) -> ConversationOut {
    ConversationOut {
        id: conversation.id.clone(),
        object: "conversation",
        title: conversation.title.clone(),
        created_at: conversation.created_ms / 1000,
        updated_at: conversation.updated_ms / 1000,
        messages: conversation.messages,
    }
}

/// A message, as it is shown.
pub(super) fn message_object(stored: StoredMessage) -> MessageOut {
    let message = stored.message.unwrap_or_default();
    let role = match message.role() {
        Role::Unspecified | Role::User => "user",
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Developer => "developer",
    };
    MessageOut {
        id: stored.id,
        object: "conversation.message",
        role,
        content: message.text,
        created_at: stored.created_ms / 1000,
        stream_id: stored.stream_id,
        state: stored.state,
        reasoning_content: message.reasoning,
    }
}
