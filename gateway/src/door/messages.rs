//! `POST /v1/messages`, to Anthropic's wire format (<https://docs.anthropic.com/en/api/messages>): [`request`] is what may be sent,
//! [`events`] how an answer streams, [`object`] what one is that does not, [`error`] what is said when something cannot be done.
//!
//! The format knows no way to come back to a stream. With an `Idempotency-Key` the same request reads the same answer again.

mod error;
mod events;
mod object;
mod request;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use proto::v1::{FinishReason, Head};

pub(crate) use self::error::{ErrorBody, in_its_words};
use self::{events::Blocks, object::Answered, request::Asked};
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
    params(openapi::Key),
    request_body = Asked,
    responses(
        (status = OK, description = "The answer.", content((Answered = "application/json"), (String = "text/event-stream"))),
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
