//! The doors: each says what a client may send, makes a `ChatRequest` of it, and writes the answer's entries in its own way. A
//! projection is a pure function of entries; the waiting and the socket are in [`crate::sse`] and [`ws`].

#[cfg(test)]
mod any_body;
mod calls;
pub(crate) mod cancel;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod conversations;
pub(crate) mod docs;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod keys;
pub(crate) mod messages;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod requests;
pub(crate) mod responses;
mod said;
pub(crate) mod simple;
pub(crate) mod text;
pub(crate) mod tickets;
mod whole;
pub(crate) mod ws;

use std::{
    pin::{Pin, pin},
    slice::from_mut,
};

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::{HeaderValue, StatusCode};
use proto::v1::{ChatRequest, DisconnectPolicy, Failure, Head, Reason, Usage};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use crate::{
    account::Account,
    app::App,
    body::Query,
    clients::Bearer,
    event_id::{EventId, is_stream_id},
    failure::Refusal,
    idempotency,
    sse::{self, Ids, Projection},
    stack::STREAM_ID,
    turn::{self, Answer, Place},
};

/// The largest `max_tokens`: past any model's context, and far from where arithmetic ends.
const MAX_TOKENS: i64 = 1 << 20;

/// The longest time that a client may ask an answer to go on without it, in milliseconds: as long as any answer may take.
const DETACH_GRACE: i64 = 1_800_000;

/// What a request for an answer has come to.
enum Opened {
    /// This, and how many events of its first position the client has.
    Answer(Answer, u32),
    /// The client has had all of it.
    NothingLeft,
    /// The gateway stops; the client is to read on at another. Its answer's name.
    Elsewhere(String),
}

/// Streams what was opened; with `ids`, so that the client can come back.
fn stream<P: Projection>(app: &App, account: Account, opened: Opened, ids: bool, projection: impl FnOnce(&Head) -> P) -> Response {
    match opened {
        Opened::Answer(answer, had) => {
            let ids = ids.then(|| Ids::new(&answer.head().stream_id, answer.position(), had));
            let projection = projection(answer.head());
            sse::response(app, account, answer, projection, ids)
        }
        Opened::NothingLeft => StatusCode::NO_CONTENT.into_response(),
        Opened::Elsewhere(stream_id) => sse::come_back(&stream_id),
    }
}

/// Starts the answer to `request`, and waits until it is admitted. One that was started under the same name before is read from
/// its beginning.
fn begin(app: &App, account: &mut Account, request: impl Into<Box<ChatRequest>>) -> impl Future<Output = Result<Answer, Refusal>> {
    let mut request = request.into(); // boxed before anything waits: futures are moved, and a request is large
    async move {
        account.sign(&mut request);
        account.caller().may_start(&request)?;
        account.ask_leave(app, from_mut(&mut *request)).await?;
        start(app, account, request).await
    }
}

/// Starts the answer to a request that is signed and has leave.
async fn start(app: &App, account: &mut Account, request: Box<ChatRequest>) -> Result<Answer, Refusal> {
    account.goes_out();
    let start = pin!(turn::start(app.clients(), request, app.settings().gateway_patience));
    let answer = in_time(app, start).await.map_err(idempotency::refused)?;
    account.admitted(answer.head());
    Ok(answer)
}

/// Goes on after the event that the client had last.
async fn come_back(app: &App, account: &mut Account, last: &EventId) -> Result<Opened, Refusal> {
    if app.drain().is_draining() {
        account.moved();
        return Ok(Opened::Elsewhere(last.stream_id.clone()));
    }
    let (next, had) = last.rest();
    let answer = resume(app, account, &last.stream_id, next).await?;
    Ok(answer.map_or(Opened::NothingLeft, |answer| Opened::Answer(answer, had)))
}

/// Attaches to the answer `stream_id` at `next`. `None` if nothing comes there any more.
async fn resume(app: &App, account: &mut Account, stream_id: &str, next: u32) -> Result<Option<Answer>, Refusal> {
    if !is_stream_id(stream_id) {
        return Err(Refusal::invalid("stream_id", "stream_id is not the name of an answer"));
    }
    account.caller().may_read(stream_id)?;
    let place = Place {
        stream_id: stream_id.to_owned(),
        principal: Some(account.caller().principal().clone()),
        next,
    };
    let bearer = Bearer::reading(account.caller().key());
    let resume = pin!(turn::resume(app.clients(), place, bearer, app.settings().gateway_patience));
    let answer = in_time(app, resume).await?;
    match &answer {
        Some(answer) => {
            account.reads_on(app, stream_id);
            account.admitted(answer.head());
        }
        None => account.nothing_left(),
    }
    Ok(answer)
}

/// # Errors
/// A client that had a part of an answer wants the rest, but asks for a whole one.
fn only_streams_go_on(stream: bool) -> Result<(), Refusal> {
    if stream {
        return Ok(());
    }
    Err(Refusal::invalid(
        "last_event_id",
        "last_event_id (Last-Event-ID): only allowed when stream is true; for a whole answer send the same Idempotency-Key again",
    ))
}

