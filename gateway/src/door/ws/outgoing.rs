//! What a WebSocket is told: a pure projection of entries to messages.

use axum::extract::ws::{Message, Utf8Bytes};
use bytes::BytesMut;
use proto::v1::{ChoiceEnd, Entry, FinishReason, Head, entry::Event};
use serde_json::{Value, json};

use crate::{
    door::{cancelled, usage},
    failure::{Refusal, error_object},
    json,
};

/// The projection.
#[derive(Debug)]
pub(super) struct Events {
    stream_id: String,
    /// The beginning of every token.
    prefix: Box<[u8]>,
}

impl Events {
    /// For the answer with this head.
    pub(super) fn new(head: &Head) -> Self {
        let mut prefix = BytesMut::new();
        prefix.extend_from_slice(b"{\"type\":\"token\",\"stream_id\":");
        json::string(&mut prefix, &head.stream_id);
        prefix.extend_from_slice(b",\"position\":");
        Self {
            stream_id: head.stream_id.clone(),
            prefix: prefix.as_ref().into(),
        }
    }

    /// The message that stands for this entry.
    pub(super) fn message(&self, position: u32, entry: &Entry) -> Message {
        let end = match &entry.event {
            None => return self.token(position, &entry.token, b"content"),
            Some(Event::Reasoning(text)) => return self.token(position, text, b"reasoning"),
            Some(Event::ToolCall(call)) => json!({
                "type": "tool_call",
                "position": position,
                "index": call.index,
                "id": call.id,
                "name": call.name,
                "arguments": call.arguments,
            }),
            Some(Event::Finished(finished)) => json!({
                "type": "done",
                "stream_id": self.stream_id,
                "finish_reason": finished.choices.first().map_or(FinishReason::Stop, ChoiceEnd::reason).as_word(),
                "usage": usage(finished.usage.unwrap_or_default()),
            }),
            Some(Event::Failed(failure)) => error(&error_object(failure)),
            Some(Event::Cancelled(end)) => json!({
                "type": "cancelled",
                "stream_id": self.stream_id,
                "usage": usage(end.usage.unwrap_or_default()),
                "error": cancelled(),
            }),
        };
        Message::text(end.to_string())
    }

    fn token(&self, position: u32, text: &str, field: &[u8]) -> Message {
        let mut out = BytesMut::with_capacity(self.prefix.len() + text.len() + 40);
        out.extend_from_slice(&self.prefix);
        json::number(&mut out, position);
        out.extend_from_slice(b",\"");
        out.extend_from_slice(field);
        out.extend_from_slice(b"\":");
        json::string(&mut out, text);
        out.extend_from_slice(b"}");
        // All of it came from texts.
        Message::Text(Utf8Bytes::try_from(out.freeze()).unwrap_or_default())
    }
}

/// Something that the client asked for cannot be done.
pub(super) fn refused(refusal: &Refusal) -> Message {
    Message::text(error(&refusal.object()).to_string())
}

/// The answer that was asked for again has been read to its end.
pub(super) fn nothing_left() -> Message {
    Message::text(json!({ "type": "done", "finish_reason": null, "usage": null }).to_string())
}

fn error(error: &Value) -> Value {
    json!({ "type": "error", "error": error })
}
