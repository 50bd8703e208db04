//! What may be sent to `/v1/completions`, and the `ChatRequest`s that are made of it. Unknown fields are ignored; every optional field
//! may be null; each refusal names its field.

use std::collections::HashMap;

use proto::v1::{ChatRequest, Sampling};
use serde::Deserialize;
use serde_json::Number;
use utoipa::ToSchema;

use super::Shape;
use crate::{
    door::{
        completions::{Piece, StreamOptions, TextOr, biases, seed, stops, top_p, whole},
        disconnect, max_tokens, within,
    },
    failure::Refusal,
};

/// The most prompts in one request: each takes a slot of an engine.
const PROMPTS: usize = 16;
/// How many tokens come where nothing was said, as at OpenAI.
const MAX_TOKENS: i64 = 16;

/// What is asked: OpenAI's fields, and some of ours. Fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CompletionRequest, examples(
    json!({"prompt": "Once upon a time", "max_tokens": 20, "logprobs": 1}),
    json!({"prompt": [[1, 2], [3]], "max_tokens": 2}),
))]
pub(in crate::door) struct TextCompletion {
    /// Empty or missing: the first model.
    model: Option<String>,
    /// A text, a list of token ids, or a list of up to 16 of either.
    prompt: TextOr<Piece>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// Missing: 16.
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_tokens: Option<i64>,
    /// How many choices for each prompt.
    #[schema(minimum = 1, maximum = 8)]
    n: Option<i64>,
    /// Only as many as `n`: which answer is best is not judged here.
    best_of: Option<i64>,
    /// The answer begins with the prompt: a text, and without `logprobs`.
    echo: Option<bool>,
    /// Only empty: nothing can be inserted before a text.
    suffix: Option<String>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    #[schema(value_type = Option<i64>)]
    seed: Option<Number>,
    /// Texts that end the answer: at most 16, of 1 to 256 bytes.
    stop: Option<TextOr<String>>,
    logit_bias: Option<HashMap<String, f64>>,
    /// Of each token the log probability, and those of so many that were most likely. `text_offset` counts from the text of its event.
    #[schema(minimum = 0, maximum = 20)]
    logprobs: Option<i64>,
    /// Ours: what becomes of the answer when its client has gone: `cancel`, `detach` or `background`.
    #[schema(pattern = "^(cancel|detach|background)$")]
    disconnect: Option<String>,
    /// Ours: with `detach`, how many milliseconds it goes on.
    #[schema(minimum = 1, maximum = 1_800_000)]
    detach_grace_ms: Option<i64>,
}

impl TextCompletion {
    /// How the answers are to be written, and what is asked of the mesh for each prompt.
    pub(in crate::door) fn into_requests(self) -> Result<(Shape, Vec<ChatRequest>), Refusal> {
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(Refusal::invalid(
                "stream_options",
                "stream_options: only allowed when stream is true",
            ));
        }
        let choices = whole("n", self.n, 1, 8)?.unwrap_or(1);
        if self.best_of.is_some_and(|best| best != i64::from(choices)) {
            return Err(Refusal::invalid(
                "best_of",
                "best_of: expected as many as n: which answer is best is not judged here",
            ));
        }
        if self.suffix.as_deref().is_some_and(|suffix| !suffix.is_empty()) {
            return Err(Refusal::invalid(
                "suffix",
                "suffix: not supported; nothing can be inserted before a text",
            ));
        }
        let sampling = self.sampling()?;
        let prompts = prompts(self.prompt)?;
        if stream && prompts.len() > 1 {
            return Err(Refusal::invalid(
                "prompt",
                "prompt: expected one when stream is true; send a request for each",
            ));
        }
        let echo = if self.echo == Some(true) {
            echo(&prompts, &sampling)?
        } else {
            Vec::new()
        };
        let mut request = ChatRequest {
            raw: true,
            model: self.model.unwrap_or_default(),
            max_tokens: max_tokens("max_tokens", self.max_tokens.or(Some(MAX_TOKENS)))?,
            sampling: Some(sampling),
            n: choices,
            ..ChatRequest::default()
        };
        disconnect(&mut request, self.disconnect.as_deref(), self.detach_grace_ms)?;
        let options = self.stream_options.unwrap_or_default();
        let shape = Shape {
            stream,
            resumable: options.resumable(),
            include_usage: options.include_usage(),
            choices,
            echo,
        };
        let with = |prompt| match prompt {
            Whole::Text(prompt) => ChatRequest { prompt, ..request.clone() },
            Whole::Tokens(prompt_tokens) => ChatRequest {
                prompt_tokens,
                ..request.clone()
            },
        };
        Ok((shape, prompts.into_iter().map(with).collect()))
    }

    fn sampling(&self) -> Result<Sampling, Refusal> {
        let logprobs = whole("logprobs", self.logprobs, 0, 20)?;
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 0.0..=2.0)?,
            top_p: top_p(self.top_p)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?,
            presence_penalty: within("presence_penalty", self.presence_penalty, -2.0..=2.0)?,
            seed: self.seed.as_ref().map(seed).transpose()?,
            stop: stops("stop", self.stop.as_ref().map_or_else(Vec::new, TextOr::to_list))?,
            logit_bias: self.logit_bias.as_ref().map(biases).transpose()?.unwrap_or_default(),
            logprobs: logprobs.is_some(),
            top_logprobs: logprobs.unwrap_or(0),
            ..Sampling::default()
        })
    }
}

/// One whole prompt.
enum Whole {
    Text(String),
    Tokens(Vec<u32>),
}

/// The prompts: a list of numbers is one.
fn prompts(given: TextOr<Piece>) -> Result<Vec<Whole>, Refusal> {
    let list = match given {
        TextOr::Text(text) => vec![Piece::Text(text)],
        TextOr::List(list) => list,
    };
    if !list.is_empty() && list.iter().all(|prompt| matches!(prompt, Piece::Token(_))) {
        let tokens = list.into_iter().filter_map(|prompt| match prompt {
            Piece::Token(token) => Some(token),
            _ => None,
        });
        return Ok(vec![Whole::Tokens(tokens.collect())]);
    }
    if list.is_empty() || list.len() > PROMPTS {
        let message = format!("prompt: expected 1 to {PROMPTS} prompts, got {}", list.len());
        return Err(Refusal::invalid("prompt", message));
    }
    let prompt = |(index, prompt)| match prompt {
        Piece::Text(text) if !text.is_empty() => Ok(Whole::Text(text)),
        Piece::Tokens(tokens) if !tokens.is_empty() => Ok(Whole::Tokens(tokens)),
        Piece::Token(_) => Err(Refusal::invalid(
            format!("prompt[{index}]"),
            format!("prompt[{index}]: a list of tokens has nothing but tokens"),
        )),
        _ => Err(Refusal::invalid("prompt", "prompt is empty")),
    };
    list.into_iter().enumerate().map(prompt).collect()
}

/// What stands before the text of each prompt's answer.
fn echo(prompts: &[Whole], sampling: &Sampling) -> Result<Vec<String>, Refusal> {
    if sampling.logprobs {
        let message = "echo: not supported with logprobs; those of the prompt are not known";
        return Err(Refusal::invalid("echo", message));
    }
    let text = |prompt: &Whole| match prompt {
        Whole::Text(text) => Ok(text.clone()),
        Whole::Tokens(_) => Err(Refusal::invalid("echo", "echo: only supported with a prompt that is a text")),
    };
    prompts.iter().map(text).collect()
}
