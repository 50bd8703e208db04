//! What a request must be before it costs anybody anything. Every door, and gRPC itself, comes through here.
//!
//! [`check`] judges and changes nothing; [`complete`] fills in what the caller left to the router. What only the engine can know
//! (the length of the context, a grammar's syntax) the engine judges.

use proto::v1::{ChatRequest, Failure, Message, ResponseFormat, Role, Sampling, ToolMode, response_format::Format};

/// Choices for one input: each takes a slot.
pub(crate) const MAX_CHOICES: u32 = 8;
/// Messages of one request.
const MAX_MESSAGES: usize = 4096;
/// Functions of one request.
const MAX_TOOLS: usize = 128;
/// Stop strings, and the bytes of one: the engine compares each with every token.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Entries of the logit bias.
const MAX_BIASES: usize = 1024;
/// Alternatives whose log probabilities are told.
const MAX_TOP_LOGPROBS: u32 = 20;
/// Bytes of a schema or grammar, and of a tool's parameters.
const MAX_SCHEMA_BYTES: usize = 64 * 1024;
/// Bytes of a name: an id, a model, a tenant, a fingerprint.
const MAX_NAME_BYTES: usize = 256;
/// Tokens of a raw input: more than any context holds.
const MAX_PROMPT_TOKENS: usize = 1 << 20;
/// Bytes of all texts together: half of what a message of the mesh may take.
pub(crate) const MAX_TEXT_BYTES: usize = proto::MAX_DECODED_MESSAGE / 2;

