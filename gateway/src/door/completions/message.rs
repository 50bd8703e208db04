//! The messages of a request, in OpenAI's shape: also what `POST /chat` and the WebSocket take.

use proto::v1::{Failure, Message, Reason, Role, ToolCall};
use serde::Deserialize;
use utoipa::ToSchema;

use super::content::TextOr;
use crate::failure::Refusal;

/// The most messages: as many as the store's history holds.
const MESSAGES: usize = 4096;

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatMessage)]
pub(crate) struct MessageIn {
    /// `system`, `developer`, `user`, `assistant` or `tool`.
    #[schema(pattern = "^(system|developer|user|assistant|tool)$")]
    role: String,
    content: Option<TextOr<Part>>,
    name: Option<String>,
    /// What the assistant called in this message.
    tool_calls: Option<Vec<CallIn>>,
    /// For a `tool` message: the call that it answers.
    tool_call_id: Option<String>,
    /// What the assistant thought before.
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
}

/// A part of what is said.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatPart)]
pub(crate) struct Part {
    /// `text`, `input_text`, `output_text` or `refusal`.
    #[schema(pattern = "^(text|input_text|output_text|refusal)$")]
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

/// A function call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ToolCall)]
pub(crate) struct CallIn {
    id: String,
    function: CalledFunction,
}

/// Which function, and with what.
#[derive(Debug, Deserialize, ToSchema)]
struct CalledFunction {
    name: String,
    /// JSON text.
    arguments: Option<String>,
}

/// The messages, of which there must be one at least.
pub(crate) fn messages(given: Vec<MessageIn>) -> Result<Vec<Message>, Refusal> {
    if given.is_empty() || given.len() > MESSAGES {
        let message = format!("messages: expected 1 to {MESSAGES} messages, got {}", given.len());
        return Err(Refusal::invalid("messages", message));
    }
    given
        .into_iter()
        .enumerate()
        .map(|(index, message)| message.into_message(index))
        .collect()
}

impl MessageIn {
    fn into_message(self, index: usize) -> Result<Message, Refusal> {
        let at = format!("messages[{index}]");
        let role = match self.role.as_str() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => {
                let message = format!("{at}.role: expected system, developer, user, assistant or tool, got {other:?}");
                return Err(Refusal::invalid(format!("{at}.role"), message));
            }
        };
        let tool_calls: Vec<ToolCall> = self.tool_calls.unwrap_or_default().into_iter().map(CallIn::into_call).collect();
        let text = match self.content {
            Some(TextOr::Text(text)) => text,
            Some(TextOr::List(parts)) => text_of(&at, parts)?,
            None if role == Role::Assistant => String::new(),
            None => return Err(Refusal::invalid(format!("{at}.content"), format!("{at}.content is missing"))),
        };
        if role == Role::Tool && self.tool_call_id.as_deref().unwrap_or_default().is_empty() {
            let param = format!("{at}.tool_call_id");
            return Err(Refusal::invalid(
                param.clone(),
                format!("{param} is missing: a tool message answers a call"),
            ));
        }
        Ok(Message {
            role: role.into(),
            text,
            tool_calls,
            tool_call_id: self.tool_call_id.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            reasoning: self.reasoning_content.unwrap_or_default(),
        })
    }
}

/// The text of content parts, one line after the other.
fn text_of(at: &str, parts: Vec<Part>) -> Result<String, Refusal> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let param = format!("{at}.content[{index}]");
        match (part.r#type.as_str(), part.text, part.refusal) {
            ("text" | "input_text" | "output_text", Some(text), _) | ("refusal", _, Some(text)) => texts.push(text),
            ("text" | "input_text" | "output_text" | "refusal", ..) => {
                return Err(Refusal::invalid(format!("{param}.text"), format!("{param}.text is missing")));
            }
            ("image_url" | "input_image" | "image", ..) => {
                let message = format!("{param}.type: only text can be read: no engine here sees images, and no address is ever fetched");
                return Err(Failure {
                    param: format!("{param}.type"),
                    ..Failure::new(Reason::Unsupported, message)
                }
                .into());
            }
            (other, ..) => {
                let message = format!("{param}.type: only text can be read, got {other:?}");
                return Err(Refusal::invalid(format!("{param}.type"), message));
            }
        }
    }
    Ok(texts.join("\n"))
}

impl CallIn {
    fn into_call(self) -> ToolCall {
        ToolCall {
            id: self.id,
            name: self.function.name,
            arguments: self.function.arguments.unwrap_or_default(),
        }
    }
}
