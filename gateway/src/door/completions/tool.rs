//! The functions that a model may call, and the shape that its text must have, in OpenAI's notation.

use proto::v1::{JsonObject, JsonSchema, ResponseFormat, Tool, ToolChoice, ToolMode, response_format::Format};
use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::content::WordOr;
use crate::failure::Refusal;

/// The most functions, as at OpenAI.
pub(crate) const TOOLS: usize = 128;
/// The largest schema, in bytes: it is compiled into a grammar.
const SCHEMA_BYTES: usize = 64 * 1024;

/// A function that the model may call.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatTool)]
pub(super) struct ToolIn {
    /// `function`.
    #[schema(pattern = "^function$")]
    r#type: String,
    function: Option<FunctionIn>,
}

/// What it is called, what it does, and what it takes.
#[derive(Debug, Deserialize, ToSchema)]
struct FunctionIn {
    name: String,
    description: Option<String>,
    /// The JSON schema of its arguments.
    #[schema(value_type = Option<Object>)]
    parameters: Option<Box<RawValue>>,
    strict: Option<bool>,
}

/// The function that must be called, or those that may be.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatToolChoice)]
pub(super) struct Choice {
    /// `function` or `allowed_tools`. Without it: the one that is there.
    r#type: Option<String>,
    function: Option<FunctionName>,
    allowed_tools: Option<Allowed>,
}

/// The functions that may be called.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatAllowedTools)]
struct Allowed {
    /// `auto` or `required`.
    mode: Option<String>,
    tools: Vec<Named>,
}

/// One of them.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ChatAllowedTool)]
struct Named {
    function: FunctionName,
}

/// Its name.
#[derive(Debug, Deserialize, ToSchema)]
struct FunctionName {
    name: String,
}

/// What shape the text must have.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ResponseFormat)]
pub(super) struct FormatIn {
    /// `text`, `json_object`, `json_schema` or, of ours, `grammar`.
    #[schema(pattern = "^(text|json_object|json_schema|grammar)$")]
    r#type: String,
    json_schema: Option<SchemaIn>,
    /// In GBNF, llama.cpp's notation.
    grammar: Option<String>,
}

/// JSON that a schema describes.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = JsonSchemaFormat)]
struct SchemaIn {
    name: Option<String>,
    #[schema(value_type = Option<Object>)]
    schema: Option<Box<RawValue>>,
    strict: Option<bool>,
}

/// The functions.
pub(super) fn tools(given: Vec<ToolIn>) -> Result<Vec<Tool>, Refusal> {
    if given.len() > TOOLS {
        return Err(Refusal::invalid(
            "tools",
            format!("tools: expected at most {TOOLS} functions, got {}", given.len()),
        ));
    }
    let tool = |(index, tool): (usize, ToolIn)| {
        let at = format!("tools[{index}]");
        let (true, Some(function)) = (tool.r#type == "function", tool.function) else {
            let message = format!(
                "{at}: expected {{\"type\": \"function\", \"function\": {{…}}}}, got type {:?}",
                tool.r#type
            );
            return Err(Refusal::invalid(at, message));
        };
        let parameters = schema(&format!("{at}.function.parameters"), function.parameters.as_deref())?;
        if function.name.is_empty() {
            return Err(Refusal::invalid(
                format!("{at}.function.name"),
                format!("{at}.function.name is empty"),
            ));
        }
        Ok(Tool {
            name: function.name,
            description: function.description.unwrap_or_default(),
            parameters,
            strict: function.strict.unwrap_or(false),
        })
    };
    given.into_iter().enumerate().map(tool).collect()
}

/// A JSON schema, as text.
///
/// # Errors
/// It is too large.
pub(crate) fn schema(param: &str, given: Option<&RawValue>) -> Result<String, Refusal> {
    let text = given.map(RawValue::get).unwrap_or_default();
    if text.len() > SCHEMA_BYTES {
        let message = format!("{param}: expected at most {SCHEMA_BYTES} bytes, got {}", text.len());
        return Err(Refusal::invalid(param, message));
    }
    Ok(text.to_owned())
}

/// Whether functions may, must or must not be called. `tools` are those that there are; of them those are left that may be.
pub(super) fn tool_choice(given: WordOr<Choice>, tools: &mut Vec<Tool>) -> Result<ToolChoice, Refusal> {
    let known = |param: &str, name: String| {
        if tools.iter().any(|tool| tool.name == name) {
            return Ok(name);
        }
        let message = format!("{param}: expected the name of one of the tools, got {name:?}");
        Err(Refusal::invalid(param, message))
    };
    let choice = match given {
        WordOr::Word(word) => return mode("tool_choice", &word),
        WordOr::Object(choice) => choice,
    };
    match (choice.r#type.as_deref(), choice.function, choice.allowed_tools) {
        (None | Some("function"), Some(function), _) => Ok(ToolChoice {
            mode: ToolMode::Named.into(),
            name: known("tool_choice.function.name", function.name)?,
        }),
        (None | Some("allowed_tools"), _, Some(allowed)) => {
            let param = |index: usize| format!("tool_choice.allowed_tools.tools[{index}].function.name");
            let numbered = allowed.tools.into_iter().enumerate();
            let names = numbered.map(|(index, named)| known(&param(index), named.function.name));
            let names = names.collect::<Result<Vec<_>, _>>()?;
            tools.retain(|tool| names.contains(&tool.name));
            mode("tool_choice.allowed_tools.mode", allowed.mode.as_deref().unwrap_or("auto"))
        }
        (Some(kind @ ("function" | "allowed_tools")), ..) => {
            let param = format!("tool_choice.{kind}");
            Err(Refusal::invalid(param.clone(), format!("{param} is missing")))
        }
        (kind, ..) => {
            let message = format!("tool_choice.type: expected function or allowed_tools, got {kind:?}");
            Err(Refusal::invalid("tool_choice.type", message))
        }
    }
}

