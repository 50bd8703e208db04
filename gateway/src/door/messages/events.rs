//! An answer as Anthropic's events: content blocks that follow each other, each opened, filled and closed, then how it ended.

use bytes::BytesMut;
use http::StatusCode;
use proto::v1::{ChoiceEnd, Entry, Finished, Head, ToolCallDelta, Usage, entry::Event};
use serde::Serialize;
use serde_json::{Value, json};

use super::{error::error, id, object::usage, stop};
use crate::{door::calls::InTurn, failure::Refusal, json, sse::Projection};

/// Writes the events. What an entry becomes depends on the block that is open, so a stream is written from its beginning.
pub(super) struct Blocks {
    head: Head,
    open: Option<Kind>,
    /// The number of the block that is open, or that comes next.
    index: u32,
    calls: InTurn,
}

/// What a block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Text,
    Thinking,
    /// The call of this index.
    Tool(u32),
}

impl Blocks {
    pub(super) fn new(head: &Head) -> Self {
        Self {
            head: head.clone(),
            open: None,
            index: 0,
            calls: InTurn::default(),
        }
    }

    /// Closes the block that is open, unless it is this one.
    fn close(&mut self, but: Option<Kind>, out: &mut BytesMut) {
        if self.open.is_none() || self.open == but {
            return;
        }
        self.open = None;
        out.extend_from_slice(b"event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":");
        json::number(out, self.index);
        out.extend_from_slice(b"}\n\n");
        self.index += 1;
    }

    /// Opens a block, if it is not open.
    fn begin(&mut self, kind: Kind, block: impl FnOnce() -> Value, out: &mut BytesMut) {
        self.close(Some(kind), out);
        if self.open.is_none() {
            self.open = Some(kind);
            let start = json!({"type": "content_block_start", "index": self.index, "content_block": block()});
            event("content_block_start", &start, out);
        }
    }

    /// Fills the open block. `kind` and `field` are plain words.
    fn delta(&self, kind: &str, field: &str, text: &str, out: &mut BytesMut) {
        out.extend_from_slice(b"event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":");
        json::number(out, self.index);
        out.extend_from_slice(b",\"delta\":{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"");
        out.extend_from_slice(field.as_bytes());
        out.extend_from_slice(b"\":");
        json::string(out, text);
        out.extend_from_slice(b"}}\n\n");
    }

    /// Tells the calls that wait for their turn: something else comes, or nothing.
    fn flush(&mut self, out: &mut BytesMut) {
        if self.calls.is_idle() {
            return;
        }
        let mut calls = std::mem::take(&mut self.calls);
        calls.flush(|call| self.tool_call(call, out));
        self.calls = calls;
    }

    fn tool_call(&mut self, call: &ToolCallDelta, out: &mut BytesMut) {
        let block = || json!({"type": "tool_use", "id": call.id, "name": call.name, "input": {}});
        self.begin(Kind::Tool(call.index), block, out);
        if !call.arguments.is_empty() {
            self.delta("input_json_delta", "partial_json", &call.arguments, out);
        }
    }

    fn finished(&mut self, finished: &Finished, out: &mut BytesMut) {
        self.flush(out);
        self.close(None, out);
        let end = finished.choices.first().cloned().unwrap_or_default();
        let (reason, sequence) = stop(ChoiceEnd::reason(&end), &end.stop);
        let delta = json!({
            "type": "message_delta",
            "delta": {"stop_reason": reason, "stop_sequence": sequence, "stop_details": null, "container": null},
            "usage": usage(finished.usage.unwrap_or_default()),
        });
        event("message_delta", &delta, out);
        event("message_stop", &json!({"type": "message_stop"}), out);
    }
}

impl Projection for Blocks {
    fn open(&mut self, out: &mut BytesMut) {
        let known = Usage {
            prompt_tokens: self.head.prompt_tokens,
            cached_tokens: self.head.cached_tokens,
            ..Usage::default()
        };
        let message = json!({
            "id": id(&self.head), "type": "message", "role": "assistant", "model": self.head.model,
            "content": [], "stop_reason": null, "stop_sequence": null, "stop_details": null, "container": null, "usage": usage(known),
        });
        event("message_start", &json!({"type": "message_start", "message": message}), out);
    }

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        if !entry.token.is_empty() {
            self.flush(out);
            self.begin(Kind::Text, || json!({"type": "text", "text": ""}), out);
            self.delta("text_delta", "text", &entry.token, out);
        }
        match &entry.event {
            None => {}
            Some(Event::Reasoning(text)) if text.is_empty() => {}
            Some(Event::Reasoning(text)) => {
                self.flush(out);
                self.begin(Kind::Thinking, || json!({"type": "thinking", "thinking": "", "signature": ""}), out);
                self.delta("thinking_delta", "thinking", text, out);
            }
            Some(Event::ToolCall(call)) => {
                let mut calls = std::mem::take(&mut self.calls);
                calls.take(call, |call| self.tool_call(call, out));
                self.calls = calls;
            }
            Some(Event::Finished(finished)) => self.finished(finished, out),
            Some(Event::Failed(failure)) => {
                let refusal = Refusal::from((**failure).clone());
                event("error", &error(refusal.status(), refusal.message()), out);
            }
            Some(Event::Cancelled(_)) => event("error", &error(StatusCode::CONFLICT, "the answer was cancelled"), out),
        }
    }

    fn ping(&self, _: bool, out: &mut BytesMut) {
        event("ping", &json!({"type": "ping"}), out);
    }
}

fn event(name: &str, data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json::value(out, data);
    out.extend_from_slice(b"\n\n");
}
