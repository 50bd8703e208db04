//! `GET /v1/chat/stream?q=`: semantic events for a browser's `EventSource`: `lifecycle`, `delta`, `usage`, `error`, `ping`.
//!
//! Each event of the answer bears an id, so an `EventSource` that lost its connection comes back with `Last-Event-ID` and goes on with
//! the same answer right after it. After the last event there is nothing: 204, which ends it. One that may come back before it has
//! an id says `idempotency_key=`.

use axum::{
    extract::State,
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, Uri};
use proto::v1::{ChoiceEnd, Entry, FinishReason, Finished, Head, entry::Event};
use serde::Serialize;
use serde_json::{Value, json};

use super::Opened;
use crate::{
    account::Account,
    app::App,
    body::Query,
    comeback::{self, Comeback},
    failure::{Refusal, error_object},
    identity::Caller,
    json, openapi,
    sse::Projection,
    stack::Arrival,
};

/// Streams an answer for a browser's `EventSource`.
///
/// The events are `lifecycle`, `delta`, `usage`, `error` and `ping`; those of the answer bear ids.
#[utoipa::path(
    get,
    path = "/v1/chat/stream",
    operation_id = "stream_events",
    tag = openapi::SIMPLE,
    params(("q" = String, Query, description = "What the user says."), openapi::Asked, openapi::Comeback),
    responses(
        (status = OK, description = "The events.", body = openapi::Sent, content_type = "text/event-stream"),
        openapi::CameBack,
        openapi::Refused,
    ),
)]
pub(crate) async fn stream(State(app): State<App>, arrival: Arrival, caller: Caller, uri: Uri, headers: HeaderMap) -> Response {
    let mut account = Account::open(&app, arrival, caller, "events");
    match open(&app, &mut account, &uri, &headers).await {
        Ok(opened) => super::stream(&app, account, opened, true, Events::new),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn open(app: &App, account: &mut Account, uri: &Uri, headers: &HeaderMap) -> Result<Opened, Refusal> {
    let query = Query::of(uri);
    let comeback = Comeback::of(headers, &query)?;
    if let Some(last) = &comeback.last {
        return super::come_back(app, account, last).await;
    }
    let mut request = super::from_query(&query, "q")?;
    comeback.sign(&mut request, account.caller(), || comeback::asked(&query));
    Ok(Opened::Answer(super::begin(app, account, request).await?, 0))
}

/// The projection.
#[derive(Debug)]
pub(crate) struct Events {
    started: Value,
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
        Self { started }
    }
}

fn delta(field: &[u8], out: &mut BytesMut, value: impl FnOnce(&mut BytesMut)) {
    out.extend_from_slice(b"event: delta\ndata: {\"");
    out.extend_from_slice(field);
    out.extend_from_slice(b"\":");
    value(out);
    out.extend_from_slice(b"}\n\n");
}

fn finished(finished: &Finished, out: &mut BytesMut) {
    event("usage", &super::usage(finished.usage.unwrap_or_default()), out);
    let reason = finished.choices.first().map_or(FinishReason::Stop, ChoiceEnd::reason);
    event("lifecycle", &json!({ "state": "finished", "finish_reason": reason.as_word() }), out);
}

fn event(name: &str, data: &impl Serialize, out: &mut BytesMut) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    json::value(out, data);
    out.extend_from_slice(b"\n\n");
}

impl Projection for Events {
    fn open(&mut self, out: &mut BytesMut) {
        event("lifecycle", &self.started, out);
    }

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        if !entry.token.is_empty() {
            delta(b"text", out, |out| json::string(out, &entry.token));
        }
        match &entry.event {
            None => {}
            Some(Event::Reasoning(text)) if text.is_empty() => {}
            Some(Event::Reasoning(text)) => delta(b"reasoning", out, |out| json::string(out, text)),
            Some(Event::ToolCall(call)) => delta(b"tool_call", out, |out| {
                let piece = json!({ "index": call.index, "id": call.id, "name": call.name, "arguments": call.arguments });
                json::value(out, &piece);
            }),
            Some(Event::Finished(finished)) => self::finished(finished, out),
            Some(Event::Failed(failure)) => event("error", &error_object(failure), out),
            Some(Event::Cancelled(_)) => event("lifecycle", &json!({ "state": "cancelled" }), out),
        }
    }

    fn ping(&self, _: bool, out: &mut BytesMut) {
        out.extend_from_slice(b"event: ping\ndata: {}\n\n");
    }
}
