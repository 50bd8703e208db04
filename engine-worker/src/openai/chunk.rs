//! What the server streams, as entries of a journal (<https://platform.openai.com/docs/api-reference/chat-streaming>). Pure:
//! one [`Told`] takes the data of one event after another and says what they mean.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Reason, TokenLogprob, ToolCallDelta, Usage, entry::Event};
use serde::Deserialize;
use serde_json::Value;

use super::failure::of_error;

/// The data of the event that ends a stream.
const DONE: &[u8] = b"[DONE]";

#[derive(Deserialize)]
struct Chunk {
    #[serde(default)]
    choices: Vec<Choice>,
    usage: Option<Counts>,
    error: Option<Value>,
}

#[derive(Deserialize)]
struct Choice {
    #[serde(default)]
    index: u32,
    #[serde(default)]
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
    /// As DeepSeek, SGLang and earlier vLLMs name it.
    reasoning_content: Option<String>,
    /// As OpenRouter, Ollama and later vLLMs name it.
    reasoning: Option<String>,
    tool_calls: Option<Vec<CallPiece>>,
}

#[derive(Deserialize)]
struct CallPiece {
    #[serde(default)]
    index: u32,
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
}

impl Logprobs {
    /// One for each token, however the server told them.
    fn each(self) -> Vec<Logprob> {
        let legacy = |tokens: Vec<String>| {
            let values = self.values.unwrap_or_default().into_iter().map(Option::unwrap_or_default);
            let each = tokens.into_iter().zip(values).map(|(token, value)| Logprob {
                token,
                value,
                bytes: None,
                top: Vec::new(),
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
    #[serde(default, rename = "top_logprobs")]
    top: Vec<Logprob>,
}

#[derive(Deserialize)]
struct Counts {
    #[serde(default)]
    prompt_tokens: u32,
    #[serde(default)]
    completion_tokens: u32,
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

/// What a stream has told so far.
#[derive(Debug)]
pub(super) struct Told {
    ends: Vec<Option<ChoiceEnd>>,
    /// What the server counted, once it said so.
    pub(super) usage: Option<Usage>,
    /// Whether the server said that nothing follows.
    pub(super) done: bool,
}

impl Told {
    pub(super) fn new(choices: u32) -> Self {
        Self {
            ends: vec![None; choices as usize],
            usage: None,
            done: false,
        }
    }

    /// Takes the data of one event, and hands over the entries that it brings.
    ///
    /// # Errors
    /// The server says that it failed, or what it says makes no sense.
    pub(super) fn take(&mut self, data: &[u8], mut entry: impl FnMut(Entry)) -> Result<(), Failure> {
        if data.trim_ascii() == DONE {
            self.done = true;
            return Ok(());
        }
        let chunk: Chunk = serde_json::from_slice(data)
            .map_err(|error| Failure::new(Reason::Upstream, format!("the server sent an event that is no chunk: {error}")))?;
        if let Some(error) = chunk.error.filter(|error| !error.is_null()) {
            return Err(of_error(&error));
        }
        if let Some(counts) = chunk.usage {
            self.usage = Some(usage(&counts));
        }
        for choice in chunk.choices {
            self.take_choice(choice, &mut entry)?;
        }
        Ok(())
    }

    /// How the choices ended, once all have.
    ///
    /// # Errors
    /// The stream is over, and a choice has no end.
    pub(super) fn ends(&self) -> Result<Vec<ChoiceEnd>, Failure> {
        let ends: Option<Vec<ChoiceEnd>> = self.ends.iter().cloned().collect();
        ends.ok_or_else(|| Failure::new(Reason::Upstream, "the server's stream ended before the answer did"))
    }

    /// Whether every choice has its end: only the usage may follow.
    pub(super) fn is_whole(&self) -> bool {
        self.ends.iter().all(Option::is_some)
    }

    fn take_choice(&mut self, choice: Choice, entry: &mut impl FnMut(Entry)) -> Result<(), Failure> {
        let index = choice.index;
        let Some(end) = self.ends.get_mut(index as usize) else {
            return Err(Failure::new(
                Reason::Upstream,
                format!("the server sent choice {index}, which nobody asked for"),
            ));
        };
        let base = Entry {
            choice: index,
            tokens: 1,
            ..Entry::default()
        };
        let delta = choice.delta.unwrap_or_default();
        if let Some(text) = delta.reasoning_content.or(delta.reasoning).filter(|text| !text.is_empty()) {
            entry(Entry {
                event: Some(Event::Reasoning(text)),
                ..base.clone()
            });
        }
        let logprobs = choice.logprobs.map(Logprobs::each).unwrap_or_default();
        let text = delta.content.or(choice.text).unwrap_or_default();
        if !text.is_empty() || !logprobs.is_empty() {
            entry(Entry {
                token: text,
                tokens: u32::try_from(logprobs.len()).unwrap_or(1).max(1),
                logprobs: logprobs.into_iter().map(logprob).collect(),
                ..base.clone()
            });
        }
        for piece in delta.tool_calls.unwrap_or_default() {
            entry(Entry {
                event: Some(Event::ToolCall(Box::new(tool_call(piece)))),
                ..base.clone()
            });
        }
        if let Some(reason) = choice.finish_reason {
            *end = Some(ChoiceEnd {
                choice: index,
                reason: finish_reason(&reason)?.into(),
                stop: choice.stop_reason.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned(),
            });
        }
        Ok(())
    }
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

fn tool_call(piece: CallPiece) -> ToolCallDelta {
    let (name, arguments) = piece
        .function
        .map(|function| (function.name, function.arguments))
        .unwrap_or_default();
    ToolCallDelta {
        index: piece.index,
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
        top: told.top.into_iter().map(logprob).collect(),
    }
}

fn usage(counts: &Counts) -> Usage {
    Usage {
        prompt_tokens: counts.prompt_tokens,
        completion_tokens: counts.completion_tokens,
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
