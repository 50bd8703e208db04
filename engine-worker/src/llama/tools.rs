//! The functions of a request as a grammar: what a model of a family may write where it calls one.
//!
//! [`super::request`] makes it, [`super::grammar`] compiles it. The arguments of each function follow its own schema; names and marks are
//! literal. So even a model that was never taught to call functions calls them rightly where it must.

use proto::v1::{ChatRequest, Failure, Tool, ToolChoice, ToolMode};

use super::{
    grammar::{from_schema, literal, prefixed},
    speech::Family,
};

/// The field that is named where a schema cannot be used.
pub(super) const FIELD: &str = "tools";
/// Calls after the first: a small model may not know when to end.
const MORE: usize = 15;
/// White space that a model may put between the parts of a call.
const SPACE: &str = "ws ::= | \" \" | \"\\n\"\n";

/// How far the model is free to call functions; none may be if there are none.
pub(super) fn mode(request: &ChatRequest) -> ToolMode {
    if request.tools.is_empty() {
        return ToolMode::None;
    }
    match request.tool_choice.as_ref().map_or(ToolMode::Auto, ToolChoice::mode) {
        ToolMode::Unspecified => ToolMode::Auto,
        mode => mode,
    }
}

/// The functions that may be called.
///
/// # Errors
/// The one that must be is none of them.
pub(super) fn callable(request: &ChatRequest) -> Result<Vec<&Tool>, Failure> {
    match (mode(request), &request.tool_choice) {
        (ToolMode::None, _) => Ok(Vec::new()),
        (ToolMode::Named, Some(choice)) => match request.tools.iter().find(|tool| tool.name == choice.name) {
            Some(tool) => Ok(vec![tool]),
            None => Err(Failure::invalid(
                "tool_choice",
                format!("there is no function {:?} among the tools", choice.name),
            )),
        },
        _ => Ok(request.tools.iter().collect()),
    }
}

/// Where a grammar of calls begins, and how many it allows.
#[derive(Clone, Copy, Debug)]
pub(super) struct Extent {
    /// The mark before the calls has been written.
    pub(super) begun: bool,
    /// One call only.
    pub(super) single: bool,
}

/// The rules of calls, whose first is `calls`.
///
/// # Errors
/// A function's schema cannot be made into a grammar.
pub(super) fn rules(family: Family, tools: &[&Tool], extent: Extent) -> Result<String, Failure> {
    let mut rules = SPACE.to_owned();
    let mut calls = Vec::new();
    for (which, tool) in tools.iter().enumerate() {
        let schema = if tool.parameters.trim().is_empty() {
            r#"{"type":"object"}"#
        } else {
            &tool.parameters
        };
        is_object(tool, schema)?;
        let arguments = from_schema(FIELD, schema)?;
        rules.push_str(&prefixed(&arguments, &format!("t{which}-")));
        calls.push(call(family, tool, which));
    }
    let call = format!("call ::= {}\n", calls.join(" | "));
    Ok([rules, call, around(family, extent)].concat())
}

/// The arguments of a call are an object, whatever else a schema might describe.
fn is_object(tool: &Tool, schema: &str) -> Result<(), Failure> {
    let value: serde_json::Value = serde_json::from_str(schema).unwrap_or_default();
    match value.get("type") {
        None if value.is_object() => Ok(()),
        Some(kind) if kind == "object" => Ok(()),
        _ => Err(Failure::invalid(
            FIELD,
            format!("the parameters of the function {:?} are not the schema of an object", tool.name),
        )),
    }
}

/// One call of one function.
fn call(family: Family, tool: &Tool, which: usize) -> String {
    let name = &tool.name;
    let object = |key: &str| {
        let quoted = serde_json::Value::from(name.as_str()).to_string();
        let (head, key) = (literal("{\"name\":"), literal(&format!("\"{key}\":")));
        format!("{head} ws {} ws \",\" ws {key} ws t{which}-root ws \"}}\"", literal(&quoted))
    };
    match family {
        Family::Hermes | Family::Mistral => object("arguments"),
        Family::Llama3 => object("parameters"),
        Family::Deepseek => {
            let old = literal(&format!("function<｜tool▁sep｜>{name}\n```json\n"));
            let new = literal(&format!("{name}<｜tool▁sep｜>"));
            format!("{old} t{which}-root \"\\n```\" | {new} t{which}-root")
        }
    }
}

