//! An answer as the semantic events of the Responses API (<https://platform.openai.com/docs/api-reference/responses-streaming>): each bears
//! its `type` as the name of the SSE event, too, and a `sequence_number`.
//!
//! Numbers are counted from the first event on, and follow from the entries alone. So whoever has the events up to a number gets exactly
//! the others by reading the answer from its beginning and leaving those out, at any gateway and at any time.

use bytes::BytesMut;
use proto::v1::{Entry, Failure, TokenLogprob, entry::Event};
use serde_json::{Value, json};

use super::{
    output::{End, How, Item, Kind, Listener, Output, Step, logprobs},
    resource::{Outline, Standing},
};
use crate::{json, sse::Projection};

/// The projection.
#[derive(Debug)]
pub(crate) struct Events {
    outline: Outline,
    output: Output,
    writer: Writer,
}

/// Writes events, numbers them, and leaves out those that the client has.
#[derive(Debug)]
struct Writer {
    /// The number of the next event.
    next: u64,
    /// The client has all before this one.
    from: u64,
    /// What is written now, while the output grows.
    out: BytesMut,
}

impl Events {
    /// Of the answer of which this is known, for a client that has the events up to number `after`.
    pub(crate) fn new(outline: Outline, after: Option<u64>) -> Self {
        Self {
            output: Output::new(outline.stream_id()),
            outline,
            writer: Writer {
                next: 0,
                from: after.map_or(0, |after| after.saturating_add(1)),
                out: BytesMut::new(),
            },
        }
    }

    /// All that there is to an answer with these entries.
    pub(crate) fn whole(mut self, entries: &[Entry]) -> BytesMut {
        let mut out = BytesMut::new();
        self.open(&mut out);
        for entry in entries {
            self.entry(entry, &mut out);
        }
        out
    }

    fn lifecycle(&mut self, kind: &str, standing: Standing) {
        let outline = &self.outline;
        let output = &self.output;
        self.writer.event(
            kind,
            |number| json!({"type": kind, "sequence_number": number, "response": outline.resource(standing, output)}),
        );
    }

    fn ended(&mut self, end: &End) {
        let kind = match &end.how {
            How::Completed => "response.completed",
            How::Incomplete(_) => "response.incomplete",
            How::Failed { code, message } => {
                self.writer.event(
                    "error",
                    |number| json!({"type": "error", "sequence_number": number, "code": code, "message": message, "param": null}),
                );
                "response.failed"
            }
            // The API has no event of its own for it; the status says what happened.
            How::Cancelled => "response.failed",
        };
        self.lifecycle(kind, Standing::Ended);
        if matches!(end.how, How::Completed | How::Incomplete(_)) {
            self.writer.out.extend_from_slice(b"data: [DONE]\n\n");
        }
    }
}

impl Projection for Events {
    fn open(&mut self, out: &mut BytesMut) {
        if self.outline.is_background() {
            self.lifecycle("response.created", Standing::Queued);
            self.lifecycle("response.queued", Standing::Queued);
        } else {
            self.lifecycle("response.created", Standing::Running);
        }
        self.lifecycle("response.in_progress", Standing::Running);
        out.unsplit(self.writer.out.split());
    }

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        self.output.take(entry, &mut self.writer);
        if entry.is_terminal()
            && let Some(end) = self.output.end().cloned()
        {
            self.ended(&end);
        }
        out.unsplit(self.writer.out.split());
    }

    fn broken(&mut self, entry: &Entry, out: &mut BytesMut) {
        if let Some(Event::Failed(failure)) = &entry.event {
            error_of_ours(failure, self.writer.next.saturating_sub(1), out);
        }
    }
}

/// An error that is no event of the response: it bears the number of the last one, so that who comes back after it misses none.
fn error_of_ours(failure: &Failure, number: u64, out: &mut BytesMut) {
    let error = json!({
        "type": "error", "sequence_number": number, "code": failure.reason().as_word(), "message": failure.message, "param": null,
    });
    out.extend_from_slice(b"event: error\ndata: ");
    json::value(out, &error);
    out.extend_from_slice(b"\n\n");
}

impl Writer {
    /// Counts an event. Says its number, if the client does not have it yet.
    fn count(&mut self) -> Option<u64> {
        let number = self.next;
        self.next += 1;
        (number >= self.from).then_some(number)
    }

    fn event(&mut self, kind: &str, data: impl FnOnce(u64) -> Value) {
        if let Some(number) = self.count() {
            self.out.extend_from_slice(b"event: ");
            self.out.extend_from_slice(kind.as_bytes());
            self.out.extend_from_slice(b"\ndata: ");
            json::value(&mut self.out, &data(number));
            self.out.extend_from_slice(b"\n\n");
        }
    }

