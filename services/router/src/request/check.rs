//! What a request must be: the first field that is wrong is named. Changes nothing.

mod images;
mod sampling;

use proto::v1::{ChatRequest, Failure, ResponseFormat, Role, ToolMode, response_format::Format};

use super::{MAX_CHOICES, MAX_TEXT_BYTES};

/// Messages of one request.
const MAX_MESSAGES: usize = 4096;
/// Functions of one request.
const MAX_TOOLS: usize = 128;
/// Bytes of a schema or grammar, and of a tool's parameters.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Bytes of a name: an id, a model, a tenant, a fingerprint.
const MAX_NAME_BYTES: usize = 256;
/// Tokens of a raw input: more than any context holds.
const MAX_PROMPT_TOKENS: usize = 1 << 20;

/// Judges a request.
///
/// # Errors
/// Names the first field that is wrong, and what was expected.
pub(crate) fn check(request: &ChatRequest) -> Result<(), Failure> {
    names(request)?;
    messages(request)?;
    images::check(request)?;
    within("n", u64::from(request.n), 0, u64::from(MAX_CHOICES))?;
    if request.max_tokens == Some(0) {
        return Err(Failure::invalid("max_tokens", "max_tokens must be at least 1"));
    }
    if let Some(sampling) = &request.sampling {
        sampling::check(sampling)?;
    }
    if let Some(format) = &request.response_format {
        self::format(format)?;
    }
    raw(request)?;
    continued(request)?;
    tools(request)
}

/// An answer that goes on from a message needs one of the assistant's, with text.
fn continued(request: &ChatRequest) -> Result<(), Failure> {
    const FIELD: &str = "continue_final_message";
    if !request.continue_final_message {
        return Ok(());
    }
    if request.raw || !request.conversation_id.is_empty() {
        return Err(Failure::invalid(
            FIELD,
            "continue_final_message is for messages outside of a conversation",
        ));
    }
    let last = request.messages.last().filter(|_| request.prompt.is_empty());
    match last {
        Some(last) if last.role() == Role::Assistant && !last.text.is_empty() && last.tool_calls.is_empty() => Ok(()),
        _ => Err(Failure::invalid(
            FIELD,
            "continue_final_message needs a last message of the assistant, with text and without calls",
        )),
    }
}

/// An input to the letter has nothing around it.
fn raw(request: &ChatRequest) -> Result<(), Failure> {
    if !request.raw {
        let stray = !request.prompt_tokens.is_empty();
        return if stray {
            Err(Failure::invalid("prompt_tokens", "prompt_tokens needs raw"))
        } else {
            Ok(())
        };
    }
    if request.prompt.is_empty() == request.prompt_tokens.is_empty() {
        return Err(Failure::invalid("prompt", "raw needs either prompt or prompt_tokens"));
    }
    within("prompt_tokens", request.prompt_tokens.len() as u64, 0, MAX_PROMPT_TOKENS as u64)?;
    let around = [
        ("messages", request.messages.is_empty()),
        ("tools", request.tools.is_empty()),
        ("conversation_id", request.conversation_id.is_empty()),
    ];
    match around.into_iter().find(|(_, empty)| !empty) {
        Some((field, _)) => Err(Failure::invalid(field, format!("raw takes no {field}"))),
        None => Ok(()),
    }
}

fn names(request: &ChatRequest) -> Result<(), Failure> {
    let principal = request.principal.as_ref();
    let named = [
        ("model", request.model.len()),
        ("conversation_id", request.conversation_id.len()),
        ("stream_id", request.stream_id.len()),
        ("request_id", request.request_id.len()),
        ("door", request.door.len()),
        ("key_id", request.key_id.len()),
        ("fingerprint", request.fingerprint.len()),
        ("principal.tenant", principal.map_or(0, |principal| principal.tenant.len())),
        ("principal.user_id", principal.map_or(0, |principal| principal.user_id.len())),
    ];
    for (field, len) in named {
        if len > MAX_NAME_BYTES {
            return Err(Failure::invalid(
                field,
                format!("{field} has {len} bytes; at most {MAX_NAME_BYTES} are allowed"),
            ));
        }
    }
    if request.stream_id.chars().any(|c| !(c.is_ascii_alphanumeric() || "_-:".contains(c))) {
        return Err(Failure::invalid(
            "stream_id",
            "stream_id may hold letters, digits, `_`, `-` and `:` only",
        ));
    }
    Ok(())
}

fn messages(request: &ChatRequest) -> Result<(), Failure> {
    let history = !request.conversation_id.is_empty(); // whether it says anything is seen later
    if request.prompt.is_empty() && request.messages.is_empty() && request.prompt_tokens.is_empty() && !history {
        return Err(Failure::invalid(
            "messages",
            "there is nothing to answer: messages (or prompt) must not be empty",
        ));
    }
    if request.messages.len() > MAX_MESSAGES {
        let found = request.messages.len();
        return Err(Failure::invalid(
            "messages",
            format!("messages has {found} messages; at most {MAX_MESSAGES} are allowed"),
        ));
    }
    let bytes: usize = request
        .messages
        .iter()
        .map(|message| {
            let images: usize = message.images.iter().map(|image| image.data.len()).sum();
            message.text.len() + message.reasoning.len() + images
        })
        .sum();
    if bytes + request.prompt.len() + request.instructions.len() > MAX_TEXT_BYTES {
        return Err(Failure::invalid(
            "messages",
            format!("the messages have more than {MAX_TEXT_BYTES} bytes of text and images"),
        ));
    }
    for (index, message) in request.messages.iter().enumerate() {
        if Role::try_from(message.role).is_err() {
            return Err(Failure::invalid(
                format!("messages[{index}].role"),
                format!("messages[{index}].role is not a role"),
            ));
        }
        if message.role() == Role::Tool && message.tool_call_id.is_empty() {
            let field = format!("messages[{index}].tool_call_id");
            return Err(Failure::invalid(
                field,
                format!("messages[{index}] is a tool's result and must name its tool_call_id"),
            ));
        }
    }
    Ok(())
}

