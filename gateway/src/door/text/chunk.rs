//! Entries as streamed `text_completion` objects: the same id and created on each; `finish_reason` null until the last; the usage only
//! where asked for, and then null in all other events; `[DONE]` only after success.

use bytes::BytesMut;
use proto::v1::{ChoiceEnd, Entry, FinishReason, Finished, Head, entry::Event};

use super::{Shape, logprobs::logprobs};
use crate::{door::completions::error, failure::error_object, json, sse::Projection};

/// The projection.
#[derive(Debug)]
pub(super) struct Chunks {
    /// The beginning of every event, up to its choices.
    prefix: Box<[u8]>,
    shape: Shape,
}

impl Chunks {
    /// For the answer with this head.
    pub(super) fn new(head: &Head, shape: Shape) -> Self {
        let mut prefix = BytesMut::new();
        prefix.extend_from_slice(b"data: {\"id\":");
        json::string(&mut prefix, &super::id(head));
        prefix.extend_from_slice(b",\"object\":\"text_completion\",\"created\":");
        json::value(&mut prefix, &head.created);
        prefix.extend_from_slice(b",\"model\":");
        json::string(&mut prefix, &head.model);
        prefix.extend_from_slice(b",\"choices\":[");
        Self {
            prefix: prefix.as_ref().into(),
            shape,
        }
    }

    /// One event of one choice: its text, what follows that in its object, and nothing else.
    fn event(&self, choice: u32, text: &str, out: &mut BytesMut, rest: impl FnOnce(&mut BytesMut)) {
        out.extend_from_slice(&self.prefix);
        out.extend_from_slice(b"{\"text\":");
        json::string(out, text);
        out.extend_from_slice(b",\"index\":");
        json::number(out, choice);
        out.extend_from_slice(b",\"logprobs\":");
        rest(out);
        out.extend_from_slice(if self.shape.include_usage {
            b"}],\"usage\":null}\n\n"
        } else {
            b"}]}\n\n"
        });
    }

    fn finished(&self, finished: &Finished, out: &mut BytesMut) {
        for choice in 0..self.shape.choices.max(1) {
            let end = finished.choices.iter().find(|end| end.choice == choice);
            let reason = end.map_or(FinishReason::Stop, ChoiceEnd::reason);
            self.event(choice, "", out, |out| {
                out.extend_from_slice(b"null,\"finish_reason\":");
                json::string(out, reason.as_word());
            });
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

const UNFINISHED: &[u8] = b"null,\"finish_reason\":null";

impl Projection for Chunks {
    fn open(&mut self, out: &mut BytesMut) {
        let Some(prompt) = self.shape.echo.first() else { return };
        for choice in 0..self.shape.choices.max(1) {
            self.event(choice, prompt, out, |out| out.extend_from_slice(UNFINISHED));
        }
    }

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        if !entry.token.is_empty() || !entry.logprobs.is_empty() {
            self.event(entry.choice, &entry.token, out, |out| match logprobs(&entry.logprobs) {
                None => out.extend_from_slice(UNFINISHED),
                Some(logprobs) => {
                    json::value(out, &logprobs);
                    out.extend_from_slice(b",\"finish_reason\":null");
                }
            });
        }
        match &entry.event {
            // A text has neither thoughts nor calls beside it.
            None | Some(Event::Reasoning(_) | Event::ToolCall(_)) => {}
            Some(Event::Finished(finished)) => self.finished(finished, out),
            Some(Event::Failed(failure)) => error(&error_object(failure), out),
            Some(Event::Cancelled(_)) => error(&crate::door::cancelled(), out),
        }
    }
}
