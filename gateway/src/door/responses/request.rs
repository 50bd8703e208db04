//! What a client may send to the Responses door, and what is made of it: the `ChatRequest`, and the fields that the response shows again.
//! Unknown fields are ignored; every optional field may be null; each refusal names its field.

mod shown;
#[cfg(test)]
mod tests;

use proto::v1::{ChatRequest, Sampling, Thinking};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

use super::{
    input::{self, ITEMS, ItemIn},
    item::Item,
    metadata::{Metadata, metadata},
    tool::{Choice, FormatIn, ToolIn, choice, tools},
};
use crate::{
    door::{
        completions::{TextOr, WordOr, top_p},
        disconnect, max_tokens, within,
    },
    failure::Refusal,
};

/// The most characters of a name that only its sender understands.
const NAME: usize = 512;
/// The most alternatives whose log probabilities are told.
const TOP_LOGPROBS: i64 = 20;
/// What `include` asks for that the mesh can tell.
const LOGPROBS: &str = "message.output_text.logprobs";

/// What is asked. Fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseRequest)]
pub(super) struct Asked {
    /// Empty or missing: the first model.
    model: Option<String>,
    input: Option<TextOr<ItemIn>>,
    instructions: Option<String>,
    previous_response_id: Option<String>,
    conversation: Option<WordOr<Named>>,
    stream: Option<bool>,
    store: Option<bool>,
    background: Option<bool>,
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_output_tokens: Option<i64>,
    #[schema(minimum = 1)]
    max_tool_calls: Option<i64>,
    #[schema(minimum = 0, maximum = 2)]
    temperature: Option<f64>,
    #[schema(minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    presence_penalty: Option<f64>,
    #[schema(minimum = -2, maximum = 2)]
    frequency_penalty: Option<f64>,
    #[schema(minimum = 0, maximum = 20)]
    top_logprobs: Option<i64>,
    include: Option<Vec<String>>,
    tools: Option<Vec<ToolIn>>,
    tool_choice: Option<WordOr<Choice>>,
    parallel_tool_calls: Option<bool>,
    text: Option<TextIn>,
    reasoning: Option<ReasoningIn>,
    metadata: Option<Metadata>,
    truncation: Option<String>,
    user: Option<String>,
    safety_identifier: Option<String>,
    prompt_cache_key: Option<String>,
    /// Always null: there are no prompt templates here.
    prompt: Option<Value>,
    /// Ours: `cancel`, `detach` or `background`.
    disconnect: Option<String>,
    #[schema(minimum = 1, maximum = 1_800_000)]
    detach_grace_ms: Option<i64>,
}

/// A conversation.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConversationId)]
struct Named {
    id: String,
}

/// What the text must be like.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseText)]
struct TextIn {
    format: Option<FormatIn>,
    verbosity: Option<String>,
}

/// How the model thinks before it speaks.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseReasoning)]
struct ReasoningIn {
    effort: Option<String>,
    summary: Option<String>,
}

impl ReasoningIn {
    /// How hard to think, in the words of the mesh.
    fn thinking(&self) -> Option<Thinking> {
        let effort = self.effort.as_deref()?;
        Some(match effort {
            "none" => Thinking {
                enabled: Some(false),
                ..Thinking::default()
            },
            effort => Thinking {
                effort: effort.to_owned(),
                ..Thinking::default()
            },
        })
    }
}

/// How the client wants to hear of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shape {
    pub(super) stream: bool,
    /// Not at all, for now: it goes on by itself.
    pub(super) background: bool,
}

/// What is to be done.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) shape: Shape,
    pub(super) store: bool,
    /// The response that this one goes on from.
    pub(super) previous: Option<String>,
    pub(super) conversation: Option<String>,
    /// Leave out the oldest messages if not all fit.
    pub(super) truncate: bool,
    pub(super) input: Vec<Item>,
    /// All but the messages.
    pub(super) request: ChatRequest,
    /// What the response shows as it was asked for.
    pub(super) asked: Map<String, Value>,
}

impl Asked {
    /// What is to be done.
    pub(super) fn plan(mut self) -> Result<Plan, Refusal> {
        if self.prompt.as_ref().is_some_and(|prompt| !prompt.is_null()) {
            return Err(Refusal::invalid(
                "prompt",
                "prompt: there are no prompt templates here; send input and instructions",
            ));
        }
        let (store, background) = (self.store.unwrap_or(true), self.background.unwrap_or(false));
        if background && !store {
            return Err(Refusal::invalid(
                "background",
                "background: only a response that is stored can go on by itself",
            ));
        }
        let conversation = self.conversation.take().map(|given| match given {
            WordOr::Word(id) => id,
            WordOr::Object(named) => named.id,
        });
        if conversation.is_some() && self.previous_response_id.is_some() {
            let message = "previous_response_id: not allowed together with conversation";
            return Err(Refusal::invalid("previous_response_id", message));
        }
        metadata("metadata", self.metadata.as_ref())?;
        self.words()?;
        let input = match self.input.take() {
            None => Vec::new(),
            Some(TextOr::Text(text)) => vec![Item::user(text)],
            Some(TextOr::List(items)) => input::read("input", items, ITEMS)?,
        };
        if input.is_empty() && conversation.is_none() && self.previous_response_id.is_none() {
            let message = "input is missing: without it a response can only go on from a conversation or a previous_response_id";
            return Err(Refusal::invalid("input", message));
        }
        let mut shown = Map::new();
        let request = self.request(&mut shown)?;
        let (stream, previous) = (self.stream.unwrap_or(false), self.previous_response_id.clone());
        let truncate = self.truncation.as_deref() == Some("auto");
        let asked = self.asked(shown, store, background, conversation.as_deref());
        Ok(Plan {
            shape: Shape { stream, background },
            store,
            previous,
            conversation,
            truncate,
            input,
            request,
            asked,
        })
    }

