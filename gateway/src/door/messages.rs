//! `POST /v1/messages`, to Anthropic's wire format (<https://docs.anthropic.com/en/api/messages>): [`request`] is what may be sent,
//! [`events`] how an answer streams, [`object`] what one is that does not, [`error`] what is said when something cannot be done.
//!
//! The format knows no way to come back to a stream. With an `Idempotency-Key` the same request reads the same answer again.

mod content;
mod count;
mod error;
mod events;
mod object;
mod request;
mod tool;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use http::HeaderMap;
use proto::v1::{FinishReason, Head};

pub(super) use self::request::Asked;
pub(crate) use self::{
    count::{__path_count_tokens, count_tokens},
    error::{ErrorBody, are_its_words, in_its_words},
};
use self::{events::Blocks, object::Answered};
use super::{Opened, whole};
use crate::{
    account::Account,
    app::App,
    body::{self, Query},
    comeback::Comeback,
    failure::Refusal,
    identity::Caller,
    openapi,
    stack::Arrival,
    turn::Answer,
};

/// Answers a conversation.
///
/// With `stream`, as Anthropic's events: content blocks that follow each other, then how it ended.
#[utoipa::path(
    post,
    path = "/v1/messages",
    operation_id = "create_message",
    tag = openapi::ANTHROPIC,
    params(
        ("anthropic-version" = Option<String>, Header, description = "A date: every version is answered alike."),
        openapi::Key,
    ),
    request_body = Asked,
    responses(
        (status = OK, description = "The answer.", content((Answered = "application/json"), (openapi::Sent = "text/event-stream"))),
        error::Refused,
    ),
)]
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let mut account = Account::open(&app, arrival, caller, "messages");
    let (stream, answer) = match admit(&app, &mut account, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return account.refuse(refusal).into_response(),
    };
    if stream {
        return super::stream(&app, account, Opened::Answer(answer, 0), false, Blocks::new);
    }
    let head = answer.head().clone();
    match whole::read(&app, answer, &mut account).await {
        Ok(whole) => super::whole_object(&head, &Answered::new(&head, whole)),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

/// Whether to stream, and what.
async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(bool, Answer), Refusal> {
    version(request.headers())?;
    let comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let (stream, mut request) = body::parse::<Asked>(&body)?.into_chat()?;
    comeback.sign(&mut request, account.caller(), || body::value(&body));
    Ok((stream, super::begin(app, account, request).await?))
}

/// # Errors
/// The client names a version that can be none. Where it names none, it is taken for the only one.
fn version(headers: &HeaderMap) -> Result<(), Refusal> {
    let Some(version) = headers.get("anthropic-version") else {
        return Ok(());
    };
    let form = b"0000-00-00";
    let fits = |(byte, form): (&u8, &u8)| if *form == b'0' { byte.is_ascii_digit() } else { byte == form };
    if version.len() == form.len() && version.as_bytes().iter().zip(form).all(fits) {
        return Ok(());
    }
    let message = format!("anthropic-version: expected a date such as 2023-06-01, got {version:?}");
    Err(Refusal::invalid("anthropic-version", message))
}

/// The message's id, from the answer's.
fn id(head: &Head) -> String {
    format!("msg_{}", head.stream_id)
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
