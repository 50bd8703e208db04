//! What a client may send to the Messages door, and the `ChatRequest` that is made of it. Unknown fields are ignored; each refusal
//! names its field.

use proto::v1::{ChatRequest, Message, Role, Sampling, Tool, ToolCall, ToolChoice, ToolMode};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    door::{
        completions::{TOOLS, TextOr, schema, stops, top_p},
        max_tokens, within,
    },
    failure::Refusal,
};

/// The most messages: as many as the store's history holds.
const MESSAGES: usize = 4096;

/// What is asked: Anthropic's fields. Fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageRequest)]
pub(super) struct Asked {
    model: String,
    #[schema(minimum = 1, maximum = 1_048_576)]
    max_tokens: i64,
    #[schema(min_items = 1)]
    messages: Vec<Said>,
    /// The operator's instructions.
    system: Option<TextOr<Block>>,
    stream: Option<bool>,
    /// Texts that end the answer: at most 16, of 1 to 256 bytes.
    stop_sequences: Option<Vec<String>>,
    #[schema(minimum = 0, maximum = 1)]
    temperature: Option<f64>,
    #[schema(exclusive_minimum = 0, maximum = 1)]
    top_p: Option<f64>,
    top_k: Option<u32>,
    tools: Option<Vec<ToolIn>>,
    tool_choice: Option<Choice>,
}

/// A message.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageIn)]
struct Said {
    /// `user` or `assistant`.
    role: String,
    content: TextOr<Block>,
}

/// A content block: the fields of all kinds that can be read.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ContentBlockIn)]
struct Block {
    /// `text`, `thinking`, `redacted_thinking`, `tool_use` or `tool_result`.
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
    r#type: String,
    text: Option<String>,
}

/// A tool of the caller's.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Tool)]
struct ToolIn {
    /// `custom`.
    r#type: Option<String>,
    name: String,
    description: Option<String>,
    /// The JSON schema of its input.
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Box<RawValue>>,
}

/// Whether tools may, must or must not be used.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ToolChoice)]
struct Choice {
    /// `auto`, `any`, `tool` or `none`.
    r#type: String,
    /// Of `tool`.
    name: Option<String>,
}

impl Asked {
    /// Whether to stream, and what is asked of the mesh.
    pub(super) fn into_chat(self) -> Result<(bool, ChatRequest), Refusal> {
        let mut messages = Vec::with_capacity(self.messages.len() + 1);
        if let Some(system) = self.system {
            messages.push(Message {
                role: Role::System.into(),
                text: plain_text("system", system)?,
                ..Message::default()
            });
        }
        if !(1..=MESSAGES).contains(&self.messages.len()) {
            let message = format!("messages: expected 1 to {MESSAGES} messages, got {}", self.messages.len());
            return Err(Refusal::invalid("messages", message));
        }
        for (index, said) in self.messages.into_iter().enumerate() {
            said.add(&format!("messages[{index}]"), &mut messages)?;
        }
        let sampling = Sampling {
            temperature: within("temperature", self.temperature, 0.0..=1.0)?,
            top_p: top_p(self.top_p)?,
            top_k: self.top_k,
            stop: stops("stop_sequences", self.stop_sequences.unwrap_or_default())?,
            ..Sampling::default()
        };
        let request = ChatRequest {
            model: self.model,
            max_tokens: max_tokens("max_tokens", Some(self.max_tokens))?,
            messages,
            sampling: Some(sampling),
            tools: tools(self.tools.unwrap_or_default())?,
            tool_choice: self.tool_choice.map(Choice::into_choice).transpose()?,
            ..ChatRequest::default()
        };
        Ok((self.stream.unwrap_or(false), request))
    }
}

