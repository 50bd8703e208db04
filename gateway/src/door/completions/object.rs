//! The one object of an answer that does not stream.

use proto::v1::{FinishReason, Head};
use serde::Serialize;
use utoipa::ToSchema;

use super::chunk::{Logprobs, logprobs};
use crate::door::{
    UsageOut,
    whole::{Call, Choice, Whole},
};

/// A whole answer.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatCompletion)]
pub(super) struct Answered {
    id: String,
    /// `chat.completion`.
    object: &'static str,
    /// When the answer was admitted, in seconds since 1970.
    created: i64,
    model: String,
    choices: Vec<ChoiceOut>,
    usage: UsageOut,
    /// The conversation that it belongs to, if any.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    conversation_id: String,
}

/// One choice.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ChatChoice)]
struct ChoiceOut {
    index: u32,
    message: MessageOut,
    #[schema(required)]
    logprobs: Option<Logprobs>,
    /// `stop`, `length`, `tool_calls` or `content_filter`.
    finish_reason: &'static str,
}

/// What the assistant said.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AssistantMessage)]
struct MessageOut {
    role: &'static str,
    /// Null where it only called functions.
    #[schema(required)]
    content: Option<String>,
    #[schema(required)]
    refusal: Option<String>,
    /// Always empty: nothing is looked up.
    #[schema(value_type = Vec<Object>)]
    annotations: [(); 0],
    /// What it thought before.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    reasoning_content: String,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(required = false)]
    tool_calls: Vec<CallOut>,
}

/// A function call.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = CalledFunctionOut)]
struct CallOut {
    id: String,
    /// `function`.
    r#type: &'static str,
    function: FunctionOut,
}

/// Which function, and with what.
#[derive(Debug, Serialize, ToSchema)]
struct FunctionOut {
    name: String,
    /// JSON text.
    arguments: String,
}

impl Answered {
    pub(super) fn new(head: &Head, whole: Whole) -> Self {
        Self {
            id: super::id(head),
            object: "chat.completion",
            created: head.created,
            model: head.model.clone(),
            choices: (0..).zip(whole.choices).map(|(index, choice)| choice_out(index, choice)).collect(),
            usage: crate::door::usage(whole.usage),
            conversation_id: head.conversation_id.clone(),
        }
    }
}

fn choice_out(index: u32, choice: Choice) -> ChoiceOut {
    let only_calls = choice.text.is_empty() && !choice.tool_calls.is_empty();
    ChoiceOut {
        index,
        logprobs: (!choice.logprobs.is_empty()).then(|| logprobs(&choice.logprobs)),
        finish_reason: FinishReason::as_word(choice.finish),
        message: MessageOut {
            role: "assistant",
            content: (!only_calls).then_some(choice.text),
            refusal: None,
            annotations: [],
            reasoning_content: choice.reasoning,
            tool_calls: choice.tool_calls.into_iter().map(CallOut::from).collect(),
        },
    }
}

impl From<Call> for CallOut {
    fn from(call: Call) -> Self {
        Self {
            id: call.id,
            r#type: "function",
            function: FunctionOut {
                name: call.name,
                arguments: call.arguments,
            },
        }
    }
}
