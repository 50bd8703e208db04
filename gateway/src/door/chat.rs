//! `GET /v1/chat/stream?q=`: semantic events for a browser's `EventSource`: `lifecycle`, `delta`, `usage`, `error`, `ping`.
//!
//! Each event of an entry bears `id: <stream_id>.<position>`, so an `EventSource` that lost its connection comes back with
//! `Last-Event-ID` and goes on with the same answer right after it. After the last event there is nothing: 204, which ends it.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, StatusCode, Uri};
use proto::v1::{ChoiceEnd, Entry, FinishReason, Finished, Head, entry::Event};
use serde_json::{Value, json};

use crate::{
    account::Account,
    app::App,
    body::Query,
    failure::{Refusal, error_object},
    json,
    sse::{self, Projection},
    stack::Arrival,
    turn::Answer,
};

/// The header in which an `EventSource` says what it had last.
const LAST_EVENT_ID: &str = "last-event-id";

/// The door.
pub(crate) async fn stream(State(app): State<App>, arrival: Arrival, uri: Uri, headers: HeaderMap) -> Response {
    let mut account = Account::open(&app, arrival, "events");
    match open(&app, &mut account, &uri, &headers).await {
        Ok(Some(answer)) => {
            let events = Events::new(answer.head());
            sse::response(answer, events, account, app.settings().sse_keepalive)
        }
        Ok(None) => StatusCode::NO_CONTENT.into_response(),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn open(app: &App, account: &mut Account, uri: &Uri, headers: &HeaderMap) -> Result<Option<Answer>, Refusal> {
    let query = Query::of(uri);
    let last = headers.get(LAST_EVENT_ID).and_then(|id| id.to_str().ok());
    if let Some(last) = last.or(query.text("last_event_id")) {
        let (stream_id, next) = after(last).ok_or_else(|| {
            Refusal::invalid(
                "last_event_id",
                "last_event_id: expected the id of an event, <stream_id>.<position>",
            )
        })?;
        return super::resume(app, account, stream_id, next).await;
    }
    super::begin(app, account, super::from_query(&query, "q")?).await.map(Some)
}

/// The answer that an event belongs to, and the position after it.
fn after(id: &str) -> Option<(&str, u32)> {
    let (stream_id, position) = id.rsplit_once('.')?;
    Some((stream_id, position.parse::<u32>().ok()?.checked_add(1)?))
}

/// The projection.
#[derive(Debug)]
pub(crate) struct Events {
    started: Value,
    /// The beginning of every id line.
    id: Box<[u8]>,
}

impl Events {
    fn new(head: &Head) -> Self {
        let mut started = json!({
            "state": "started",
            "stream_id": head.stream_id,
            "model": head.model,
            "created": head.created,
        });
        if !head.conversation_id.is_empty() {
            started["conversation_id"] = head.conversation_id.as_str().into();
        }
        Self {
            started,
            id: format!("id: {}.", head.stream_id).into_bytes().into(),
        }
    }

    fn delta(&self, position: u32, field: &[u8], out: &mut BytesMut, value: impl FnOnce(&mut BytesMut)) {
        self.id(position, out);
        out.extend_from_slice(b"event: delta\ndata: {\"");
        out.extend_from_slice(field);
        out.extend_from_slice(b"\":");
        value(out);
        out.extend_from_slice(b"}\n\n");
    }

    fn id(&self, position: u32, out: &mut BytesMut) {
        out.extend_from_slice(&self.id);
        json::number(out, position);
        out.extend_from_slice(b"\n");
    }

    /// The id stands on the last event only: who has had less than all comes back for all.
    fn finished(&self, position: u32, finished: &Finished, out: &mut BytesMut) {
        event("usage", &super::usage(finished.usage.unwrap_or_default()), out);
        let reason = finished.choices.first().map_or(FinishReason::Stop, ChoiceEnd::reason);
        self.id(position, out);
        event("lifecycle", &json!({ "state": "finished", "finish_reason": reason.as_word() }), out);
    }
}

fn event(name: &str, data: &Value, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json::value(out, data);
    out.extend_from_slice(b"\n\n");
}

impl Projection for Events {
    fn open(&self, out: &mut BytesMut) {
        event("lifecycle", &self.started, out);
    }

    fn entry(&self, position: u32, entry: &Entry, out: &mut BytesMut) {
        if !entry.token.is_empty() {
            self.delta(position, b"text", out, |out| json::string(out, &entry.token));
        }
        match &entry.event {
            None => {}
            Some(Event::Reasoning(text)) if text.is_empty() => {}
            Some(Event::Reasoning(text)) => self.delta(position, b"reasoning", out, |out| json::string(out, text)),
            Some(Event::ToolCall(call)) => self.delta(position, b"tool_call", out, |out| {
                let piece = json!({ "index": call.index, "id": call.id, "name": call.name, "arguments": call.arguments });
                json::value(out, &piece);
            }),
            Some(Event::Finished(finished)) => self.finished(position, finished, out),
            Some(Event::Failed(failure)) => {
                self.id(position, out);
                event("error", &error_object(failure), out);
            }
            Some(Event::Cancelled(_)) => {
                self.id(position, out);
                event("lifecycle", &json!({ "state": "cancelled" }), out);
            }
        }
    }

    fn ping(&self, out: &mut BytesMut) {
        out.extend_from_slice(b"event: ping\ndata: {}\n\n");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_position_follows_from_the_last_id() {
        assert_eq!(after("abc.41"), Some(("abc", 42)));
        assert_eq!(after("a.b.0"), Some(("a.b", 1)));
        for bad in ["", "abc", "abc.", "abc.-1", "abc.4294967295"] {
            assert_eq!(after(bad), None, "{bad}");
        }
    }
}
