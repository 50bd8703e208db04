//! The messages of a request, in OpenAI's shape: also what `POST /chat` and the WebSocket take.

use proto::v1::{Message, Role, ToolCall};
use serde::Deserialize;
use utoipa::ToSchema;

use super::content::{TextOr, WordOr};
use crate::{
    door::said::{self, Said},
    failure::Refusal,
};

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
    reasoning_content: Option<String>,
    /// The same, as some servers name it; others send both.
    reasoning: Option<String>,
}

/// A part of what is said.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatPart)]
pub(crate) struct Part {
    /// `text`, `input_text`, `output_text`, `refusal`, or a user's `image_url` or `input_image`.
    #[schema(pattern = "^(text|input_text|output_text|refusal|image_url|input_image)$")]
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
    image_url: Option<WordOr<ImageUrl>>,
    detail: Option<String>,
}

/// An image.
#[derive(Debug, Deserialize, ToSchema)]
struct ImageUrl {
    /// A `data:` URI with a PNG, JPEG, GIF or WebP in base64. No other address is read.
    url: String,
    /// `low`, `high` or `auto`.
    detail: Option<String>,
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
        let (text, images) = match self.content {
            Some(TextOr::Text(text)) => (text, Vec::new()),
            Some(TextOr::List(parts)) => said(&at, role, parts)?.into_parts(),
            None if role == Role::Assistant => Default::default(),
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
            reasoning: self.reasoning_content.or(self.reasoning).unwrap_or_default(),
            images,
        })
    }
}

/// What content parts say and show.
fn said(at: &str, role: Role, parts: Vec<Part>) -> Result<Said, Refusal> {
    let mut said = Said::default();
    for (index, part) in parts.into_iter().enumerate() {
        let param = format!("{at}.content[{index}]");
        match (part.r#type.as_str(), part.text, part.refusal) {
            ("text" | "input_text" | "output_text", Some(text), _) | ("refusal", _, Some(text)) => said.say(&text),
            ("text" | "input_text" | "output_text" | "refusal", ..) => {
                return Err(Refusal::invalid(format!("{param}.text"), format!("{param}.text is missing")));
            }
            ("image_url" | "input_image", ..) => {
                said::shown_by_user(&param, role == Role::User)?;
                let field = format!("{param}.image_url");
                let (url, detail) = match part.image_url {
                    Some(WordOr::Object(image)) => (image.url, image.detail),
                    Some(WordOr::Word(url)) => (url, part.detail),
                    None => return Err(Refusal::invalid(field.clone(), format!("{field} is missing"))),
                };
                let detail = said::detail(&format!("{field}.detail"), detail)?;
                said.show(&field, &url, detail)?;
            }
            (other, ..) => {
                let message = format!("{param}.type: expected text or image_url, got {other:?}");
                return Err(Refusal::invalid(format!("{param}.type"), message));
            }
        }
    }
    Ok(said)
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
