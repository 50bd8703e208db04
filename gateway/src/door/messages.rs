//! `POST /v1/messages`, to Anthropic's wire format (<https://docs.anthropic.com/en/api/messages>): [`request`] is what may be sent,
//! [`events`] how an answer streams; this file also writes the one object of an answer that does not, and the errors.
//!
//! The format knows no way to come back to a stream. With an `Idempotency-Key` the same request reads the same answer again.

mod events;
mod request;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};
use proto::v1::{FinishReason, Head, Usage};
use serde_json::{Value, json};

use self::{events::Blocks, request::Asked};
use super::{
    Opened,
    whole::{self, Choice, Whole},
};
use crate::{
    account::Account,
    app::App,
    body::{self, Query},
    comeback::Comeback,
    failure::Refusal,
    identity::Caller,
    stack::Arrival,
    turn::Answer,
};

/// What Anthropic answers with when it is too busy.
const OVERLOADED: u16 = 529;

/// The door.
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let mut account = Account::open(&app, arrival, caller, "messages");
    let (stream, answer) = match admit(&app, &mut account, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refused(&account.refuse(refusal)),
    };
    if stream {
        return super::stream(&app, account, Opened::Answer(answer, 0), false, Blocks::new);
    }
    let head = answer.head().clone();
    match whole::read(&app, answer, &mut account).await {
        Ok(whole) => object(&head, whole),
        Err(refusal) => refused(&account.refuse(refusal)),
    }
}

/// Whether to stream, and what.
async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(bool, Answer), Refusal> {
    let comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let (stream, mut request) = body::parse::<Asked>(&body)?.into_chat()?;
    comeback.sign(&mut request, account.caller(), || body::value(&body));
    Ok((stream, super::begin(app, account, request).await?))
}

/// The message's id, from the answer's.
fn id(head: &Head) -> String {
    format!("msg_{}", head.stream_id)
}

fn object(head: &Head, mut whole: Whole) -> Response {
    let mut choice = whole.choices.drain(..).next().unwrap_or_default();
    let met = std::mem::take(&mut choice.stop);
    let stop = stop(choice.finish, &met);
    let object = json!({
        "id": id(head),
        "type": "message",
        "role": "assistant",
        "model": head.model,
        "content": content(choice),
        "stop_reason": stop.0,
        "stop_sequence": stop.1,
        "usage": usage(whole.usage),
    });
    super::whole_object(head, &object)
}

/// What was said, as content blocks.
fn content(choice: Choice) -> Vec<Value> {
    let mut blocks = Vec::new();
    if !choice.reasoning.is_empty() {
        blocks.push(json!({"type": "thinking", "thinking": choice.reasoning, "signature": ""}));
    }
    if !choice.text.is_empty() {
        blocks.push(json!({"type": "text", "text": choice.text}));
    }
    for call in choice.tool_calls {
        let input: Value = serde_json::from_str(&call.arguments).unwrap_or_else(|_| json!({}));
        blocks.push(json!({"type": "tool_use", "id": call.id, "name": call.name, "input": input}));
    }
    blocks
}

/// `stop_reason` and `stop_sequence`.
fn stop(reason: FinishReason, stop: &str) -> (&'static str, Option<&str>) {
    match reason {
        FinishReason::Stop if !stop.is_empty() => ("stop_sequence", Some(stop)),
        FinishReason::Stop | FinishReason::Unspecified => ("end_turn", None),
        FinishReason::Length => ("max_tokens", None),
        FinishReason::ToolCalls => ("tool_use", None),
        FinishReason::ContentFilter => ("refusal", None),
    }
}

/// Usage as Anthropic writes it: what was found in the cache is not among the input tokens.
fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": usage.cached_tokens,
        "output_tokens": usage.completion_tokens,
    })
}

/// A refusal in Anthropic's shape (<https://docs.anthropic.com/en/api/errors>).
fn refused(refusal: &Refusal) -> Response {
    let status = match refusal.status() {
        StatusCode::SERVICE_UNAVAILABLE => StatusCode::from_u16(OVERLOADED).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        status => status,
    };
    let body = error(status, refusal.message()).to_string();
    let mut response = (status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
    if let Some(seconds) = refusal.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn error(status: StatusCode, message: &str) -> Value {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 | 410 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        OVERLOADED | 503 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    json!({"type": "error", "error": {"type": kind, "message": message}})
}
