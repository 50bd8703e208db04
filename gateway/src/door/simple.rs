//! The simple doors, for curl and for programs of a few lines: `GET /stream?prompt=` (also `/v1/chat/completions/stream?prompt=`) and
//! `POST /chat`. A stream is `data: {"token":"…"}` for each entry, then `data: [DONE]`.
//!
//! Every entry is one event, also one without text, so that the number of events that a client has is the position where it goes
//! on: `GET /stream?offset=N` with the `X-Stream-ID` of the first response (or `stream_id=` in the query). With `resumable=1` the events
//! bear ids, and `Last-Event-ID` does the same.

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use http::{HeaderMap, Uri};
use proto::v1::{ChatRequest, Entry, FinishReason, Head, entry::Event};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use super::{
    Opened, UsageOut,
    completions::{MessageIn, error, messages},
    whole::{self, Whole},
};
use crate::{
    account::Account,
    app::App,
    body::{self, Query},
    comeback::{self, Comeback},
    failure::{Refusal, error_object},
    identity::Caller,
    json, openapi,
    sse::Projection,
    stack::{Arrival, STREAM_ID},
};

/// Streams an answer, one event for each token: the simplest door.
///
/// With `offset`, which counts the events that were received, it goes on with the answer `stream_id` (or `X-Stream-ID`).
#[utoipa::path(
    get,
    path = "/stream",
    operation_id = "stream_tokens",
    tag = openapi::SIMPLE,
    params(Begin, openapi::Asked, openapi::Comeback),
    responses(
        (status = OK, description = "`data: {\"token\":…}` for each token, then `data: [DONE]`.", body = openapi::Sent, content_type = "text/event-stream"),
        openapi::CameBack,
        openapi::Refused,
    ),
)]
pub(crate) async fn by_prompt(State(app): State<App>, arrival: Arrival, caller: Caller, uri: Uri, headers: HeaderMap) -> Response {
    let mut account = Account::open(&app, arrival, caller, "stream");
    match open(&app, &mut account, &uri, &headers).await {
        Ok((opened, ids)) => super::stream(&app, account, opened, ids, |_| Tokens),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn open(app: &App, account: &mut Account, uri: &Uri, headers: &HeaderMap) -> Result<(Opened, bool), Refusal> {
    let query = Query::of(uri);
    let comeback = Comeback::of(headers, &query)?;
    if let Some(last) = &comeback.last {
        return Ok((super::come_back(app, account, last).await?, true));
    }
    let offset = query.value("offset", "how many tokens were received")?.unwrap_or(0);
    let named = headers.get(STREAM_ID).and_then(|id| id.to_str().ok());
    let answer = match query.text("stream_id").or(named) {
        Some(stream_id) => super::resume(app, account, stream_id, offset).await?,
        None if offset > 0 => {
            return Err(Refusal::invalid(
                "stream_id",
                "stream_id is missing: to go on at an offset, send the X-Stream-ID that the first response gave",
            ));
        }
        None => {
            let mut request = super::from_query(&query, "prompt")?;
            comeback.sign(&mut request, account.caller(), || comeback::asked(&query));
            Some(super::begin(app, account, request).await?)
        }
    };
    let opened = answer.map_or(Opened::NothingLeft, |answer| Opened::Answer(answer, 0));
    Ok((opened, comeback.resumable))
}

/// The same as `/stream`.
#[utoipa::path(
    get,
    path = "/v1/chat/completions/stream",
    operation_id = "stream_tokens_too",
    tag = openapi::SIMPLE,
    params(Begin, openapi::Asked, openapi::Comeback),
    responses(
        (status = OK, description = "As of `/stream`.", body = openapi::Sent, content_type = "text/event-stream"),
        openapi::CameBack,
        openapi::Refused,
    ),
)]
pub(crate) async fn by_prompt_too(app: State<App>, arrival: Arrival, caller: Caller, uri: Uri, headers: HeaderMap) -> Response {
    by_prompt(app, arrival, caller, uri, headers).await
}

/// What begins an answer here, or names one to go on with.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the document: the query is read by name")]
struct Begin {
    /// What the user says.
    prompt: Option<String>,
    /// How many events were received.
    offset: Option<u32>,
    /// The answer to go on with.
    stream_id: Option<String>,
}