/// Judges a request.
///
/// # Errors
/// Names the first field that is wrong, and what was expected.
pub(crate) fn check(request: &ChatRequest) -> Result<(), Failure> {
    names(request)?;
    messages(request)?;
    within("n", u64::from(request.n), 0, u64::from(MAX_CHOICES))?;
    if request.max_tokens == Some(0) {
        return Err(Failure::invalid("max_tokens", "max_tokens must be at least 1"));
    }
    if let Some(sampling) = &request.sampling {
        self::sampling(sampling)?;
    }
    if let Some(format) = &request.response_format {
        self::format(format)?;
    }
    raw(request)?;
    tools(request)
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
    if request.prompt.is_empty() && request.messages.is_empty() && request.prompt_tokens.is_empty() {
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
        .map(|message| message.text.len() + message.reasoning.len())
        .sum();
    if bytes + request.prompt.len() + request.instructions.len() > MAX_TEXT_BYTES {
        return Err(Failure::invalid(
            "messages",
            format!("the messages have more than {MAX_TEXT_BYTES} bytes of text"),
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

fn sampling(sampling: &Sampling) -> Result<(), Failure> {
    ranged("sampling.temperature", sampling.temperature, 0.0, 2.0)?;
    ranged("sampling.top_p", sampling.top_p, 0.0, 1.0)?;
    if sampling.top_p == Some(0.0) {
        return Err(Failure::invalid("sampling.top_p", "sampling.top_p must be over 0"));
    }
    ranged("sampling.min_p", sampling.min_p, 0.0, 1.0)?;
    ranged("sampling.frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)?;
    ranged("sampling.presence_penalty", sampling.presence_penalty, -2.0, 2.0)?;
    if let Some(penalty) = sampling.repetition_penalty
        && !(penalty.is_finite() && penalty > 0.0)
    {
        return Err(Failure::invalid(
            "sampling.repetition_penalty",
            "sampling.repetition_penalty must be over 0",
        ));
    }
    if sampling.stop.len() > MAX_STOPS {
        return Err(Failure::invalid(
            "sampling.stop",
            format!("at most {MAX_STOPS} stop strings are allowed"),
        ));
    }
    for stop in &sampling.stop {
        if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
            return Err(Failure::invalid(
                "sampling.stop",
                format!("a stop string must have 1 to {MAX_STOP_BYTES} bytes"),
            ));
        }
    }
    if sampling.logit_bias.len() > MAX_BIASES {
        return Err(Failure::invalid(
            "sampling.logit_bias",
            format!("at most {MAX_BIASES} biases are allowed"),
        ));
    }
    for bias in sampling.logit_bias.values() {
        ranged("sampling.logit_bias", Some(*bias), -100.0, 100.0)?;
    }
    within(
        "sampling.top_logprobs",
        u64::from(sampling.top_logprobs),
        0,
        u64::from(MAX_TOP_LOGPROBS),
    )?;
    if sampling.top_logprobs > 0 && !sampling.logprobs {
        return Err(Failure::invalid(
            "sampling.top_logprobs",
            "sampling.top_logprobs needs sampling.logprobs",
        ));
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

fn ranged(field: &str, value: Option<f32>, least: f32, most: f32) -> Result<(), Failure> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(Failure::invalid(field, format!("{field} is {value}; it must be {least} to {most}")))
        }
        _ => Ok(()),
    }
}

/// Fills in what the caller left open: the prompt becomes the last message unless it is raw, one choice is one choice, and the seed is fixed, so
/// that a worker that goes on with the answer draws as the first one would have.
pub(crate) fn complete(request: &mut ChatRequest, seed: u64) {
    if !request.prompt.is_empty() && !request.raw {
        let text = std::mem::take(&mut request.prompt);
        request.messages.push(Message {
            role: Role::User.into(),
            text,
            ..Message::default()
        });
    }
    if request.conversation_id.is_empty() {
        instruct(request); // else they go before the history
    }
    request.n = request.n.max(1);
    request.sampling.get_or_insert_default().seed.get_or_insert(seed);
}

/// Puts the instructions before all messages.
pub(crate) fn instruct(request: &mut ChatRequest) {
    if request.instructions.is_empty() {
        return;
    }
    let instructions = Message {
        role: Role::System.into(),
        text: std::mem::take(&mut request.instructions),
        ..Message::default()
    };
    request.messages.insert(0, instructions);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks(change: impl FnOnce(&mut ChatRequest)) -> Result<(), String> {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            sampling: Some(Sampling::default()),
            ..ChatRequest::default()
        };
        change(&mut request);
        check(&request).map_err(|failure| failure.param)
    }

    fn samples(change: impl FnOnce(&mut Sampling)) -> Result<(), String> {
        asks(|request| change(request.sampling.as_mut().unwrap()))
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
            samples(|sampling| sampling.temperature = Some(2.1)),
            refused("sampling.temperature")
        );
        assert_eq!(
            samples(|sampling| sampling.temperature = Some(f32::NAN)),
            refused("sampling.temperature")
        );
        assert_eq!(samples(|sampling| sampling.top_p = Some(0.0)), refused("sampling.top_p"));
        assert_eq!(samples(|sampling| sampling.min_p = Some(-0.1)), refused("sampling.min_p"));
        assert_eq!(
            samples(|sampling| sampling.frequency_penalty = Some(-3.0)),
            refused("sampling.frequency_penalty")
        );
        assert_eq!(
            samples(|sampling| sampling.repetition_penalty = Some(0.0)),
            refused("sampling.repetition_penalty")
        );
        assert_eq!(samples(|sampling| sampling.stop = vec![String::new()]), refused("sampling.stop"));
        assert_eq!(
            samples(|sampling| sampling.stop = vec!["x".to_owned(); 17]),
            refused("sampling.stop")
        );
        assert_eq!(
            samples(|sampling| sampling.logit_bias = (0..1025).map(|id| (id, 0.0)).collect()),
            refused("sampling.logit_bias")
        );
        assert_eq!(samples(|sampling| sampling.top_logprobs = 3), refused("sampling.top_logprobs"));
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

    #[test]
    fn a_raw_prompt_stays_as_it_is() {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            raw: true,
            ..ChatRequest::default()
        };
        check(&request).unwrap();
        complete(&mut request, 7);
        assert_eq!((request.messages.len(), request.prompt.as_str()), (0, "hi"));
    }

    #[test]
    fn a_prompt_becomes_the_last_message_and_a_given_seed_stays() {
        let mut request = ChatRequest {
            prompt: "hi".to_owned(),
            ..ChatRequest::default()
        };
        complete(&mut request, 7);
        complete(&mut request, 8);
        assert_eq!((request.messages.len(), request.messages[0].text.as_str()), (1, "hi"));
        assert_eq!((request.n, request.sampling.unwrap().seed), (1, Some(7)));
    }
}
