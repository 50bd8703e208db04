//! What was said, in Anthropic's content blocks, and the messages that are made of it.

use proto::v1::{Message, Role, ToolCall};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{door::completions::TextOr, failure::Refusal};

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
    /// `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
    #[schema(pattern = "^(text|thinking|redacted_thinking|tool_use|tool_result)$")]
    r#type: String,
    text: Option<String>,
    thinking: Option<String>,
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
        let mut texts = Vec::new();
        let before = messages.len();
        for (index, block) in blocks.into_iter().enumerate() {
            let at = format!("{at}.content[{index}]");
            match block.r#type.as_str() {
                "text" => texts.push(required(&at, "text", block.text)?),
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
                    let message = format!("{at}.type: expected text, thinking, tool_use or tool_result as the role allows, got {other:?}");
                    return Err(Refusal::invalid(format!("{at}.type"), message));
                }
            }
        }
        let only_results = texts.is_empty() && messages.len() > before;
        if !only_results {
            message.text = texts.join("\n");
            messages.push(message);
        }
        Ok(())
    }
}

fn required(at: &str, name: &str, value: Option<String>) -> Result<String, Refusal> {
    value.ok_or_else(|| Refusal::invalid(format!("{at}.{name}"), format!("{at}.{name} is missing")))
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
