//! Entries as `chat.completion.chunk` events. What clients check, and what servers get wrong: the same id and created on every
//! chunk; the role only in the first; `finish_reason` null until the last; the usage only where asked for, and then null in all
//! other chunks; a tool call's id and name only in its first piece; `[DONE]` only after success.

use bytes::BytesMut;
use proto::v1::{ChoiceEnd, Entry, FinishReason, Finished, Head, TokenLogprob, ToolCallDelta, entry::Event};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::Shape;
use crate::{failure::error_object, json, sse::Projection};

/// The projection.
#[derive(Debug)]
pub(crate) struct Chunks {
    /// The beginning of every chunk, up to its choices.
    prefix: Box<[u8]>,
    shape: Shape,
}

impl Chunks {
    /// For the answer with this head.
    pub(crate) fn new(head: &Head, shape: Shape) -> Self {
        let mut prefix = BytesMut::new();
        prefix.extend_from_slice(b"data: {\"id\":");
        json::string(&mut prefix, &super::id(head));
        prefix.extend_from_slice(b",\"object\":\"chat.completion.chunk\",\"created\":");
        json::value(&mut prefix, &head.created);
        prefix.extend_from_slice(b",\"model\":");
        json::string(&mut prefix, &head.model);
        if !head.conversation_id.is_empty() {
            prefix.extend_from_slice(b",\"conversation_id\":");
            json::string(&mut prefix, &head.conversation_id);
        }
        prefix.extend_from_slice(b",\"choices\":[");
        Self {
            prefix: prefix.as_ref().into(),
            shape,
        }
    }

    /// One chunk of one choice, whose delta `delta` writes.
    fn chunk(&self, choice: u32, logprobs: &[TokenLogprob], out: &mut BytesMut, delta: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"index\":");
        json::number(out, choice);
        out.extend_from_slice(b",\"delta\":{");
        delta(out);
        out.extend_from_slice(b"},\"logprobs\":");
        if logprobs.is_empty() {
            out.extend_from_slice(b"null");
        } else {
            json::value(out, &self::logprobs(logprobs));
        }
        out.extend_from_slice(b",\"finish_reason\":null}");
        self.close(out);
    }

    fn close(&self, out: &mut BytesMut) {
        out.extend_from_slice(if self.shape.include_usage {
            b"],\"usage\":null}\n\n"
        } else {
            b"]}\n\n"
        });
    }

    fn finished(&self, finished: &Finished, out: &mut BytesMut) {
        for choice in 0..self.shape.choices.max(1) {
            let end = finished.choices.iter().find(|end| end.choice == choice);
            let reason = end.map_or(FinishReason::Stop, ChoiceEnd::reason);
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(b"{\"index\":");
            json::number(out, choice);
            out.extend_from_slice(b",\"delta\":{},\"logprobs\":null,\"finish_reason\":");
            json::string(out, reason.as_word());
            out.extend_from_slice(b"}");
            self.close(out);
        }
        if self.shape.include_usage {
            out.extend_from_slice(&self.prefix);
            out.extend_from_slice(b"],\"usage\":");
            json::value(out, &crate::door::usage(finished.usage.unwrap_or_default()));
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

impl Projection for Chunks {
    fn open(&mut self, out: &mut BytesMut) {
        for choice in 0..self.shape.choices.max(1) {
            self.chunk(choice, &[], out, |out| {
                out.extend_from_slice(b"\"role\":\"assistant\",\"content\":\"\"");
            });
        }
    }

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        if !entry.token.is_empty() || !entry.logprobs.is_empty() {
            self.chunk(entry.choice, &entry.logprobs, out, |out| {
                out.extend_from_slice(b"\"content\":");
                json::string(out, &entry.token);
            });
        }
        match &entry.event {
            None => {}
            Some(Event::Reasoning(text)) if text.is_empty() => {}
            Some(Event::Reasoning(text)) => self.chunk(entry.choice, &[], out, |out| {
                out.extend_from_slice(b"\"reasoning_content\":");
                json::string(out, text);
            }),
            Some(Event::ToolCall(delta)) => self.chunk(entry.choice, &[], out, |out| tool_call(delta, out)),
            Some(Event::Finished(finished)) => self.finished(finished, out),
            Some(Event::Failed(failure)) => error(&error_object(failure), out),
            Some(Event::Cancelled(_)) => error(&crate::door::cancelled(), out),
        }
    }
}

fn tool_call(delta: &ToolCallDelta, out: &mut BytesMut) {
    out.extend_from_slice(b"\"tool_calls\":[{\"index\":");
    json::number(out, delta.index);
    if delta.id.is_empty() && delta.name.is_empty() {
        out.extend_from_slice(b",\"function\":{\"arguments\":");
    } else {
        out.extend_from_slice(b",\"id\":");
        json::string(out, &delta.id);
        out.extend_from_slice(b",\"type\":\"function\",\"function\":{\"name\":");
        json::string(out, &delta.name);
        out.extend_from_slice(b",\"arguments\":");
    }
    json::string(out, &delta.arguments);
    out.extend_from_slice(b"}}]");
}

/// The event that ends a stream which broke off.
pub(crate) fn error(error: &Value, out: &mut BytesMut) {
    out.extend_from_slice(b"data: ");
    json::value(out, &json!({ "error": error }));
    out.extend_from_slice(b"\n\n");
}

/// Log probabilities as OpenAI writes them.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Logprobs {
    content: Vec<LikelyToken>,
    #[schema(required)]
    refusal: Option<Vec<LikelyToken>>,
}

/// A token, and what might have stood in its place.
#[derive(Debug, Serialize, ToSchema)]
struct LikelyToken {
    #[serde(flatten)]
    token: Likely,
    top_logprobs: Vec<Likely>,
}

/// How likely a token was.
#[derive(Debug, Serialize, ToSchema)]
struct Likely {
    token: String,
    /// The natural logarithm of its probability.
    logprob: f32,
    bytes: Vec<u8>,
}

/// What OpenAI writes for a token that cannot be.
const IMPOSSIBLE: f32 = -9999.0;

pub(crate) fn logprobs(tokens: &[TokenLogprob]) -> Logprobs {
    let likely = |token: &TokenLogprob| LikelyToken {
        token: logprob(token),
        top_logprobs: token.top.iter().map(logprob).collect(),
    };
    Logprobs {
        content: tokens.iter().map(likely).collect(),
        refusal: None,
    }
}

/// The log probability of a token, as a number that JSON knows.
pub(crate) fn likelihood(token: &TokenLogprob) -> f32 {
    if token.logprob.is_finite() { token.logprob } else { IMPOSSIBLE }
}

fn logprob(token: &TokenLogprob) -> Likely {
    Likely {
        token: token.token.clone(),
        logprob: likelihood(token),
        bytes: token.bytes.clone(),
    }
}
