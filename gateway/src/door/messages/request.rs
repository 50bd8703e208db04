//! What a client may send to the Messages doors, and the `ChatRequest` that is made of it: what was said is in [`super::content`], tools
//! in [`super::tool`]. Unknown fields are ignored; each refusal names its field.

use proto::v1::{ChatRequest, Message, Role, Sampling};
use serde::Deserialize;
use utoipa::ToSchema;

use super::{
    content::{Block, Said, plain_text},
    tool::{Choice, OutputConfig, ThinkingIn, ToolIn, thinking, tools},
};
use crate::{
    door::{
        completions::{TextOr, stops, top_p},
        max_tokens, within,
    },
    failure::Refusal,
};

/// The most messages: as many as the store's history holds.
const MESSAGES: usize = 4096;

/// What is asked: Anthropic's fields. Fields that are not here are ignored.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = MessageRequest, examples(
    json!({"model": "", "max_tokens": 20, "messages": [{"role": "user", "content": "Hello"}]}),
    json!({"model": "", "max_tokens": 2, "messages": [{"role": "user", "content": "Hello"}], "stream": true}),
))]
pub(in crate::door) struct Asked {
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
    thinking: Option<ThinkingIn>,
    output_config: Option<OutputConfig>,
}

/// An input whose tokens are to be counted.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = CountTokensRequest, examples(json!({"model": "", "messages": [{"role": "user", "content": "Hello"}]})))]
pub(super) struct Input {
    model: String,
    #[schema(min_items = 1)]
    messages: Vec<Said>,
    /// The operator's instructions.
    system: Option<TextOr<Block>>,
    tools: Option<Vec<ToolIn>>,
    tool_choice: Option<Choice>,
    thinking: Option<ThinkingIn>,
    output_config: Option<OutputConfig>,
}

impl Asked {
    /// Whether to stream, and what is asked of the mesh.
    pub(in crate::door) fn into_chat(self) -> Result<(bool, ChatRequest), Refusal> {
        let sampling = Sampling {
            temperature: within("temperature", self.temperature, 0.0..=1.0)?,
            top_p: top_p(self.top_p)?,
            top_k: self.top_k,
            stop: stops("stop_sequences", self.stop_sequences.unwrap_or_default())?,
            ..Sampling::default()
        };
        let input = Input {
            model: self.model,
            messages: self.messages,
            system: self.system,
            tools: self.tools,
            tool_choice: self.tool_choice,
            thinking: self.thinking,
            output_config: self.output_config,
        };
        let request = ChatRequest {
            max_tokens: max_tokens("max_tokens", Some(self.max_tokens))?,
            sampling: Some(sampling),
            ..input.into_chat()?
        };
        Ok((self.stream.unwrap_or(false), request))
    }
}

impl Input {
    /// What is asked of the mesh, as far as the input says it.
    pub(super) fn into_chat(self) -> Result<ChatRequest, Refusal> {
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
        // The assistant has the last word: the answer goes on from there.
        let continue_final_message = messages
            .last()
            .is_some_and(|last| last.role() == Role::Assistant && !last.text.is_empty() && last.tool_calls.is_empty());
        let output = self.output_config.unwrap_or_default();
        Ok(ChatRequest {
            model: self.model,
            messages,
            continue_final_message,
            tools: tools(self.tools.unwrap_or_default())?,
            parallel_tool_calls: self.tool_choice.as_ref().and_then(Choice::parallel),
            tool_choice: self.tool_choice.map(Choice::into_choice).transpose()?,
            response_format: output.format()?,
            thinking: thinking(self.thinking.as_ref(), &output)?,
            ..ChatRequest::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{ToolMode, response_format::Format};
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
    fn how_to_use_tools_and_how_to_think_is_told() {
        let asked = |more: Value| {
            let mut body = json!({"model": "m", "max_tokens": 5, "messages": [{"role": "user", "content": "x"}]});
            body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            parsed(&body).unwrap().1
        };
        for (kind, mode) in [
            ("auto", ToolMode::Auto),
            ("any", ToolMode::Required),
            ("tool", ToolMode::Named),
            ("none", ToolMode::None),
        ] {
            let request = asked(json!({"tool_choice": {"type": kind, "name": "f", "disable_parallel_tool_use": true}}));
            assert_eq!(request.tool_choice.unwrap().mode(), mode);
            assert_eq!(request.parallel_tool_calls, Some(false));
        }
        let request = asked(json!({"tools": [{"name": "f", "strict": true, "cache_control": {"type": "ephemeral"}}]}));
        assert!(request.tools[0].strict && request.parallel_tool_calls.is_none() && request.thinking.is_none());
        let thinking = asked(json!({"thinking": {"type": "enabled", "budget_tokens": 2048, "display": "summarized"}}))
            .thinking
            .unwrap();
        assert_eq!((thinking.enabled, thinking.budget), (Some(true), 2048));
        let output = json!({"effort": "low", "format": {"type": "json_schema", "schema": {"type": "object"}}});
        let request = asked(json!({"output_config": output, "metadata": {"user_id": "u"}, "service_tier": "auto"}));
        assert_eq!(request.thinking.unwrap().effort, "low");
        let Some(Format::JsonSchema(format)) = request.response_format.unwrap().format else {
            panic!("no schema")
        };
        assert_eq!((format.schema.as_str(), format.strict), (r#"{"type":"object"}"#, true));
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
        assert_eq!(with("messages", image), "messages[0].content[0].source.type");
        assert_eq!(with("temperature", json!(1.5)), "temperature");
        assert_eq!(with("tool_choice", json!({"type": "tool"})), "tool_choice.name");
        assert_eq!(
            with("tools", json!([{"type": "web_search_20250305", "name": "s"}])),
            "tools[0].type"
        );
        assert_eq!(with("stop_sequences", json!([""])), "stop_sequences");
        assert_eq!(with("thinking", json!({"type": "hard"})), "thinking.type");
        let format = json!({"format": {"type": "xml", "schema": {}}});
        assert_eq!(with("output_config", format), "output_config.format.type");
    }
}