    /// An event about an item.
    fn of(&mut self, kind: &str, index: usize, item: &Item, rest: Value) {
        self.event(kind, |number| {
            let mut data = json!({"type": kind, "sequence_number": number, "item_id": item.id(), "output_index": index});
            if let (Value::Object(data), Value::Object(rest)) = (&mut data, rest) {
                data.extend(rest);
            }
            data
        });
    }

    /// The event that comes with every token: written straight into the buffer.
    fn delta(&mut self, index: usize, item: &Item, text: &str, likely: &[TokenLogprob]) {
        let Some(number) = self.count() else { return };
        let (kind, has_part) = match item.kind() {
            Kind::Text => ("response.output_text.delta", true),
            Kind::Thought => ("response.reasoning_text.delta", true),
            Kind::Call(_) => ("response.function_call_arguments.delta", false),
        };
        let out = &mut self.out;
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\ndata: {\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.extend_from_slice(b"\",\"sequence_number\":");
        json::value(out, &number);
        out.extend_from_slice(b",\"item_id\":");
        json::string(out, item.id());
        out.extend_from_slice(b",\"output_index\":");
        json::value(out, &index);
        if has_part {
            out.extend_from_slice(b",\"content_index\":0");
        }
        out.extend_from_slice(b",\"delta\":");
        json::string(out, text);
        if item.kind() == Kind::Text {
            out.extend_from_slice(b",\"logprobs\":");
            json::value(out, &logprobs(likely));
        }
        out.extend_from_slice(b"}\n\n");
    }

    fn opened(&mut self, index: usize, item: &Item) {
        let kind = "response.output_item.added";
        self.event(
            kind,
            |number| json!({"type": kind, "sequence_number": number, "output_index": index, "item": item.object()}),
        );
        if !matches!(item.kind(), Kind::Call(_)) {
            self.of(
                "response.content_part.added",
                index,
                item,
                json!({"content_index": 0, "part": item.part()}),
            );
        }
    }

    fn closed(&mut self, index: usize, item: &Item) {
        match item.kind() {
            Kind::Call(_) => self.of(
                "response.function_call_arguments.done",
                index,
                item,
                json!({"name": item.name(), "arguments": item.text}),
            ),
            Kind::Text => self.of(
                "response.output_text.done",
                index,
                item,
                json!({"content_index": 0, "text": item.text, "logprobs": logprobs(&item.logprobs)}),
            ),
            Kind::Thought => self.of(
                "response.reasoning_text.done",
                index,
                item,
                json!({"content_index": 0, "text": item.text}),
            ),
        }
        if !matches!(item.kind(), Kind::Call(_)) {
            self.of(
                "response.content_part.done",
                index,
                item,
                json!({"content_index": 0, "part": item.part()}),
            );
        }
        let kind = "response.output_item.done";
        self.event(
            kind,
            |number| json!({"type": kind, "sequence_number": number, "output_index": index, "item": item.object()}),
        );
    }
}

impl Listener for Writer {
    fn step(&mut self, index: usize, item: &Item, step: Step<'_>) {
        match step {
            Step::Opened => self.opened(index, item),
            Step::Delta(text, likely) => self.delta(index, item, text, likely),
            Step::Closed => self.closed(index, item),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::v1::{ChoiceEnd, ToolCallDelta, Usage};

    use super::*;

    fn events(after: Option<u64>, entries: &[Entry]) -> String {
        let events = Events::new(Outline::for_tests("s"), after);
        String::from_utf8(events.whole(entries).to_vec()).unwrap()
    }

    fn entry(kind: u8) -> Entry {
        let event = match kind % 4 {
            0 => return Entry::text("a\"b", 1),
            1 => Event::Reasoning("hm".to_owned()),
            n => Event::ToolCall(Box::new(ToolCallDelta {
                index: u32::from(n),
                id: "c".to_owned(),
                name: "f".to_owned(),
                arguments: "{}".to_owned(),
            })),
        };
        Entry {
            event: Some(event),
            ..Entry::default()
        }
    }

    proptest! {
        #[test]
        fn from_after_any_event_come_exactly_the_others(kinds in prop::collection::vec(0_u8..4, 0..12)) {
            let mut entries: Vec<Entry> = kinds.into_iter().map(entry).collect();
            entries.push(Entry::finished(vec![ChoiceEnd::default()], Usage::default()));
            let whole = events(None, &entries);
            let mut rest = whole.as_str();
            for (number, event) in whole.split_inclusive("\n\n").enumerate() {
                if event.starts_with("data: [DONE]") {
                    prop_assert_eq!(rest, event, "the end has no number");
                    break;
                }
                prop_assert!(event.contains(&format!("\"sequence_number\":{number},")), "{event}");
                rest = &rest[event.len()..];
                prop_assert_eq!(&events(Some(number as u64), &entries), rest);
            }
        }
    }
}
