//! The messages and functions of a request, as chat templates expect them.
//!
//! [`super::template`] renders them. For a model whose template knows no functions they are put into words here: the functions into the
//! system message, calls and their results into the messages of assistant and user, as the models of the Hermes family were taught.

use proto::v1::{ChatRequest, Failure, Message, Role, Tool, ToolMode};
use serde_json::{Value, json};

use super::{
    speech::{Dialect, Family},
    tools,
};

/// What a template may be told of roles and functions.
#[derive(Clone, Copy, Debug)]
pub(super) struct Knows {
    /// The role `developer`.
    pub(super) developer: bool,
    /// How calls are written, and whether functions can be passed as they are.
    pub(super) dialect: Dialect,
}

/// The messages.
///
/// # Errors
/// There are none, or a call's arguments are no JSON.
pub(super) fn messages(request: &ChatRequest, knows: Knows) -> Result<Vec<Value>, Failure> {
    let mut messages: Vec<Value> = request.messages.iter().map(|one| message(one, knows)).collect::<Result<_, _>>()?;
    if !request.prompt.is_empty() {
        messages.push(json!({"role": "user", "content": request.prompt}));
    }
    if messages.is_empty() {
        return Err(Failure::invalid("messages", "there must be at least one message, or a prompt"));
    }
    if !knows.dialect.native {
        messages = in_words(messages);
        if tools::mode(request) != ToolMode::None {
            explain(&mut messages, &request.tools)?;
        }
    }
    Ok(messages)
}

/// The functions, or nothing: then a template says nothing of functions.
///
/// # Errors
/// Their parameters are no JSON.
pub(super) fn functions(request: &ChatRequest, knows: Knows) -> Result<Option<Vec<Value>>, Failure> {
    if !knows.dialect.native || tools::mode(request) == ToolMode::None {
        return Ok(None);
    }
    request.tools.iter().map(function).collect::<Result<_, _>>().map(Some)
}

fn message(message: &Message, knows: Knows) -> Result<Value, Failure> {
    let role = match message.role() {
        Role::Unspecified | Role::User => "user",
        Role::Developer if knows.developer => "developer",
        Role::System | Role::Developer => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
    };
    let mut value = json!({"role": role, "content": message.text});
    let mut set = |key: &str, text: &str| {
        if !text.is_empty() {
            value[key] = json!(text);
        }
    };
    set("name", &message.name);
    set("tool_call_id", &message.tool_call_id);
    set("reasoning_content", &message.reasoning);
    if !message.tool_calls.is_empty() {
        let calls = message.tool_calls.iter().map(|call| {
            let mut arguments = parse("messages", &call.arguments)?;
            if knows.dialect.native && knows.dialect.family == Family::Deepseek {
                arguments = Value::from(call.arguments.as_str()); // its templates join texts
            }
            Ok(json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}))
        });
        value["tool_calls"] = calls.collect::<Result<_, Failure>>()?;
    }
    Ok(value)
}

fn function(tool: &Tool) -> Result<Value, Failure> {
    let parameters = parse(tools::FIELD, &tool.parameters)?;
    Ok(json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}))
}

fn parse(field: &str, text: &str) -> Result<Value, Failure> {
    if text.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_str(text).map_err(|error| Failure::invalid(field, format!("a function's JSON is none: {error}")))
}

/// Calls and results as texts. The results of one turn are one message: few templates take two of the user's in a row.
fn in_words(messages: Vec<Value>) -> Vec<Value> {
    let mut written: Vec<Value> = Vec::with_capacity(messages.len());
    let mut results = false;
    for mut message in messages {
        let is_result = message["role"] == "tool";
        let content = message["content"].as_str().unwrap_or_default();
        if is_result {
            let result = format!("<tool_response>\n{content}\n</tool_response>");
            match written.last_mut().filter(|_| results) {
                Some(last) => last["content"] = format!("{}\n{result}", last["content"].as_str().unwrap_or_default()).into(),
                None => written.push(json!({"role": "user", "content": result})),
            }
        } else {
            if let Some(calls) = message.get("tool_calls").and_then(Value::as_array) {
                let call = |call: &Value| format!("<tool_call>\n{}\n</tool_call>", call["function"]);
                let words = Some(content.to_owned()).filter(|content| !content.is_empty());
                let texts: Vec<String> = words.into_iter().chain(calls.iter().map(call)).collect();
                message["content"] = texts.join("\n").into();
                message.as_object_mut().map(|message| message.remove("tool_calls"));
            }
            written.push(message);
        }
        results = is_result;
    }
    written
}