/// Waits for `work`, but not past the end of a drain.
async fn in_time<T>(app: &App, work: Pin<&mut impl Future<Output = Result<T, Failure>>>) -> Result<T, Failure> {
    tokio::select! {
        done = work => done,
        () = app.drain().last_call() => Err(Failure::new(Reason::Draining, "the gateway stops, and the answer took too long")),
    }
}

/// A request with one user message, as the doors with an address line take it.
fn from_query(query: &Query, prompt: &str) -> Result<ChatRequest, Refusal> {
    let mut request = ChatRequest {
        prompt: query.required(prompt)?.to_owned(),
        model: query.text("model").unwrap_or_default().to_owned(),
        max_tokens: max_tokens("max_tokens", query.value("max_tokens", "a number")?)?,
        conversation_id: query.text("conversation_id").unwrap_or_default().to_owned(),
        ..ChatRequest::default()
    };
    let grace = query.value("detach_grace_ms", "a number of milliseconds")?;
    disconnect(&mut request, query.text("disconnect"), grace)?;
    let temperature = within("temperature", query.value("temperature", "a number from 0 to 2")?, 0.0..=2.0)?;
    if temperature.is_some() {
        request.sampling.get_or_insert_default().temperature = temperature;
    }
    if let Some(seed) = query.value("seed", "a number from 0 to 2^64 - 1")? {
        request.sampling.get_or_insert_default().seed = Some(seed);
    }
    Ok(request)
}

/// Writes into `request` what is to become of the answer when its client has gone, where the client says so.
fn disconnect(request: &mut ChatRequest, word: Option<&str>, grace_ms: Option<i64>) -> Result<(), Refusal> {
    let policy = match word {
        None if grace_ms.is_some() => DisconnectPolicy::Detach,
        None => DisconnectPolicy::Unspecified,
        Some("cancel") => DisconnectPolicy::Cancel,
        Some("detach") => DisconnectPolicy::Detach,
        Some("background") => DisconnectPolicy::Background,
        Some(other) => {
            let message = format!("disconnect: expected cancel, detach or background, got {other:?}");
            return Err(Refusal::invalid("disconnect", message));
        }
    };
    request.disconnect = policy.into();
    request.detach_grace_ms = match grace_ms {
        None => 0,
        Some(_) if policy != DisconnectPolicy::Detach => {
            let message = "detach_grace_ms: only allowed when disconnect is detach";
            return Err(Refusal::invalid("detach_grace_ms", message));
        }
        Some(ms) => match u32::try_from(ms) {
            Ok(grace) if (1..=DETACH_GRACE).contains(&ms) => grace,
            _ => {
                let message = format!("detach_grace_ms: expected a number from 1 to {DETACH_GRACE}, got {ms}");
                return Err(Refusal::invalid("detach_grace_ms", message));
            }
        },
    };
    Ok(())
}

fn max_tokens(name: &str, value: Option<i64>) -> Result<Option<u32>, Refusal> {
    match value {
        None => Ok(None),
        Some(value @ 1..=MAX_TOKENS) => Ok(u32::try_from(value).ok()),
        Some(value) => Err(Refusal::invalid(
            name,
            format!("{name}: expected a number from 1 to {MAX_TOKENS}, got {value}"),
        )),
    }
}

fn within(name: &str, value: Option<f64>, range: std::ops::RangeInclusive<f64>) -> Result<Option<f32>, Refusal> {
    match value {
        Some(value) if !range.contains(&value) => Err(Refusal::invalid(
            name,
            format!("{name}: expected a number from {} to {}, got {value}", range.start(), range.end()),
        )),
        #[expect(clippy::cast_possible_truncation, reason = "the ranges are small, and engines compute in f32")]
        value => Ok(value.map(|value| value as f32)),
    }
}

/// A whole answer as one object, with the answer's name in the head.
fn whole_object(head: &Head, object: &impl Serialize) -> Response {
    let mut response = Json(object).into_response();
    if let Ok(stream_id) = HeaderValue::from_str(&head.stream_id) {
        response.headers_mut().insert(STREAM_ID, stream_id);
    }
    response
}

/// Usage as OpenAI writes it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Usage)]
pub(crate) struct UsageOut {
    prompt_tokens: u32,
    /// Of all choices.
    completion_tokens: u32,
    total_tokens: u64,
    prompt_tokens_details: PromptDetails,
    completion_tokens_details: CompletionDetails,
}

/// What the prompt's tokens were.
#[derive(Debug, Serialize, ToSchema)]
struct PromptDetails {
    /// Found in the KV cache.
    cached_tokens: u32,
}

/// What the answer's tokens were.
#[derive(Debug, Serialize, ToSchema)]
struct CompletionDetails {
    /// Thought.
    reasoning_tokens: u32,
}

fn usage(usage: Usage) -> UsageOut {
    UsageOut {
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        total_tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        prompt_tokens_details: PromptDetails {
            cached_tokens: usage.cached_tokens,
        },
        completion_tokens_details: CompletionDetails {
            reasoning_tokens: usage.reasoning_tokens,
        },
    }
}

/// What a client is told of an answer that somebody ended.
fn cancelled() -> Value {
    let mut error = crate::failure::error_object(&Failure::new(Reason::Conflict, "the answer was cancelled"));
    error["code"] = "cancelled".into();
    error
}