/// What is asked: one message, or all.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = SimpleRequest, examples(json!({"message": "Hello", "max_tokens": 20})))]
pub(super) struct Chat {
    /// What the user says; also called `prompt`.
    #[serde(alias = "prompt")]
    message: Option<String>,
    messages: Option<Vec<MessageIn>>,
    stream: Option<bool>,
    max_tokens: Option<i64>,
    model: Option<String>,
    conversation_id: Option<String>,
    temperature: Option<f64>,
    #[schema(pattern = "^(cancel|detach|background)$")]
    disconnect: Option<String>,
    detach_grace_ms: Option<i64>,
}

/// Answers one message, or all: for programs of three lines.
#[utoipa::path(
    post,
    path = "/chat",
    operation_id = "chat",
    tag = openapi::SIMPLE,
    params(openapi::Comeback),
    request_body = Chat,
    responses(
        (status = OK, description = "The answer.", content((Answered = "application/json"), (openapi::Sent = "text/event-stream"))),
        openapi::CameBack,
        openapi::BodyRefused,
    ),
)]
pub(crate) async fn by_message(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let mut account = Account::open(&app, arrival, caller, "chat");
    let (stream, ids, opened) = match admit(&app, &mut account, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return account.refuse(refusal).into_response(),
    };
    let answer = match opened {
        Opened::Answer(answer, _) if !stream => answer,
        opened => return super::stream(&app, account, opened, ids, |_| Tokens),
    };
    let head = answer.head().clone();
    match whole::read(&app, answer, &mut account).await {
        Ok(whole) => super::whole_object(&head, &object(&head, whole)),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

/// Whether to stream, whether with ids, and what.
async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(bool, bool, Opened), Refusal> {
    let comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let chat: Chat = body::parse(&body)?;
    let stream = chat.stream.unwrap_or(false);
    if let Some(last) = &comeback.last {
        super::only_streams_go_on(stream)?;
        return Ok((stream, true, super::come_back(app, account, last).await?));
    }
    let mut request = chat.into_chat()?;
    comeback.sign(&mut request, account.caller(), || body::value(&body));
    let answer = super::begin(app, account, request).await?;
    Ok((stream, comeback.resumable, Opened::Answer(answer, 0)))
}

impl Chat {
    pub(super) fn into_chat(self) -> Result<ChatRequest, Refusal> {
        let mut request = ChatRequest {
            max_tokens: super::max_tokens("max_tokens", self.max_tokens)?,
            model: self.model.unwrap_or_default(),
            conversation_id: self.conversation_id.unwrap_or_default(),
            ..ChatRequest::default()
        };
        if let Some(messages) = self.messages {
            request.messages = self::messages(messages)?;
        }
        if let Some(message) = self.message {
            request.prompt = message;
        }
        if request.messages.is_empty() && request.prompt.is_empty() {
            return Err(Refusal::invalid("message", "message is missing or empty: send message or messages"));
        }
        super::disconnect(&mut request, self.disconnect.as_deref(), self.detach_grace_ms)?;
        let temperature = super::within("temperature", self.temperature, 0.0..=2.0)?;
        if temperature.is_some() {
            request.sampling.get_or_insert_default().temperature = temperature;
        }
        Ok(request)
    }
}

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SimpleAnswer)]
struct Answered {
    stream_id: String,
    model: String,
    message: Said,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: &'static str,
    usage: UsageOut,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    conversation_id: String,
}

/// What the assistant said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = SimpleMessage)]
struct Said {
    role: &'static str,
    content: String,
}

fn object(head: &Head, mut whole: Whole) -> Answered {
    let choice = whole.choices.drain(..).next().unwrap_or_default();
    Answered {
        stream_id: head.stream_id.clone(),
        model: head.model.clone(),
        message: Said {
            role: "assistant",
            content: choice.text,
        },
        finish_reason: FinishReason::as_word(choice.finish),
        usage: super::usage(whole.usage),
        conversation_id: head.conversation_id.clone(),
    }
}

/// The projection.
#[derive(Debug)]
struct Tokens;

impl Projection for Tokens {
    fn open(&mut self, _: &mut BytesMut) {}

    fn entry(&mut self, entry: &Entry, out: &mut BytesMut) {
        match &entry.event {
            None | Some(Event::Reasoning(_) | Event::ToolCall(_)) => {
                out.extend_from_slice(b"data: {\"token\":");
                json::string(out, &entry.token);
                out.extend_from_slice(b"}\n\n");
            }
            Some(Event::Finished(_)) => out.extend_from_slice(b"data: [DONE]\n\n"),
            Some(Event::Failed(failure)) => error(&error_object(failure), out),
            Some(Event::Cancelled(_)) => error(&super::cancelled(), out),
        }
    }
}
