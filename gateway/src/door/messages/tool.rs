//! The tools that a model may use, and how it thinks, in Anthropic's notation.

use proto::v1::{JsonSchema, ResponseFormat, Thinking, Tool, ToolChoice, ToolMode, response_format::Format};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    door::completions::{TOOLS, schema},
    failure::Refusal,
};

/// A tool of the caller's.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = Tool)]
pub(super) struct ToolIn {
    /// `custom`.
    #[schema(pattern = "^custom$")]
    r#type: Option<String>,
    name: String,
    description: Option<String>,
    /// The JSON schema of its input.
    #[schema(value_type = Option<Object>)]
    input_schema: Option<Box<RawValue>>,
    /// Whether its input must match the schema to the letter.
    strict: Option<bool>,
}

/// Whether tools may, must or must not be used.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ToolChoice)]
pub(super) struct Choice {
    /// `auto`, `any`, `tool` or `none`.
    #[schema(pattern = "^(auto|any|tool|none)$")]
    r#type: String,
    /// Of `tool`.
    name: Option<String>,
    /// At most one tool is used.
    disable_parallel_tool_use: Option<bool>,
}

/// Whether and how the model thinks before it speaks.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ThinkingConfig)]
pub(super) struct ThinkingIn {
    /// `enabled`, `adaptive` or `disabled`.
    #[schema(pattern = "^(enabled|adaptive|disabled)$")]
    r#type: String,
    /// Of `enabled`: the most tokens of thought, for upstreams that take such a bound.
    budget_tokens: Option<u32>,
}

/// How the answer is to be made.
#[derive(Debug, Default, Deserialize, ToSchema)]
pub(super) struct OutputConfig {
    /// How hard the model thinks: `low`, `medium`, `high`, `xhigh` or `max`.
    effort: Option<String>,
    format: Option<OutputFormat>,
}

/// What shape the text must have.
#[derive(Debug, Deserialize, ToSchema)]
struct OutputFormat {
    /// `json_schema`.
    #[schema(pattern = "^json_schema$")]
    r#type: String,
    #[schema(value_type = Object)]
    schema: Box<RawValue>,
}

/// The tools.
pub(super) fn tools(given: Vec<ToolIn>) -> Result<Vec<Tool>, Refusal> {
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
            strict: tool.strict.unwrap_or(false),
        })
    };
    given.into_iter().enumerate().map(tool).collect()
}

impl Choice {
    /// Whether several may be used at once, where it says so.
    pub(super) fn parallel(&self) -> Option<bool> {
        self.disable_parallel_tool_use.map(|disabled| !disabled)
    }

    pub(super) fn into_choice(self) -> Result<ToolChoice, Refusal> {
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

impl OutputConfig {
    /// The shape that the text must have.
    pub(super) fn format(&self) -> Result<Option<ResponseFormat>, Refusal> {
        let Some(given) = &self.format else { return Ok(None) };
        if given.r#type != "json_schema" {
            let param = "output_config.format.type";
            return Err(Refusal::invalid(
                param,
                format!("{param}: expected json_schema, got {:?}", given.r#type),
            ));
        }
        let schema = JsonSchema {
            schema: schema("output_config.format.schema", Some(&given.schema))?,
            strict: true,
            ..JsonSchema::default()
        };
        Ok(Some(ResponseFormat {
            format: Some(Format::JsonSchema(schema)),
        }))
    }
}

/// How the model thinks, of both places where it is said.
pub(super) fn thinking(given: Option<&ThinkingIn>, output: &OutputConfig) -> Result<Option<Thinking>, Refusal> {
    let effort = output.effort.clone().unwrap_or_default();
    let (enabled, budget) = match given {
        None if effort.is_empty() => return Ok(None),
        None => (None, 0),
        Some(given) => match given.r#type.as_str() {
            "enabled" => (Some(true), given.budget_tokens.unwrap_or(0)),
            "adaptive" => (None, 0),
            "disabled" => (Some(false), 0),
            other => {
                let message = format!("thinking.type: expected enabled, adaptive or disabled, got {other:?}");
                return Err(Refusal::invalid("thinking.type", message));
            }
        },
    };
    Ok(Some(Thinking { enabled, effort, budget }))
}
