//! Tools, their choice and the format of the text, in the notation of the Responses API: flatter than that of chat completions.

use proto::v1::{JsonObject, JsonSchema, ResponseFormat, Tool, ToolChoice, ToolMode, response_format::Format};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};
use utoipa::ToSchema;

use crate::{
    door::completions::{TOOLS, WordOr, mode, schema},
    failure::Refusal,
};

/// A function that the model may call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseTool)]
pub(super) struct ToolIn {
    r#type: String,
    name: Option<String>,
    description: Option<String>,
    /// The JSON schema of its arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Box<RawValue>>,
    strict: Option<bool>,
}

/// The function that must be called, or those that may be.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseToolChoice)]
pub(super) struct Choice {
    r#type: String,
    name: Option<String>,
    mode: Option<String>,
    tools: Option<Vec<ToolIn>>,
}

/// What shape the text must have.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseTextFormat)]
pub(super) struct FormatIn {
    r#type: String,
    name: Option<String>,
    description: Option<String>,
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    strict: Option<bool>,
}

fn shown(raw: Option<&RawValue>) -> Value {
    raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_default()
}

/// The functions that a model may call, and as they are shown again.
pub(super) fn tools(given: Vec<ToolIn>) -> Result<(Vec<Tool>, Value), Refusal> {
    if given.len() > TOOLS {
        let message = format!("tools: expected at most {TOOLS} functions, got {}", given.len());
        return Err(Refusal::invalid("tools", message));
    }
    let (mut tools, mut objects) = (Vec::new(), Vec::new());
    for (index, tool) in given.into_iter().enumerate() {
        let at = format!("tools[{index}]");
        if tool.r#type != "function" {
            let message = format!(
                "{at}.type: only functions of the caller are known (function), got {:?}",
                tool.r#type
            );
            return Err(Refusal::invalid(format!("{at}.type"), message));
        }
        let name = tool.name.filter(|name| !name.is_empty());
        let name = name.ok_or_else(|| Refusal::invalid(format!("{at}.name"), format!("{at}.name is missing")))?;
        let strict = tool.strict.unwrap_or(false);
        objects.push(json!({
            "type": "function", "name": name, "description": tool.description,
            "parameters": shown(tool.parameters.as_deref()), "strict": strict,
        }));
        tools.push(Tool {
            name,
            description: tool.description.unwrap_or_default(),
            parameters: schema(&format!("{at}.parameters"), tool.parameters.as_deref())?,
            strict,
        });
    }
    Ok((tools, objects.into()))
}

/// How a model may choose, to which functions it is held, and how that is shown again.
type Chosen = (Option<ToolChoice>, Option<Vec<String>>, Value);

/// Whether they may, must or must not be called.
pub(super) fn choice(given: Option<WordOr<Choice>>, tools: &[Tool]) -> Result<Chosen, Refusal> {
    let choice = match given {
        None => return Ok((None, None, "auto".into())),
        Some(WordOr::Word(word)) => {
            let mode = mode("tool_choice", &word)?;
            return Ok((Some(mode), None, word.into()));
        }
        Some(WordOr::Object(choice)) => choice,
    };
    let known = |param: &str, name: Option<String>| match name {
        Some(name) if tools.iter().any(|tool| tool.name == name) => Ok(name),
        other => {
            let message = format!("{param}: expected the name of one of the tools, got {other:?}");
            Err(Refusal::invalid(param, message))
        }
    };
    match choice.r#type.as_str() {
        "function" => {
            let name = known("tool_choice.name", choice.name)?;
            let object = json!({"type": "function", "name": name});
            let choice = ToolChoice {
                mode: ToolMode::Named.into(),
                name,
            };
            Ok((Some(choice), None, object))
        }
        "allowed_tools" => {
            let word = choice.mode.unwrap_or_else(|| "auto".to_owned());
            let mode = mode("tool_choice.mode", &word)?;
            let mut names = Vec::new();
            for (index, tool) in choice.tools.unwrap_or_default().into_iter().enumerate() {
                names.push(known(&format!("tool_choice.tools[{index}].name"), tool.name)?);
            }
            let objects: Vec<Value> = names.iter().map(|name| json!({"type": "function", "name": name})).collect();
            let object = json!({"type": "allowed_tools", "mode": word, "tools": objects});
            Ok((Some(mode), Some(names), object))
        }
        other => {
            let message = format!("tool_choice.type: expected function or allowed_tools, got {other:?}");
            Err(Refusal::invalid("tool_choice.type", message))
        }
    }
}

/// A format, and as it is shown again.
type Formatted = (Option<ResponseFormat>, Value);

impl FormatIn {
    /// Plain text.
    pub(super) fn plain() -> Formatted {
        (None, json!({"type": "text"}))
    }

    pub(super) fn into_format(self) -> Result<Formatted, Refusal> {
        let of = |format| Some(ResponseFormat { format: Some(format) });
        match self.r#type.as_str() {
            "text" => Ok(Self::plain()),
            "json_object" => Ok((of(Format::JsonObject(JsonObject {})), json!({"type": "json_object"}))),
            "json_schema" => {
                let missing = |name: &str| {
                    let param = format!("text.format.{name}");
                    Refusal::invalid(param.clone(), format!("{param} is missing"))
                };
                let name = self.name.ok_or_else(|| missing("name"))?;
                let raw = self.schema.ok_or_else(|| missing("schema"))?;
                let strict = self.strict.unwrap_or(false);
                let object = json!({
                    "type": "json_schema", "name": name, "description": self.description, "schema": shown(Some(&raw)), "strict": strict,
                });
                let format = JsonSchema {
                    name,
                    schema: schema("text.format.schema", Some(&raw))?,
                    strict,
                };
                Ok((of(Format::JsonSchema(format)), object))
            }
            other => {
                let message = format!("text.format.type: expected text, json_object or json_schema, got {other:?}");
                Err(Refusal::invalid("text.format.type", message))
            }
        }
    }
}
