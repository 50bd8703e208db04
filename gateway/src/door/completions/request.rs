//! What a client may send to chat completions, and the `ChatRequest` that is made of it: the messages are in [`super::message`], tools
//! and formats in [`super::tool`]. Unknown fields are ignored; every optional field may be null; each refusal names its field.

use std::collections::HashMap;

use proto::v1::{ChatRequest, Sampling, Thinking};
use serde::Deserialize;
use serde_json::Number;
use utoipa::ToSchema;

use super::{
    Shape,
    content::{TextOr, WordOr},
    message::{MessageIn, messages},
    tool::{Choice, FormatIn, ToolIn, tool_choice, tools},
};
use crate::{
    door::{disconnect, max_tokens, within},
    failure::Refusal,
};

/// The most choices for one request.
pub(crate) const MAX_CHOICES: usize = 8;
/// The most stop strings, and the most bytes of one: a scan for each token.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;
/// The most biased tokens.
const BIASES: usize = 1024;

/// What is asked: OpenAI's fields, and some of ours. Fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatCompletionRequest, examples(
    json!({"messages": [{"role": "user", "content": "Hello"}], "max_completion_tokens": 20}),
    json!({"messages": [{"role": "user", "content": "Hello"}], "n": 2, "logprobs": true, "top_logprobs": 1, "max_completion_tokens": 2}),
    json!({"messages": [{"role": "user", "content": "Hello"}], "stream": true, "max_completion_tokens": 2}),
))]
pub(crate) struct Completion {
    /// Empty or missing: the first model.
    model: Option<String>,
    #[schema(min_items = 1)]
    messages: Vec<MessageIn>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    /// An older name of `max_completion_tokens`.
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_tokens: Option<i64>,
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_completion_tokens: Option<i64>,
    /// How many choices.
    #[schema(minimum = 1, maximum = 8)]
    n: Option<i64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    /// Ours and vLLM's: keeps this many of the most likely tokens; -1 and 0: all.
    #[schema(minimum = -1, maximum = 4_294_967_295_i64)]
    top_k: Option<i64>,
    /// Ours and vLLM's: keeps tokens at least this likely, relative to the most likely one.
    #[schema(minimum = 0, maximum = 1)]
    min_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    /// Ours and vLLM's: divides the logit of a token that was seen.
    #[schema(minimum = 0.01, maximum = 10)]
    repetition_penalty: Option<f64>,
    #[schema(value_type = Option<i64>)]
    seed: Option<Number>,
    /// Texts that end the answer: at most 16, of 1 to 256 bytes.
    stop: Option<TextOr<String>>,
    logit_bias: Option<HashMap<String, f64>>,
    logprobs: Option<bool>,
    /// Only with `logprobs`.
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    response_format: Option<FormatIn>,
    tools: Option<Vec<ToolIn>>,
    tool_choice: Option<WordOr<Choice>>,
    /// False: at most one function is called.
    parallel_tool_calls: Option<bool>,
    /// How hard the model thinks: `none`, `minimal`, `low`, `medium`, `high`, …
    reasoning_effort: Option<String>,
    /// vLLM's: the last message is the assistant's and the beginning of the answer, which goes on from there.
    continue_final_message: Option<bool>,
    /// Ours: the conversation whose history goes before the messages, and in which the turn is kept.
    conversation_id: Option<String>,
    /// Ours: what becomes of the answer when its client has gone: `cancel`, `detach` or `background`.
    #[schema(pattern = "^(cancel|detach|background)$")]
    disconnect: Option<String>,
    /// Ours: with `detach`, how many milliseconds it goes on.
    #[schema(minimum = 1, maximum = 1_800_000)]
    detach_grace_ms: Option<i64>,
}

/// How to stream.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(crate) struct StreamOptions {
    include_usage: Option<bool>,
    /// Ours: the events bear ids, to come back with.
    resumable: Option<bool>,
}

impl StreamOptions {
    /// Whether the usage comes in an event of its own.
    pub(crate) fn include_usage(&self) -> bool {
        self.include_usage.unwrap_or(false)
    }

    /// Whether the events bear ids.
    pub(crate) fn resumable(&self) -> bool {
        self.resumable.unwrap_or(false)
    }
}

