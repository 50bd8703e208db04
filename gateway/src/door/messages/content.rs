//! What was said, in Anthropic's content blocks, and the messages that are made of it.

use proto::v1::{Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    door::{
        completions::TextOr,
        said::{self, Said as Parts},
    },
    failure::Refusal,
};

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageIn)]
pub(super) struct Said {
    /// `user` or `assistant`.
    #[schema(pattern = "^(user|assistant)$")]
    role: String,
    content: TextOr<Block>,
}

/// A content block: the fields of all kinds that can be read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ContentBlockIn)]
pub(super) struct Block {
    /// `text`, `image`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
    #[schema(pattern = "^(text|image|thinking|redacted_thinking|tool_use|tool_result)$")]
    r#type: String,
    text: Option<String>,
    thinking: Option<String>,
    /// Of an `image`.
    source: Option<Source>,
    /// Of a `tool_use`.
    id: Option<String>,
    /// Of a `tool_use`.
    name: Option<String>,
    /// Of a `tool_use`.
    #[schema(value_type = Option<Object>)]
    input: Option<Box<RawValue>>,
    /// Of a `tool_result`.
    tool_use_id: Option<String>,
    /// Of a `tool_result`.
    content: Option<TextOr<Part>>,
}

/// Where an image is.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ImageSource)]
struct Source {
    /// `base64`; no address is read but one that holds the image.
    #[schema(pattern = "^(base64|url)$")]
    r#type: String,
    media_type: Option<String>,
    data: Option<String>,
    /// Of a `url`: a `data:` URI.
    url: Option<String>,
}

impl Source {
    fn show(self, at: &str, parts: &mut Parts) -> Result<(), Refusal> {
        let at = format!("{at}.source");
        match self.r#type.as_str() {
            "base64" => {
                let media_type = required(&at, "media_type", self.media_type)?;
                let data = required(&at, "data", self.data)?;
                parts.show_file((&format!("{at}.media_type"), &format!("{at}.data")), &media_type, &data, None)
            }
            "url" => parts.show(&format!("{at}.url"), &required(&at, "url", self.url)?, None),
            other => {
                let message = format!("{at}.type: expected base64, got {other:?}");
                Err(Refusal::invalid(format!("{at}.type"), message))
            }
        }
    }
}

/// A part of a tool's result.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ToolResultPart)]
struct Part {
    /// `text`.
    #[schema(pattern = "^text$")]
    r#type: String,
    text: Option<String>,
}

impl Said {
    /// Adds what was said: the results of tools are messages of their own, before the text that came with them.
    pub(super) fn add(self, at: &str, messages: &mut Vec<Message>) -> Result<(), Refusal> {
        let role = match self.role.as_str() {
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "system" => Role::System,
            other => {
                let message = format!("{at}.role: expected user or assistant, got {other:?}");
                return Err(Refusal::invalid(format!("{at}.role"), message));
            }
        };
        let mut message = Message {
            role: role.into(),
            ..Message::default()
        };
        let blocks = match self.content {
            TextOr::Text(text) => {
                message.text = text;
                messages.push(message);
                return Ok(());
            }
            TextOr::List(blocks) => blocks,
        };
        let mut parts = Parts::default();
        let before = messages.len();
        for (index, block) in blocks.into_iter().enumerate() {
            let at = format!("{at}.content[{index}]");
            match block.r#type.as_str() {
                "text" => parts.say(&required(&at, "text", block.text)?),
                "image" => {
                    said::shown_by_user(&at, role == Role::User)?;
                    block.source.ok_or_else(|| missing(&at, "source"))?.show(&at, &mut parts)?;
                }
                "thinking" if role == Role::Assistant => message.reasoning.push_str(&required(&at, "thinking", block.thinking)?),
                "redacted_thinking" if role == Role::Assistant => {} // only its maker can read it
                "tool_use" if role == Role::Assistant => message.tool_calls.push(ToolCall {
                    id: required(&at, "id", block.id)?,
                    name: required(&at, "name", block.name)?,
                    arguments: block.input.map_or_else(|| "{}".to_owned(), |input| input.get().to_owned()),
                }),
                "tool_result" if role == Role::User => messages.push(Message {
                    role: Role::Tool.into(),
                    tool_call_id: required(&at, "tool_use_id", block.tool_use_id)?,
                    text: result_text(&at, block.content)?,
                    ..Message::default()
                }),
                other => {
                    let message =
                        format!("{at}.type: expected text, image, thinking, tool_use or tool_result as the role allows, got {other:?}");
                    return Err(Refusal::invalid(format!("{at}.type"), message));
                }
            }
        }
        let only_results = parts.is_empty() && messages.len() > before;
        if !only_results {
            (message.text, message.images) = parts.into_parts();
            messages.push(message);
        }
        Ok(())
    }
}

fn required(at: &str, name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.ok_or_else(|| missing(at, name))
}

fn missing(at: &str, name: &str) -> Refusal {
    Refusal::invalid(format!("{at}.{name}"), format!("{at}.{name} is missing"))
}

/// The text of blocks that can be nothing else.
pub(super) fn plain_text(at: &str, content: TextOr<Block>) -> Result<String, Refusal> {
    match content {
        TextOr::Text(text) => Ok(text),
        TextOr::List(blocks) => {
            let parts = blocks.into_iter().map(|block| Part {
                r#type: block.r#type,
                text: block.text,
            });
            joined(at, parts.collect())
        }
    }
}

fn result_text(at: &str, content: Option<TextOr<Part>>) -> Result<String, Refusal> {
    match content {
        None => Ok(String::new()),
        Some(TextOr::Text(text)) => Ok(text),
        Some(TextOr::List(parts)) => joined(&format!("{at}.content"), parts),
    }
}

fn joined(at: &str, parts: Vec<Part>) -> Result<String, Refusal> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let at = format!("{at}[{index}]");
        if part.r#type != "text" {
            let message = format!("{at}.type: only text can be read, got {:?}", part.r#type);
            return Err(Refusal::invalid(format!("{at}.type"), message));
        }
        texts.push(required(&at, "text", part.text)?);
    }
    Ok(texts.join("\n"))
}
