//! `POST /v1/chat/completions`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/chat>): [`request`] is what
//! may be sent, [`chunk`] how an answer streams; this file also writes the one object of an answer that does not.

mod chunk;
mod content;
mod message;
mod request;
mod tool;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use proto::v1::{FinishReason, Head};
use serde_json::{Value, json};

use self::{chunk::Chunks, request::Completion};
pub(crate) use self::{
    chunk::error,
    content::TextOr,
    message::{MessageIn, messages},
    request::{MAX_CHOICES, stops},
    tool::{TOOLS, schema},
};
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
};

/// How the client wants the answer written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    stream: bool,
    resumable: bool,
    include_usage: bool,
    choices: u32,
}

/// The door.
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
        Ok(whole) => object(&head, whole),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(Shape, Opened), Refusal> {
    let mut comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let (mut shape, mut request) = body::parse::<Completion>(&body)?.into_chat()?;
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

fn object(head: &Head, whole: Whole) -> Response {
    let choices: Vec<Value> = (0..)
        .zip(whole.choices)
        .map(|(index, choice)| choice_object(index, choice))
        .collect();
    let mut object = json!({
        "id": id(head),
        "object": "chat.completion",
        "created": head.created,
        "model": head.model,
        "choices": choices,
        "usage": super::usage(whole.usage),
    });
    if !head.conversation_id.is_empty() {
        object["conversation_id"] = head.conversation_id.as_str().into();
    }
    super::whole_object(head, &object)
}

fn choice_object(index: u32, choice: Choice) -> Value {
    let calls: Vec<Value> = choice
        .tool_calls
        .into_iter()
        .map(|call| json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}))
        .collect();
    let only_calls = choice.text.is_empty() && !calls.is_empty();
    let mut message = json!({
        "role": "assistant",
        "content": (!only_calls).then_some(choice.text),
        "refusal": null,
    });
    if !choice.reasoning.is_empty() {
        message["reasoning_content"] = choice.reasoning.into();
    }
    if !calls.is_empty() {
        message["tool_calls"] = calls.into();
    }
    let logprobs = (!choice.logprobs.is_empty()).then(|| chunk::logprobs(&choice.logprobs));
    json!({
        "index": index,
        "message": message,
        "logprobs": logprobs,
        "finish_reason": FinishReason::as_word(choice.finish),
    })
}
