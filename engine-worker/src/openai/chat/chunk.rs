//! What a server streams as chat completions, in the words of the journal
//! (<https://platform.openai.com/docs/api-reference/chat-streaming>). Pure.

use std::{collections::BTreeMap, iter::repeat};

use proto::v1::{Failure, FinishReason, Reason, TokenLogprob, Usage};
use serde::Deserialize;
use serde_json::Value;

use crate::openai::{
    calls::Piece,
    dialect::{Interpreter, odd},
    failure::of_error,
    told::Told,
};

/// The data of the event that ends a stream.
const DONE: &[u8] = b"[DONE]";

#[derive(Deserialize)]
struct Chunk {
    id: Option<String>,
    choices: Option<Vec<Choice>>,
    usage: Option<Counts>,
    error: Option<Value>,
    /// Earlier vLLMs': `error`, with the rest of the error beside it.
    object: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    index: Option<u32>,
    delta: Option<Delta>,
    /// The legacy completions'.
    text: Option<String>,
    finish_reason: Option<String>,
    /// vLLM's: the stop string that was met, or a token's id.
    stop_reason: Option<Value>,
    logprobs: Option<Logprobs>,
}

#[derive(Default, Deserialize)]
struct Delta {
    content: Option<String>,
    refusal: Option<String>,
    /// As DeepSeek, SGLang and earlier vLLMs name it.
    reasoning_content: Option<String>,
    /// As OpenRouter, Ollama and later vLLMs name it. Some send both, with the same text.
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
struct CallPiece {
    index: Option<u32>,
    id: Option<String>,
    function: Option<FunctionPiece>,
}

#[derive(Deserialize)]
struct FunctionPiece {
    name: Option<String>,
    arguments: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Logprob>>,
    /// The legacy completions': the tokens of the text, and their log probabilities.
    tokens: Option<Vec<String>>,
    #[serde(rename = "token_logprobs")]
    values: Option<Vec<Option<f32>>>,
    /// And of the most likely ones in the place of each.
    #[serde(rename = "top_logprobs")]
    tops: Option<Vec<Option<BTreeMap<String, f32>>>>,
}

impl Logprobs {
    /// One for each token, however the server told them.
    fn each(self) -> Vec<Logprob> {
        let legacy = |tokens: Vec<String>| {
            let values = self.values.unwrap_or_default().into_iter().map(Option::unwrap_or_default);
            let tops = self.tops.unwrap_or_default().into_iter().chain(repeat(None));
            let each = tokens.into_iter().zip(values).zip(tops).map(|((token, value), top)| Logprob {
                top: top.map(likeliest_first),
                ..Logprob::of(token, value)
            });
            each.collect()
        };
        self.content.or_else(|| self.tokens.map(legacy)).unwrap_or_default()
    }
}

#[derive(Deserialize)]
struct Logprob {
    token: String,
    #[serde(rename = "logprob")]
    value: f32,
    bytes: Option<Vec<u8>>,
    #[serde(rename = "top_logprobs")]
    top: Option<Vec<Logprob>>,
}

impl Logprob {
    fn of(token: String, value: f32) -> Self {
        Self {
            token,
            value,
            bytes: None,
            top: None,
        }
    }
}

fn likeliest_first(top: BTreeMap<String, f32>) -> Vec<Logprob> {
    let mut top: Vec<_> = top.into_iter().map(|(token, value)| Logprob::of(token, value)).collect();
    top.sort_by(|one, other| other.value.total_cmp(&one.value));
    top
}

#[derive(Deserialize)]
struct Counts {
    prompt_tokens: Option<u32>,
    completion_tokens: Option<u32>,
    prompt_tokens_details: Option<PromptDetails>,
    completion_tokens_details: Option<CompletionDetails>,
}

#[derive(Deserialize)]
struct PromptDetails {
    cached_tokens: Option<u32>,
}

#[derive(Deserialize)]
struct CompletionDetails {
    reasoning_tokens: Option<u32>,
}

/// Understands the chunks of one stream.
pub(in crate::openai) struct Chunks;

impl Interpreter for Chunks {
    fn take(&mut self, data: &[u8], told: &mut Told) -> Result<(), Failure> {
        if data.trim_ascii() == DONE {
            told.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data).map_err(|error| odd(&error))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(of_error(&error));
        }
        if chunk.object.as_deref() == Some("error") {
            return Err(of_error(&serde_json::from_slice(data).unwrap_or_default()));
        }
        if let Some(name) = chunk.id {
            told.name = name;
        }
        if let Some(counts) = chunk.usage {
            told.usage = Some(usage(&counts));
        }
        let choices = chunk.choices.unwrap_or_default();
        choices.into_iter().try_for_each(|choice| take_choice(choice, told))
    }
}

