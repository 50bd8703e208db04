//! What a server streams as Responses, in the words of the journal (<https://platform.openai.com/docs/api-reference/responses-streaming>).
//! Pure.
//!
//! The events that bring something new are in one table; the others announce, repeat, or belong to tools that run at the server, which
//! nobody asked for.

use proto::v1::{Failure, FinishReason, Reason, TokenLogprob, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::openai::{
    calls::{Calls, Piece},
    dialect::{Interpreter, odd},
    failure::of_error,
    told::Told,
};

/// The last event of servers that follow Open Responses; OpenAI itself ends with `response.completed`.
const DONE: &[u8] = b"[DONE]";

#[derive(Deserialize)]
struct Heard {
    r#type: String,
    output_index: Option<u32>,
    delta: Option<Value>,
    logprobs: Option<Vec<Logprob>>,
    arguments: Option<String>,
    item: Option<Item>,
    response: Option<Response>,
}

#[derive(Deserialize)]
struct Item {
    r#type: Option<String>,
    call_id: Option<String>,
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Response {
    id: Option<String>,
    usage: Option<Counts>,
    error: Option<Value>,
    incomplete_details: Option<Details>,
}

#[derive(Deserialize)]
struct Details {
    reason: Option<String>,
}

#[derive(Deserialize)]
struct Logprob {
    token: Option<String>,
    #[serde(rename = "logprob")]
    value: Option<f32>,
    bytes: Option<Vec<u8>>,
    #[serde(rename = "top_logprobs")]
    top: Option<Vec<Logprob>>,
}

#[derive(Deserialize)]
struct Counts {
    input_tokens: Option<u32>,
    output_tokens: Option<u32>,
    input_tokens_details: Option<InputDetails>,
    output_tokens_details: Option<OutputDetails>,
}

#[derive(Deserialize)]
struct InputDetails {
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct OutputDetails {
    reasoning_tokens: Option<u32>,
}

/// Understands the events of one stream.
pub(in crate::openai) struct Events;

impl Interpreter for Events {
    fn take(&mut self, data: &[u8], told: &mut Told) -> Result<(), Failure> {
        if data.trim_ascii() == DONE {
            told.done = true;
            return Ok(());
        }
        let heard: Heard = serde_json::from_slice(data).map_err(|error| odd(&error))?;
        match heard.r#type.as_str() {
            "response.created" => told.name = heard.response.and_then(|response| response.id).unwrap_or_default(),
            "response.output_text.delta" | "response.refusal.delta" => {
                let logprobs = heard.logprobs.unwrap_or_default().into_iter().map(logprob).collect();
                told.text(0, text(heard.delta), logprobs);
            }
            "response.reasoning_text.delta" | "response.reasoning_summary_text.delta" | "response.reasoning.delta" => {
                told.reasoning(0, text(heard.delta));
            }
            "response.output_item.added" => return item(heard.output_index, heard.item, told),
            "response.output_item.done" if heard.output_index.is_some() => return item(heard.output_index, heard.item, told),
            "response.function_call_arguments.delta" => return arguments(heard.output_index, text(heard.delta), told),
            "response.function_call_arguments.done" => return rest(heard.output_index, heard.arguments, told),
            "response.completed" => end(heard.response, FinishReason::Stop, told),
            "response.incomplete" => {
                let reason = heard
                    .response
                    .as_ref()
                    .and_then(|response| response.incomplete_details.as_ref()?.reason.as_deref());
                let reason = incomplete(reason)?;
                end(heard.response, reason, told);
            }
            "response.failed" => return Err(failed(heard.response, told)),
            "error" => return Err(of_error(&serde_json::from_slice(data).unwrap_or_default())),
            _ => {}
        }
        Ok(())
    }
}

/// A call begins, or is whole. Other items come piece by piece.
fn item(key: Option<u32>, item: Option<Item>, told: &mut Told) -> Result<(), Failure> {
    let Some(item) = item.filter(|item| item.r#type.as_deref() == Some("function_call")) else {
        return Ok(());
    };
    if told.calls().is_some_and(|calls| key.is_some_and(|key| calls.has(key))) {
        return rest(key, item.arguments, told);
    }
    let piece = Piece {
        key,
        id: item.call_id.unwrap_or_default(),
        name: item.name.unwrap_or_default(),
        arguments: item.arguments.unwrap_or_default(),
    };
    told.call(0, piece)
}

fn arguments(key: Option<u32>, arguments: String, told: &mut Told) -> Result<(), Failure> {
    let piece = Piece {
        key,
        arguments,
        ..Piece::default()
    };
    told.call(0, piece)
}

/// The arguments of a call, said once more at its end: heard only where they did not come piece by piece.
fn rest(key: Option<u32>, whole: Option<String>, told: &mut Told) -> Result<(), Failure> {
    match whole {
        Some(whole) if told.calls().is_some_and(|calls| is_bare(calls, key)) => arguments(key, whole, told),
        _ => Ok(()),
    }
}

fn is_bare(calls: &Calls, key: Option<u32>) -> bool {
    key.is_some_and(|key| calls.is_bare(key))
}

/// A word that is not known is an end nobody can judge.
fn incomplete(reason: Option<&str>) -> Result<FinishReason, Failure> {
    match reason {
        Some("max_output_tokens" | "max_tokens") => Ok(FinishReason::Length),
        Some("content_filter") => Ok(FinishReason::ContentFilter),
        other => {
            let why = other.unwrap_or("without a reason");
            Err(Failure::new(
                Reason::Upstream,
                format!("the server left the answer incomplete: {why}"),
            ))
        }
    }
}

fn end(response: Option<Response>, reason: FinishReason, told: &mut Told) {
    told.usage = response.and_then(|response| response.usage).map(|counts| usage(&counts));
    told.end(0, reason, String::new());
    told.done = true;
}

fn failed(response: Option<Response>, told: &mut Told) -> Failure {
    let (counts, error) = response.map(|response| (response.usage, response.error)).unwrap_or_default();
    told.usage = counts.map(|counts| usage(&counts));
    of_error(&error.unwrap_or_default())
}

fn text(delta: Option<Value>) -> String {
    match delta {
        Some(Value::String(text)) => text,
        _ => String::new(),
    }
}

fn logprob(told: Logprob) -> TokenLogprob {
    let token = told.token.unwrap_or_default();
    TokenLogprob {
        bytes: told.bytes.unwrap_or_else(|| token.clone().into_bytes()),
        token,
        logprob: told.value.unwrap_or_default(),
        top: told.top.unwrap_or_default().into_iter().map(logprob).collect(),
    }
}

fn usage(counts: &Counts) -> Usage {
    let (input, output) = (counts.input_tokens_details.as_ref(), counts.output_tokens_details.as_ref());
    Usage {
        prompt_tokens: counts.input_tokens.unwrap_or(0),
        completion_tokens: counts.output_tokens.unwrap_or(0),
        reasoning_tokens: output.and_then(|details| details.reasoning_tokens).unwrap_or(0),
        cached_tokens: input.and_then(|details| details.cached_tokens).unwrap_or(0),
    }
}