impl Said {
    /// Adds what was said: the results of tools are messages of their own, before the text that came with them.
    fn add(self, at: &str, messages: &mut Vec<Message>) -> Result<(), Refusal> {
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

fn plain_text(at: &str, content: TextOr<Block>) -> Result<String, Refusal> {
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

fn tools(given: Vec<ToolIn>) -> Result<Vec<Tool>, Refusal> {
    if given.len() > TOOLS {
        let message = format!("tools: expected at most {TOOLS} tools, got {}", given.len());
        return Err(Refusal::invalid("tools", message));
    }
    let tool = |(index, tool): (usize, ToolIn)| {
        let at = format!("tools[{index}]");
        if tool.r#type.as_deref().is_some_and(|kind| kind != "custom") {
            let message = format!("{at}.type: only the caller's own tools are known (custom), got {:?}", tool.r#type);
            return Err(Refusal::invalid(format!("{at}.type"), message));
        }
        if tool.name.is_empty() {
            return Err(Refusal::invalid(format!("{at}.name"), format!("{at}.name is empty")));
        }
        Ok(Tool {
            name: tool.name,
            description: tool.description.unwrap_or_default(),
            parameters: schema(&format!("{at}.input_schema"), tool.input_schema.as_deref())?,
            strict: false,
        })
    };
    given.into_iter().enumerate().map(tool).collect()
}

impl Choice {
    fn into_choice(self) -> Result<ToolChoice, Refusal> {
        let mode = match self.r#type.as_str() {
            "auto" => ToolMode::Auto,
            "any" => ToolMode::Required,
            "tool" => ToolMode::Named,
            "none" => ToolMode::None,
            other => {
                let message = format!("tool_choice.type: expected auto, any, tool or none, got {other:?}");
                return Err(Refusal::invalid("tool_choice.type", message));
            }
        };
        let name = match (mode, self.name) {
            (ToolMode::Named, None) => return Err(Refusal::invalid("tool_choice.name", "tool_choice.name is missing")),
            (ToolMode::Named, Some(name)) => name,
            _ => String::new(),
        };
        Ok(ToolChoice { mode: mode.into(), name })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn parsed(body: &Value) -> Result<(bool, ChatRequest), Value> {
        let asked: Asked = crate::body::parse(body.to_string().as_bytes()).map_err(|refusal| refusal.object())?;
        asked.into_chat().map_err(|refusal| refusal.object())
    }

    #[test]
    fn results_of_tools_stand_before_the_text_that_came_with_them() {
        let body = json!({"model": "m", "max_tokens": 5, "system": [{"type": "text", "text": "Be brief."}], "messages": [
            {"role": "user", "content": "How warm?"},
            {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}, {"type": "text", "text": "Let me look."},
                {"type": "tool_use", "id": "c1", "name": "look", "input": {"where": "Rome"}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": [{"type": "text", "text": "21"}]},
                {"type": "text", "text": "Well?"}]},
        ]});
        let (stream, request) = parsed(&body).unwrap();
        assert!(!stream);
        let said: Vec<_> = request
            .messages
            .iter()
            .map(|message| (message.role(), message.text.as_str()))
            .collect();
        assert_eq!(
            said,
            [
                (Role::System, "Be brief."),
                (Role::User, "How warm?"),
                (Role::Assistant, "Let me look."),
                (Role::Tool, "21"),
                (Role::User, "Well?")
            ]
        );
        assert_eq!(request.messages[2].reasoning, "hm");
        assert_eq!(request.messages[2].tool_calls[0].arguments, "{\"where\":\"Rome\"}");
        assert_eq!(request.messages[3].tool_call_id, "c1");
    }

    #[test]
    fn the_field_at_fault_is_named() {
        let with = |name: &str, value: Value| {
            let mut body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
            body[name] = value;
            parsed(&body).map(|_| ()).unwrap_err()["param"].clone()
        };
        assert_eq!(with("max_tokens", json!(0)), "max_tokens");
        assert_eq!(with("messages", json!([])), "messages");
        assert_eq!(with("messages", json!([{"role": "tool", "content": "x"}])), "messages[0].role");
        let image = json!([{"role": "user", "content": [{"type": "image", "source": {}}]}]);
        assert_eq!(with("messages", image), "messages[0].content[0].type");
        assert_eq!(with("temperature", json!(1.5)), "temperature");
        assert_eq!(with("tool_choice", json!({"type": "tool"})), "tool_choice.name");
        assert_eq!(
            with("tools", json!([{"type": "web_search_20250305", "name": "s"}])),
            "tools[0].type"
        );
        assert_eq!(with("stop_sequences", json!([""])), "stop_sequences");
    }
}
