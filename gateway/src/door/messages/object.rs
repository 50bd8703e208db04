//! The one object of an answer that does not stream, and what an answer took.

use proto::v1::{Head, Usage};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{id, stop};
use crate::door::whole::{Choice, Whole};

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct Answered {
    id: String,
    /// `message`.
    r#type: &'static str,
    role: &'static str,
    model: String,
    content: Vec<Block>,
    /// `end_turn`, `stop_sequence`, `max_tokens`, `tool_use` or `refusal`.
    stop_reason: &'static str,
    /// The stop sequence that was met.
    #[schema(required)]
    stop_sequence: Option<String>,
    /// Nothing more is told of a refusal.
    #[schema(required)]
    stop_details: Nothing,
    /// There are no containers here.
    #[schema(required)]
    container: Nothing,
    usage: UsageOut,
}

/// A field of Anthropic's that is always null here.
type Nothing = Option<bool>;

/// A piece of what was said.
#[derive(Debug, Serialize, ToSchema)]
#[serde(tag = "type", rename_all = "snake_case")]
#[schema(as = ContentBlock)]
pub(super) enum Block {
    Thinking {
        thinking: String,
        signature: &'static str,
    },
    Text {
        text: String,
        /// Nothing is cited here.
        #[schema(required)]
        citations: Nothing,
    },
    ToolUse {
        id: String,
        name: String,
        #[schema(value_type = Object)]
        input: Value,
        caller: Caller,
    },
}

/// Who used a tool.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ToolCaller)]
pub(super) struct Caller {
    /// `direct`: the model itself.
    r#type: &'static str,
}

/// Usage as Anthropic writes it: what was found in the cache is not among the input tokens.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageUsage)]
pub(super) struct UsageOut {
    input_tokens: u32,
    cache_creation_input_tokens: u32,
    cache_read_input_tokens: u32,
    #[schema(required)]
    cache_creation: Nothing,
    output_tokens: u32,
    output_tokens_details: OutputDetails,
    #[schema(required)]
    server_tool_use: Nothing,
    /// `standard`.
    service_tier: &'static str,
    #[schema(required)]
    inference_geo: Nothing,
}

/// What the answer's tokens were.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = MessageOutputDetails)]
struct OutputDetails {
    thinking_tokens: u32,
}

pub(super) fn usage(usage: Usage) -> UsageOut {
    UsageOut {
        input_tokens: usage.prompt_tokens.saturating_sub(usage.cached_tokens),
        cache_creation_input_tokens: 0,
        cache_read_input_tokens: usage.cached_tokens,
        cache_creation: None,
        output_tokens: usage.completion_tokens,
        output_tokens_details: OutputDetails {
            thinking_tokens: usage.reasoning_tokens,
        },
        server_tool_use: None,
        service_tier: "standard",
        inference_geo: None,
    }
}

impl Answered {
    pub(super) fn new(head: &Head, mut whole: Whole) -> Self {
        let choice = whole.choices.drain(..).next().unwrap_or_default();
        let (stop_reason, stop_sequence) = stop(choice.finish, &choice.stop);
        Self {
            id: id(head),
            r#type: "message",
            role: "assistant",
            model: head.model.clone(),
            stop_reason,
            stop_sequence: stop_sequence.map(str::to_owned),
            content: content(choice),
            stop_details: None,
            container: None,
            usage: usage(whole.usage),
        }
    }
}

/// What was said, as content blocks.
fn content(choice: Choice) -> Vec<Block> {
    let mut blocks = Vec::new();
    if !choice.reasoning.is_empty() {
        blocks.push(Block::Thinking {
            thinking: choice.reasoning,
            signature: "",
        });
    }
    if !choice.text.is_empty() {
        blocks.push(Block::Text {
            text: choice.text,
            citations: None,
        });
    }
    blocks.extend(choice.tool_calls.into_iter().map(|call| Block::ToolUse {
        input: input(&call.arguments),
        id: call.id,
        name: call.name,
        caller: Caller { r#type: "direct" },
    }));
    blocks
}

/// The input of a tool: an object, whatever the model wrote.
fn input(arguments: &str) -> Value {
    let input = serde_json::from_str(arguments).ok();
    input.filter(Value::is_object).unwrap_or_else(|| json!({}))
}