fn format(format: &ResponseFormat) -> Result<(), Failure> {
    let (field, bytes) = match &format.format {
        None | Some(Format::JsonObject(_)) => return Ok(()),
        Some(Format::JsonSchema(schema)) => ("response_format.json_schema.schema", schema.schema.len()),
        Some(Format::Grammar(grammar)) => ("response_format.grammar", grammar.len()),
    };
    within(field, bytes as u64, 1, MAX_SCHEMA_BYTES as u64)
}

fn tools(request: &ChatRequest) -> Result<(), Failure> {
    if request.tools.len() > MAX_TOOLS {
        return Err(Failure::invalid("tools", format!("at most {MAX_TOOLS} tools are allowed")));
    }
    for (index, tool) in request.tools.iter().enumerate() {
        if tool.name.is_empty() || tool.name.len() > MAX_NAME_BYTES {
            return Err(Failure::invalid(
                format!("tools[{index}].name"),
                format!("a tool's name must have 1 to {MAX_NAME_BYTES} bytes"),
            ));
        }
        if tool.parameters.len() > MAX_SCHEMA_BYTES {
            let field = format!("tools[{index}].parameters");
            return Err(Failure::invalid(
                field,
                format!("a tool's parameters may have {MAX_SCHEMA_BYTES} bytes at most"),
            ));
        }
    }
    let Some(choice) = &request.tool_choice else { return Ok(()) };
    match ToolMode::try_from(choice.mode) {
        Err(_) => Err(Failure::invalid("tool_choice.mode", "tool_choice.mode is not a mode")),
        Ok(ToolMode::Named) if !request.tools.iter().any(|tool| tool.name == choice.name) => {
            Err(Failure::invalid("tool_choice.name", "tool_choice.name is none of the tools"))
        }
        Ok(ToolMode::Required) if request.tools.is_empty() => Err(Failure::invalid(
            "tool_choice.mode",
            "tool_choice.mode asks for a call, but there are no tools",
        )),
        Ok(_) => Ok(()),
    }
}

fn within(field: &str, value: u64, least: u64, most: u64) -> Result<(), Failure> {
    if (least..=most).contains(&value) {
        Ok(())
    } else {
        Err(Failure::invalid(field, format!("{field} is {value}; it must be {least} to {most}")))
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{Message, Sampling};

    use super::*;

    fn asks(change: impl FnOnce(&mut ChatRequest)) -> Result<(), String> {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            ..ChatRequest::default()
        };
        change(&mut request);
        check(&request).map_err(|failure| failure.param)
    }

    #[test]
    fn the_smallest_request_is_enough() {
        assert_eq!(asks(|_| {}), Ok(()));
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refused = |field: &str| Err(field.to_owned());
        assert_eq!(asks(|request| request.prompt.clear()), refused("messages"));
        assert_eq!(
            asks(|request| request.messages = vec![Message::default(); 4097]),
            refused("messages")
        );
        assert_eq!(
            asks(|request| request.messages = vec![Message {
                role: 99,
                ..Message::default()
            }]),
            refused("messages[0].role")
        );
        assert_eq!(
            asks(|request| request.messages = vec![Message {
                role: Role::Tool.into(),
                ..Message::default()
            }]),
            refused("messages[0].tool_call_id")
        );
        assert_eq!(asks(|request| request.n = 9), refused("n"));
        assert_eq!(asks(|request| request.max_tokens = Some(0)), refused("max_tokens"));
        assert_eq!(asks(|request| request.stream_id = "a b".to_owned()), refused("stream_id"));
        assert_eq!(asks(|request| request.model = "m".repeat(300)), refused("model"));
        assert_eq!(
            asks(|request| request.sampling = Some(Sampling {
                top_p: Some(0.0),
                ..Sampling::default()
            })),
            refused("sampling.top_p")
        );
        assert_eq!(
            asks(|request| request.response_format = Some(ResponseFormat {
                format: Some(Format::Grammar(String::new()))
            })),
            refused("response_format.grammar")
        );
        assert_eq!(asks(|request| request.prompt_tokens = vec![1]), refused("prompt_tokens"));
        assert_eq!(
            asks(|request| (request.raw, request.prompt_tokens) = (true, vec![1])),
            refused("prompt"),
            "one input, not two"
        );
        assert_eq!(
            asks(|request| (request.raw, request.messages) = (true, vec![Message::default()])),
            refused("messages")
        );
        assert_eq!(
            asks(|request| request.tool_choice = Some(proto::v1::ToolChoice {
                mode: ToolMode::Named.into(),
                name: "f".to_owned()
            })),
            refused("tool_choice.name")
        );
    }
}
