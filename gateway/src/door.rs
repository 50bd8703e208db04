//! The doors: each says what a client may send, makes a `ChatRequest` of it, and writes the answer's entries in its own way. A
//! projection is a pure function of entries; the waiting and the socket are in [`crate::sse`] and [`ws`].

pub(crate) mod cancel;
pub(crate) mod chat;
pub(crate) mod completions;
pub(crate) mod conversations;
pub(crate) mod embeddings;
pub(crate) mod health;
pub(crate) mod models;
pub(crate) mod page;
pub(crate) mod simple;
mod whole;
pub(crate) mod ws;

use proto::v1::{ChatRequest, DisconnectPolicy, Failure, Reason, Usage};
use serde_json::{Value, json};

use crate::{
    account::Account,
    app::App,
    body::{Query, principal},
    failure::Refusal,
    turn::{self, Answer, Place},
};

/// The largest `max_tokens`: past any model's context, and far from where arithmetic ends.
const MAX_TOKENS: i64 = 1 << 20;

/// Starts the answer to `request`, and waits until it is admitted.
async fn begin(app: &App, account: &mut Account, mut request: ChatRequest) -> Result<Answer, Refusal> {
    request.principal = Some(principal());
    account.sign(&mut request);
    let answer = turn::start(app.clients(), request, app.settings().gateway_patience).await?;
    account.admitted(answer.head());
    Ok(answer)
}

/// Attaches to the answer `stream_id` at `next`. `None` if nothing comes there any more.
async fn resume(app: &App, account: &mut Account, stream_id: &str, next: u32) -> Result<Option<Answer>, Refusal> {
    if stream_id.len() > 128 || !stream_id.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(Refusal::invalid("stream_id", "stream_id is not the name of an answer"));
    }
    let place = Place {
        stream_id: stream_id.to_owned(),
        principal: Some(principal()),
        next,
    };
    let answer = turn::attach(app.clients(), place, app.settings().gateway_patience).await?;
    match &answer {
        Some(answer) => account.admitted(answer.head()),
        None => account.nothing_left(),
    }
    Ok(answer)
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
    request.disconnect = disconnect(query.text("disconnect"))?.into();
    let temperature = within("temperature", query.value("temperature", "a number from 0 to 2")?, 0.0..=2.0)?;
    if temperature.is_some() {
        request.sampling.get_or_insert_default().temperature = temperature;
    }
    if let Some(seed) = query.value("seed", "a number from 0 to 2^64 - 1")? {
        request.sampling.get_or_insert_default().seed = Some(seed);
    }
    Ok(request)
}

/// What is to become of an answer when its client has gone: it stops, unless the client says that it may come back.
fn disconnect(word: Option<&str>) -> Result<DisconnectPolicy, Refusal> {
    match word {
        None | Some("cancel") => Ok(DisconnectPolicy::Cancel),
        Some("detach") => Ok(DisconnectPolicy::Detach),
        Some("background") => Ok(DisconnectPolicy::Background),
        Some(other) => {
            let message = format!("disconnect: expected cancel, detach or background, got {other:?}");
            Err(Refusal::invalid("disconnect", message))
        }
    }
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

/// Usage as OpenAI writes it.
fn usage(usage: Usage) -> Value {
    json!({
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        "prompt_tokens_details": { "cached_tokens": usage.cached_tokens },
        "completion_tokens_details": { "reasoning_tokens": usage.reasoning_tokens },
    })
}

/// What a client is told of an answer that somebody ended.
fn cancelled() -> Value {
    let mut error = crate::failure::error_object(&Failure::new(Reason::Conflict, "the answer was cancelled"));
    error["code"] = "cancelled".into();
    error
}