fn take_choice(choice: Choice, told: &mut Told) -> Result<(), Failure> {
    let index = choice.index.unwrap_or(0);
    told.check(index)?;
    let delta = choice.delta.unwrap_or_default();
    let said = |text: Option<String>| text.filter(|text| !text.is_empty());
    let thought = said(delta.reasoning_content).or(said(delta.reasoning));
    let thinks = thought.is_some();
    told.reasoning(index, thought.unwrap_or_default());
    let text = said(delta.content)
        .or(said(delta.refusal))
        .or(said(choice.text))
        .unwrap_or_default();
    let calls = delta.tool_calls.unwrap_or_default();
    // Those of a chunk without text may be of text that is held back, but not of thoughts or calls.
    let is_text = !text.is_empty() || (!thinks && calls.is_empty());
    let logprobs = choice.logprobs.filter(|_| is_text).map(Logprobs::each).unwrap_or_default();
    told.text(index, text, logprobs.into_iter().map(logprob).collect());
    for piece in calls {
        told.call(index, call(piece))?;
    }
    // An empty reason is no end: Ollama and SGLang have sent one with every chunk.
    if let Some(reason) = said(choice.finish_reason) {
        let stop = choice.stop_reason.as_ref().and_then(Value::as_str).unwrap_or_default();
        told.end(index, finish_reason(&reason)?, stop.to_owned());
    }
    Ok(())
}

fn finish_reason(word: &str) -> Result<FinishReason, Failure> {
    match word {
        "length" => Ok(FinishReason::Length),
        "tool_calls" | "function_call" => Ok(FinishReason::ToolCalls),
        "content_filter" => Ok(FinishReason::ContentFilter),
        "abort" | "error" => Err(Failure::new(Reason::Upstream, format!("the server ended the answer with {word:?}"))),
        _ => Ok(FinishReason::Stop), // `stop`, TGI's `eos_token` and `stop_sequence`, and whatever else is an end
    }
}

fn call(piece: CallPiece) -> Piece {
    let (name, arguments) = piece
        .function
        .map(|function| (function.name, function.arguments))
        .unwrap_or_default();
    Piece {
        key: piece.index,
        id: piece.id.unwrap_or_default(),
        name: name.unwrap_or_default(),
        arguments: arguments.unwrap_or_default(),
    }
}

fn logprob(told: Logprob) -> TokenLogprob {
    TokenLogprob {
        bytes: told.bytes.unwrap_or_else(|| told.token.clone().into_bytes()),
        token: told.token,
        logprob: told.value,
        top: told.top.unwrap_or_default().into_iter().map(logprob).collect(),
    }
}

fn usage(counts: &Counts) -> Usage {
    Usage {
        prompt_tokens: counts.prompt_tokens.unwrap_or(0),
        completion_tokens: counts.completion_tokens.unwrap_or(0),
        reasoning_tokens: counts
            .completion_tokens_details
            .as_ref()
            .and_then(|details| details.reasoning_tokens)
            .unwrap_or(0),
        cached_tokens: counts
            .prompt_tokens_details
            .as_ref()
            .and_then(|details| details.cached_tokens)
            .unwrap_or(0),
    }
}