/// What stands around calls, as the rule `calls`.
fn around(family: Family, Extent { begun, single }: Extent) -> String {
    let open = literal(family.open());
    let close = literal(family.close());
    let more = |rule: &str| if single { String::new() } else { format!(" ({rule}){{0,{MORE}}}") };
    let opened = |rule: &str| if begun { rule.to_owned() } else { format!("{open} {rule}") };
    match family {
        Family::Hermes => {
            // Each call has its own marks: where one has begun, the grammar ends with it.
            let more = if begun { String::new() } else { more(&format!("ws {open} one")) };
            format!("one ::= ws call ws {close}\ncalls ::= {}{more}\n", opened("one"))
        }
        Family::Llama3 => format!("calls ::= call{}\n", more("\";\" ws call")),
        Family::Mistral => format!(
            "list ::= ws \"[\" ws call{} ws \"]\"\ncalls ::= {}\n",
            more("ws \",\" ws call"),
            opened("list")
        ),
        Family::Deepseek => {
            let (first, last) = (literal("<｜tool▁call▁begin｜>"), literal("<｜tool▁call▁end｜>"));
            let block = format!("block ::= {first} (call) {last}\n");
            format!("{block}calls ::= {}{} ws {close}\n", opened("block"), more("ws block"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(name: &str, parameters: &str) -> Tool {
        Tool {
            name: name.to_owned(),
            parameters: parameters.to_owned(),
            ..Tool::default()
        }
    }

    fn asked(mode: ToolMode, name: &str) -> ChatRequest {
        ChatRequest {
            tools: vec![tool("look", ""), tool("add", "{}")],
            tool_choice: Some(ToolChoice {
                mode: mode.into(),
                name: name.to_owned(),
            }),
            ..ChatRequest::default()
        }
    }

    #[test]
    fn only_what_may_be_called_is_in_the_grammar() {
        let names = |request: &ChatRequest| callable(request).map(|tools| tools.iter().map(|tool| tool.name.clone()).collect::<Vec<_>>());
        assert_eq!(names(&asked(ToolMode::Auto, "")).unwrap(), ["look", "add"]);
        assert_eq!(names(&asked(ToolMode::Named, "add")).unwrap(), ["add"]);
        assert_eq!(names(&asked(ToolMode::None, "")).unwrap(), [""; 0]);
        assert_eq!(names(&asked(ToolMode::Named, "fly")).unwrap_err().param, "tool_choice");
        assert_eq!(mode(&ChatRequest::default()), ToolMode::None);
    }

    #[test]
    fn arguments_that_are_no_object_are_refused() {
        let extent = Extent {
            begun: false,
            single: false,
        };
        for parameters in [r#"{"type":"array"}"#, r#"{"type":"string"}"#, "true"] {
            let tool = tool("f", parameters);
            assert_eq!(rules(Family::Hermes, &[&tool], extent).unwrap_err().param, FIELD, "{parameters}");
        }
    }

    #[test]
    fn the_rules_of_two_functions_do_not_mix() {
        let one = tool("f", r#"{"type":"object","properties":{"a":{"type":"integer"}},"required":["a"]}"#);
        let other = tool("g", r#"{"type":"object","properties":{"a":{"type":"string"}},"required":["a"]}"#);
        let extent = Extent {
            begun: false,
            single: false,
        };
        for family in [Family::Hermes, Family::Llama3, Family::Mistral, Family::Deepseek] {
            let rules = rules(family, &[&one, &other], extent).unwrap();
            let names: Vec<&str> = rules.lines().filter_map(|line| line.split(" ::= ").next()).collect();
            let distinct: std::collections::HashSet<&&str> = names.iter().collect();
            assert_eq!(names.len(), distinct.len(), "{rules}");
            assert!(names.contains(&"t0-a") || names.contains(&"t0-a-kv"), "{rules}");
            assert!(names.contains(&"calls") && names.contains(&"t1-root"));
        }
    }
}