/// How a model may choose.
///
/// # Errors
/// The word is none that says so.
pub(crate) fn mode(param: &str, word: &str) -> Result<ToolChoice, Refusal> {
    let mode = match word {
        "auto" => ToolMode::Auto,
        "none" => ToolMode::None,
        "required" => ToolMode::Required,
        other => {
            let message = format!("{param}: expected auto, none, required or a function, got {other:?}");
            return Err(Refusal::invalid(param, message));
        }
    };
    Ok(ToolChoice {
        mode: mode.into(),
        name: String::new(),
    })
}

impl FormatIn {
    /// The format; `None` for plain text.
    pub(super) fn into_format(self) -> Result<Option<ResponseFormat>, Refusal> {
        let format = match (self.r#type.as_str(), self.json_schema, self.grammar) {
            ("text", ..) => return Ok(None),
            // Any JSON, also where there is no schema.
            ("json_object", ..) | ("json_schema", Some(SchemaIn { schema: None, .. }), _) => Format::JsonObject(JsonObject {}),
            ("json_schema", Some(given), _) => Format::JsonSchema(JsonSchema {
                name: given.name.unwrap_or_default(),
                schema: schema("response_format.json_schema.schema", given.schema.as_deref())?,
                strict: given.strict.unwrap_or(false),
            }),
            ("json_schema", None, _) => {
                let param = "response_format.json_schema";
                return Err(Refusal::invalid(param, format!("{param} is missing")));
            }
            ("grammar", _, Some(grammar)) if grammar.len() <= SCHEMA_BYTES => Format::Grammar(grammar),
            (other, ..) => {
                let message = format!("response_format.type: expected text, json_object or json_schema, got {other:?}");
                return Err(Refusal::invalid("response_format.type", message));
            }
        };
        Ok(Some(ResponseFormat { format: Some(format) }))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// How they may be called, and the names of those that may be.
    fn chosen(given: Value) -> Result<(ToolMode, String, String), Value> {
        let tool = |name: &str| Tool {
            name: name.to_owned(),
            ..Tool::default()
        };
        let mut tools = ["a", "b", "c"].map(tool).to_vec();
        let choice = tool_choice(serde_json::from_value(given).unwrap(), &mut tools);
        let choice = choice.map_err(|refusal| refusal.object()["param"].clone())?;
        let left: String = tools.into_iter().map(|tool| tool.name).collect();
        Ok((choice.mode(), choice.name, left))
    }

    #[test]
    fn functions_may_be_chosen_in_every_way_that_sdks_know() {
        let function = |name: &str| json!({"type": "function", "function": {"name": name}});
        let allowed =
            |mode: &str| json!({"type": "allowed_tools", "allowed_tools": {"mode": mode, "tools": [function("c"), function("a")]}});
        let way = |mode: ToolMode, name: &str, left: &str| Ok((mode, name.to_owned(), left.to_owned()));
        for (given, expected) in [
            (json!("auto"), way(ToolMode::Auto, "", "abc")),
            (json!("none"), way(ToolMode::None, "", "abc")),
            (json!("required"), way(ToolMode::Required, "", "abc")),
            (function("b"), way(ToolMode::Named, "b", "abc")),
            (json!({"function": {"name": "b"}}), way(ToolMode::Named, "b", "abc")),
            (allowed("auto"), way(ToolMode::Auto, "", "ac")),
            (allowed("required"), way(ToolMode::Required, "", "ac")),
            (json!("sometimes"), Err("tool_choice".into())),
            (function("d"), Err("tool_choice.function.name".into())),
            (json!({"type": "function"}), Err("tool_choice.function".into())),
            (json!({"type": "allowed_tools"}), Err("tool_choice.allowed_tools".into())),
            (allowed("maybe"), Err("tool_choice.allowed_tools.mode".into())),
            (json!({"type": "custom"}), Err("tool_choice.type".into())),
            (
                json!({"allowed_tools": {"tools": [function("d")]}}),
                Err("tool_choice.allowed_tools.tools[0].function.name".into()),
            ),
        ] {
            assert_eq!(chosen(given.clone()), expected, "{given}");
        }
    }
}
