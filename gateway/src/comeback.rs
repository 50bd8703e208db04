//! What a request says about coming back, in headers, or in the query for clients that cannot set them (a browser's `EventSource`):
//!
//! - `Last-Event-ID`, `last_event_id=`: the last event that the client has; it wants the rest.
//! - `Idempotency-Key`, `idempotency_key=`: the request may come twice, and is to be answered once.
//! - `X-Unbroken-Resume: 1`, `resumable=1`: the events shall bear ids, to come back with.
//!
//! The doors read it before anything else, and [`Comeback::sign`] writes what follows from it into the request.

use http::{HeaderMap, HeaderName, HeaderValue};
use proto::v1::{ChatRequest, DisconnectPolicy};
use serde_json::Value;

use crate::{
    body::Query,
    event_id::EventId,
    failure::Refusal,
    idempotency::{Key, fingerprint},
    identity::{Caller, credential::STREAM_TOKEN},
};

const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const RESUME: HeaderName = HeaderName::from_static("x-unbroken-resume");
/// Their names in the query.
const PARAMETERS: [&str; 4] = ["last_event_id", "idempotency_key", "resumable", STREAM_TOKEN];

/// Whether, and from where, a client comes back.
#[derive(Debug)]
pub(crate) struct Comeback {
    /// The last event that it has.
    pub(crate) last: Option<EventId>,
    /// Its events shall bear ids.
    pub(crate) resumable: bool,
    key: Option<Key>,
}

impl Comeback {
    /// What these say. A header wins over the query.
    ///
    /// # Errors
    /// One of them cannot be read.
    pub(crate) fn of(headers: &HeaderMap, query: &Query) -> Result<Self, Refusal> {
        let [last, key, resumable, _] = PARAMETERS;
        let last = match text(headers, LAST_EVENT_ID).or(query.text(last).map(str::as_bytes)) {
            None => None,
            Some(id) => Some(event_id(id)?),
        };
        let key = match (only(headers, IDEMPOTENCY_KEY)?, query.text(key)) {
            (Some(value), _) => Some(Key::parse("Idempotency-Key", value)?),
            (None, Some(value)) => Some(Key::parse(key, value.as_bytes())?),
            (None, None) => None,
        };
        let resumable = match (text(headers, RESUME), query.text(resumable)) {
            (Some(word), _) => yes("X-Unbroken-Resume", word)?,
            (None, Some(word)) => yes(resumable, word.as_bytes())?,
            (None, None) => false,
        };
        Ok(Self {
            resumable: resumable || last.is_some(),
            last,
            key,
        })
    }

    /// Writes into `request` what follows. An answer whose client may come back goes on meanwhile, unless the client has said
    /// otherwise; one with a key gets its name from it, and from who asks. `asked` is what the client sent.
    pub(crate) fn sign(&self, request: &mut ChatRequest, caller: &Caller, asked: impl FnOnce() -> Value) {
        if (self.resumable || self.key.is_some()) && request.disconnect() == DisconnectPolicy::Unspecified {
            request.disconnect = DisconnectPolicy::Detach.into();
        }
        if let Some(key) = &self.key {
            request.stream_id = key.stream_id(caller.principal());
            request.fingerprint = fingerprint(&asked());
        }
    }
}

/// What a query asks for, without what it says here.
pub(crate) fn asked(query: &Query) -> Value {
    query.without(&PARAMETERS)
}

fn event_id(id: &[u8]) -> Result<EventId, Refusal> {
    let parsed = std::str::from_utf8(id).ok().and_then(|id| id.parse().ok());
    parsed.ok_or_else(|| {
        Refusal::invalid(
            "last_event_id",
            "last_event_id (Last-Event-ID): expected the id of an event, <stream_id>.<position>",
        )
    })
}

/// The value of a header; an empty one says nothing.
fn text(headers: &HeaderMap, name: HeaderName) -> Option<&[u8]> {
    headers.get(name).map(HeaderValue::as_bytes).filter(|value| !value.is_empty())
}

/// The value of a header that may come once, also an empty one.
fn only(headers: &HeaderMap, name: HeaderName) -> Result<Option<&[u8]>, Refusal> {
    let mut values = headers.get_all(name).iter();
    match (values.next(), values.next()) {
        (value, None) => Ok(value.map(HeaderValue::as_bytes)),
        (_, Some(_)) => Err(Refusal::invalid("Idempotency-Key", "Idempotency-Key: expected one, got several")),
    }
}

fn yes(param: &str, word: &[u8]) -> Result<bool, Refusal> {
    match word {
        b"1" | b"true" => Ok(true),
        b"0" | b"false" => Ok(false),
        _ => Err(Refusal::invalid(param, format!("{param}: expected 1 or 0"))),
    }
}