/// Tells the model in its system message which functions there are and how they are called.
fn explain(messages: &mut Vec<Value>, tools: &[Tool]) -> Result<(), Failure> {
    let functions: Vec<String> = tools
        .iter()
        .map(|tool| function(tool).map(|function| function["function"].to_string()))
        .collect::<Result<_, _>>()?;
    let explained = format!(
        "You can call functions. These are the functions, each as a line of JSON with the schema of its parameters:\n{}\n\
         To call one, write its name and its arguments as JSON between marks, like this:\n\
         <tool_call>\n{{\"name\": \"name_of_the_function\", \"arguments\": {{}}}}\n</tool_call>\n\
         The results come back between <tool_response> and </tool_response>. Call a function only where it helps to answer.",
        functions.join("\n")
    );
    match messages.first_mut().filter(|message| message["role"] == "system") {
        Some(system) => system["content"] = format!("{}\n\n{explained}", system["content"].as_str().unwrap_or_default()).into(),
        None => messages.insert(0, json!({"role": "system", "content": explained})),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proto::v1::ToolCall;

    use super::*;

    fn knows(family: Family, native: bool) -> Knows {
        Knows {
            developer: false,
            dialect: Dialect { family, native },
        }
    }

    fn request() -> ChatRequest {
        let result = |id: &str, text: &str| Message {
            role: Role::Tool.into(),
            tool_call_id: id.into(),
            text: text.into(),
            ..Message::default()
        };
        let call = |id: &str, arguments: &str| ToolCall {
            id: id.into(),
            name: "look".into(),
            arguments: arguments.into(),
        };
        ChatRequest {
            messages: vec![
                Message {
                    text: "hi".into(),
                    ..Message::default()
                },
                Message {
                    role: Role::Assistant.into(),
                    tool_calls: vec![call("a", r#"{"at": 1}"#), call("b", "")],
                    ..Message::default()
                },
                result("a", "seven"),
                result("b", "eight"),
            ],
            tools: vec![Tool {
                name: "look".into(),
                description: "Looks.".into(),
                parameters: r#"{"type":"object"}"#.into(),
                ..Tool::default()
            }],
            ..ChatRequest::default()
        }
    }

    #[test]
    fn a_template_that_knows_no_functions_is_told_in_words() {
        let knows = knows(Family::Hermes, false);
        let messages = messages(&request(), knows).unwrap();
        let said = |index: usize| {
            (
                messages[index]["role"].as_str().unwrap(),
                messages[index]["content"].as_str().unwrap(),
            )
        };
        assert_eq!(messages.len(), 4);
        assert_eq!(said(0).0, "system");
        assert!(
            said(0)
                .1
                .contains(r#"{"name":"look","description":"Looks.","parameters":{"type":"object"}}"#)
        );
        let calls = "<tool_call>\n{\"name\":\"look\",\"arguments\":{\"at\":1}}\n</tool_call>\n<tool_call>\n{\"name\":\"look\",\"arguments\":{}}\n</tool_call>";
        assert_eq!(said(2), ("assistant", calls));
        assert_eq!(messages[2].get("tool_calls"), None);
        let results = "<tool_response>\nseven\n</tool_response>\n<tool_response>\neight\n</tool_response>";
        assert_eq!(said(3), ("user", results));
        assert_eq!(functions(&request(), knows).unwrap(), None);
    }

    #[test]
    fn a_template_that_knows_functions_gets_them_as_they_are() {
        let request = request();
        let messages = |family| messages(&request, knows(family, true)).unwrap();
        assert_eq!(messages(Family::Hermes).len(), 4);
        assert_eq!(
            messages(Family::Hermes)[1]["tool_calls"][0]["function"]["arguments"],
            json!({"at": 1})
        );
        assert_eq!(
            messages(Family::Deepseek)[1]["tool_calls"][0]["function"]["arguments"],
            json!(r#"{"at": 1}"#)
        );
        assert_eq!(functions(&request, knows(Family::Hermes, true)).unwrap().unwrap().len(), 1);
    }

    #[test]
    fn functions_join_the_system_message_that_is_there() {
        let mut request = request();
        request.messages.insert(
            0,
            Message {
                role: Role::System.into(),
                text: "Be brief.".into(),
                ..Message::default()
            },
        );
        let messages = messages(&request, knows(Family::Hermes, false)).unwrap();
        assert!(messages[0]["content"].as_str().unwrap().starts_with("Be brief.\n\nYou can call"));
        assert_eq!(messages[1]["role"], "user");
    }
}