impl Completion {
    /// What is asked of the mesh, and how the answer is to be written.
    pub(crate) fn into_chat(self) -> Result<(Shape, ChatRequest), Refusal> {
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(Refusal::invalid(
                "stream_options",
                "stream_options: only allowed when stream is true",
            ));
        }
        let choices = whole("n", self.n, 1, 8)?.unwrap_or(1);
        let sampling = self.sampling()?;
        let options = self.stream_options.unwrap_or_default();
        let shape = Shape {
            stream,
            resumable: options.resumable(),
            include_usage: options.include_usage(),
            choices,
        };
        let limit = match self.max_completion_tokens {
            Some(_) => max_tokens("max_completion_tokens", self.max_completion_tokens)?,
            None => max_tokens("max_tokens", self.max_tokens)?,
        };
        let mut tools = tools(self.tools.unwrap_or_default())?;
        let tool_choice = self.tool_choice.map(|choice| tool_choice(choice, &mut tools)).transpose()?;
        let mut request = ChatRequest {
            max_tokens: limit,
            model: self.model.unwrap_or_default(),
            messages: messages(self.messages)?,
            sampling: Some(sampling),
            response_format: self.response_format.map(FormatIn::into_format).transpose()?.flatten(),
            tools,
            tool_choice,
            parallel_tool_calls: self.parallel_tool_calls,
            thinking: self.reasoning_effort.map(thinking),
            n: choices,
            continue_final_message: self.continue_final_message.unwrap_or(false),
            conversation_id: self.conversation_id.unwrap_or_default(),
            ..ChatRequest::default()
        };
        disconnect(&mut request, self.disconnect.as_deref(), self.detach_grace_ms)?;
        Ok((shape, request))
    }

    fn sampling(&self) -> Result<Sampling, Refusal> {
        let top_logprobs = whole("top_logprobs", self.top_logprobs, 0, 20)?.unwrap_or(0);
        if top_logprobs > 0 && self.logprobs != Some(true) {
            return Err(Refusal::invalid("top_logprobs", "top_logprobs: only allowed when logprobs is true"));
        }
        let top_k = match self.top_k {
            Some(-1) => Some(0), // vLLM's way to say "all"
            top_k => whole("top_k", top_k, 0, u32::MAX)?,
        };
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 0.0..=2.0)?,
            top_p: top_p(self.top_p)?,
            top_k,
            min_p: within("min_p", self.min_p, 0.0..=1.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?,
            presence_penalty: within("presence_penalty", self.presence_penalty, -2.0..=2.0)?,
            repetition_penalty: within("repetition_penalty", self.repetition_penalty, 0.01..=10.0)?,
            seed: self.seed.as_ref().map(seed).transpose()?,
            stop: stops("stop", self.stop.as_ref().map_or_else(Vec::new, TextOr::to_list))?,
            logit_bias: self.logit_bias.as_ref().map(biases).transpose()?.unwrap_or_default(),
            logprobs: self.logprobs.unwrap_or(false),
            top_logprobs,
        })
    }
}

/// How to think, from one of OpenAI's words.
fn thinking(effort: String) -> Thinking {
    match effort.as_str() {
        "none" => Thinking {
            enabled: Some(false),
            ..Thinking::default()
        },
        _ => Thinking {
            effort,
            ..Thinking::default()
        },
    }
}

/// Of 0 the likeliest token is left, which the mesh says with the least number that it takes.
///
/// # Errors
/// It is not from 0 to 1.
pub(crate) fn top_p(value: Option<f64>) -> Result<Option<f32>, Refusal> {
    const LEAST: f32 = 1e-6;
    Ok(within("top_p", value, 0.0..=1.0)?.map(|share| share.max(LEAST)))
}

/// A whole number in a range.
pub(crate) fn whole(name: &str, value: Option<i64>, low: u32, high: u32) -> Result<Option<u32>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    match u32::try_from(value) {
        Ok(number) if (low..=high).contains(&number) => Ok(Some(number)),
        _ => Err(Refusal::invalid(
            name,
            format!("{name}: expected a number from {low} to {high}, got {value}"),
        )),
    }
}

/// A seed, of which a negative one is as good as any.
pub(crate) fn seed(number: &Number) -> Result<u64, Refusal> {
    number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::cast_unsigned))
        .ok_or_else(|| Refusal::invalid("seed", format!("seed: expected a whole number of 64 bits, got {number}")))
}

/// Texts that end an answer.
///
/// # Errors
/// Too many, or one is empty or too long.
pub(crate) fn stops(param: &str, stops: Vec<String>) -> Result<Vec<String>, Refusal> {
    if stops.len() > STOPS {
        let message = format!("{param}: expected at most {STOPS} strings, got {}", stops.len());
        return Err(Refusal::invalid(param, message));
    }
    match stops.iter().find(|stop| !(1..=STOP_BYTES).contains(&stop.len())) {
        Some(stop) => {
            let message = format!("{param}: expected strings of 1 to {STOP_BYTES} bytes, got one of {}", stop.len());
            Err(Refusal::invalid(param, message))
        }
        None => Ok(stops),
    }
}

/// What is added to the logits of tokens, by their ids.
pub(crate) fn biases(given: &HashMap<String, f64>) -> Result<HashMap<u32, f32>, Refusal> {
    if given.len() > BIASES {
        return Err(Refusal::invalid(
            "logit_bias",
            format!("logit_bias: expected at most {BIASES} tokens, got {}", given.len()),
        ));
    }
    let mut biases = HashMap::with_capacity(given.len());
    for (token, bias) in given {
        let id = token
            .parse()
            .map_err(|_| Refusal::invalid("logit_bias", format!("logit_bias: expected ids of tokens as keys, got {token:?}")))?;
        biases.extend(within("logit_bias", Some(*bias), -100.0..=100.0)?.map(|bias| (id, bias)));
    }
    Ok(biases)
}
