//! `POST /v1/chat/completions`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/chat>): [`request`] is what
//! may be sent, [`chunk`] how an answer streams, [`object`] what one is that does not.

mod chunk;
mod content;
mod message;
mod object;
mod request;
mod tool;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use proto::v1::Head;

use self::{chunk::Chunks, object::Answered};
pub(crate) use self::{
    chunk::{error, likelihood},
    content::{Piece, TextOr, WordOr},
    message::{MessageIn, messages},
    request::{Completion, MAX_CHOICES, StreamOptions, biases, seed, stops, top_p, whole},
    tool::{TOOLS, mode, schema},
};
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
};

/// How the client wants the answer written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    stream: bool,
    resumable: bool,
    include_usage: bool,
    choices: u32,
}

/// Answers a conversation.
///
/// With `stream`, as `chat.completion.chunk` events and a last `[DONE]`, which comes only after a whole answer.
#[utoipa::path(
    post,
    path = "/v1/chat/completions",
    operation_id = "complete_chat",
    tag = openapi::OPENAI,
    params(openapi::Comeback),
    request_body = Completion,
    responses(
        (status = OK, description = "The answer.", content((Answered = "application/json"), (openapi::Sent = "text/event-stream"))),
        openapi::CameBack,
        openapi::BodyRefused,
    ),
)]
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let mut account = Account::open(&app, arrival, caller, "completions");
    let (shape, opened) = match admit(&app, &mut account, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return account.refuse(refusal).into_response(),
    };
    let answer = match opened {
        Opened::Answer(answer, _) if !shape.stream => answer,
        opened => return super::stream(&app, account, opened, shape.resumable, |head| Chunks::new(head, shape)),
    };
    let head = answer.head().clone();
    match whole::read(&app, answer, &mut account).await {
        Ok(whole) => super::whole_object(&head, &Answered::new(&head, whole)),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(Shape, Opened), Refusal> {
    let mut comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let (mut shape, request) = body::parse::<Completion>(&body)?.into_chat()?;
    let mut request = Box::new(request);
    comeback.resumable |= shape.resumable;
    shape.resumable = comeback.resumable;
    if let Some(last) = &comeback.last {
        super::only_streams_go_on(shape.stream)?;
        return Ok((shape, super::come_back(app, account, last).await?));
    }
    comeback.resumable &= shape.stream;
    comeback.sign(&mut request, account.caller(), || body::value(&body));
    Ok((shape, Opened::Answer(super::begin(app, account, request).await?, 0)))
}

fn id(head: &Head) -> String {
    format!("chatcmpl-{}", head.stream_id)
}