    /// All but the messages. Tools, their choice and the format are written into `shown` as they took effect.
    fn request(&mut self, shown: &mut Map<String, Value>) -> Result<ChatRequest, Refusal> {
        let sampling = self.sampling()?;
        let text = self.text.take();
        let verbosity = text.as_ref().and_then(|text| text.verbosity.clone());
        let (format, format_shown) = text
            .and_then(|text| text.format)
            .map_or_else(|| Ok(FormatIn::plain()), FormatIn::into_format)?;
        let mut text_shown = json!({"format": format_shown});
        if let Some(verbosity) = verbosity {
            text_shown["verbosity"] = verbosity.into();
        }
        shown.insert("text".to_owned(), text_shown);
        let (mut tools, tools_shown) = tools(self.tools.take().unwrap_or_default())?;
        shown.insert("tools".to_owned(), tools_shown);
        let (mode, allowed, choice_shown) = choice(self.tool_choice.take(), &tools)?;
        shown.insert("tool_choice".to_owned(), choice_shown);
        if let Some(allowed) = allowed {
            tools.retain(|tool| allowed.contains(&tool.name));
        }
        let mut request = ChatRequest {
            max_tokens: max_tokens("max_output_tokens", self.max_output_tokens)?,
            model: self.model.take().unwrap_or_default(),
            sampling: Some(sampling),
            response_format: format,
            tools,
            tool_choice: mode,
            instructions: self.instructions.clone().unwrap_or_default(),
            parallel_tool_calls: self.parallel_tool_calls,
            thinking: self.reasoning.as_ref().and_then(ReasoningIn::thinking),
            ..ChatRequest::default()
        };
        disconnect(&mut request, self.disconnect.as_deref(), self.detach_grace_ms)?;
        Ok(request)
    }

    fn sampling(&self) -> Result<Sampling, Refusal> {
        let top = self.top_logprobs.unwrap_or(0);
        let top_logprobs = u32::try_from(top).ok().filter(|_| top <= TOP_LOGPROBS).ok_or_else(|| {
            let message = format!("top_logprobs: expected a number from 0 to {TOP_LOGPROBS}, got {top}");
            Refusal::invalid("top_logprobs", message)
        })?;
        let included = self.include.iter().flatten().any(|what| what == LOGPROBS);
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 0.0..=2.0)?,
            top_p: top_p(self.top_p)?,
            presence_penalty: within("presence_penalty", self.presence_penalty, -2.0..=2.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?,
            logprobs: included || top_logprobs > 0,
            top_logprobs,
            ..Sampling::default()
        })
    }

    /// Judges what is only a word.
    fn words(&self) -> Result<(), Refusal> {
        one_of("truncation", self.truncation.as_deref(), &["auto", "disabled"])?;
        let verbosity = self.text.as_ref().and_then(|text| text.verbosity.as_deref());
        one_of("text.verbosity", verbosity, &["low", "medium", "high"])?;
        let summary = self.reasoning.as_ref().and_then(|reasoning| reasoning.summary.as_deref());
        one_of("reasoning.summary", summary, &["auto", "concise", "detailed"])?;
        let effort = self.reasoning.as_ref().and_then(|reasoning| reasoning.effort.as_deref());
        one_of(
            "reasoning.effort",
            effort,
            &["none", "minimal", "low", "medium", "high", "xhigh", "max"],
        )?;
        if self.max_tool_calls.is_some_and(|most| most < 1) {
            return Err(Refusal::invalid("max_tool_calls", "max_tool_calls: expected a number from 1"));
        }
        let names = [
            ("user", &self.user),
            ("safety_identifier", &self.safety_identifier),
            ("prompt_cache_key", &self.prompt_cache_key),
        ];
        for (param, name) in names {
            if name.as_ref().is_some_and(|name| name.chars().count() > NAME) {
                return Err(Refusal::invalid(param, format!("{param}: expected at most {NAME} characters")));
            }
        }
        Ok(())
    }
}

fn one_of(param: &str, given: Option<&str>, words: &[&str]) -> Result<(), Refusal> {
    match given {
        Some(word) if !words.contains(&word) => {
            let message = format!("{param}: expected one of {}, got {word:?}", words.join(", "));
            Err(Refusal::invalid(param, message))
        }
        _ => Ok(()),
    }
}
