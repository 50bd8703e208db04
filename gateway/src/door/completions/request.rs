//! What a client may send to chat completions, and the `ChatRequest` that is made of it. Unknown fields are ignored; every optional
//! field may be null; each refusal names its field.

use std::collections::HashMap;

use proto::v1::{
    ChatRequest, JsonObject, JsonSchema, Message, ResponseFormat, Role, Sampling, Tool, ToolCall, ToolChoice, ToolMode,
    response_format::Format,
};
use serde::Deserialize;
use serde_json::{Number, value::RawValue};

use super::{
    Shape,
    content::{TextOr, WordOr},
};
use crate::{door::max_tokens, door::within, failure::Refusal};

/// The most choices for one request.
pub(crate) const MAX_CHOICES: usize = 8;
/// The most messages: as many as the store's history holds.
const MESSAGES: usize = 4096;
/// The most functions, as at OpenAI.
const TOOLS: usize = 128;
/// The most stop strings, and the most bytes of one: a scan for each token.
const STOPS: usize = 16;
const STOP_BYTES: usize = 256;
/// The largest schema, in bytes: it is compiled into a grammar.
const SCHEMA_BYTES: usize = 64 * 1024;
/// The most biased tokens.
const BIASES: usize = 1024;

/// The body.
#[derive(Debug, Deserialize)]
pub(crate) struct Completion {
    model: Option<String>,
    messages: Vec<MessageIn>,
    stream: Option<bool>,
    stream_options: Option<StreamOptions>,
    max_tokens: Option<i64>,
    max_completion_tokens: Option<i64>,
    n: Option<i64>,
    temperature: Option<f64>,
    top_p: Option<f64>,
    top_k: Option<i64>,
    min_p: Option<f64>,
    frequency_penalty: Option<f64>,
    presence_penalty: Option<f64>,
    repetition_penalty: Option<f64>,
    seed: Option<Number>,
    stop: Option<TextOr<String>>,
    logit_bias: Option<HashMap<String, f64>>,
    logprobs: Option<bool>,
    top_logprobs: Option<i64>,
    response_format: Option<FormatIn>,
    tools: Option<Vec<ToolIn>>,
    tool_choice: Option<WordOr<NamedTool>>,
    conversation_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct StreamOptions {
    include_usage: Option<bool>,
}

/// A message.
#[derive(Debug, Deserialize)]
pub(crate) struct MessageIn {
    role: String,
    content: Option<TextOr<Part>>,
    name: Option<String>,
    tool_calls: Option<Vec<CallIn>>,
    tool_call_id: Option<String>,
    #[serde(alias = "reasoning")]
    reasoning_content: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Part {
    r#type: String,
    text: Option<String>,
    refusal: Option<String>,
}

#[derive(Debug, Deserialize)]
pub(crate) struct CallIn {
    id: String,
    function: CalledFunction,
}

#[derive(Debug, Deserialize)]
struct CalledFunction {
    name: String,
    arguments: Option<String>,
}

#[derive(Debug, Deserialize)]
struct ToolIn {
    r#type: String,
    function: Option<FunctionIn>,
}

#[derive(Debug, Deserialize)]
struct FunctionIn {
    name: String,
    description: Option<String>,
    parameters: Option<Box<RawValue>>,
    strict: Option<bool>,
}

#[derive(Debug, Deserialize)]
struct NamedTool {
    function: FunctionName,
}

#[derive(Debug, Deserialize)]
struct FunctionName {
    name: String,
}

#[derive(Debug, Deserialize)]
struct FormatIn {
    r#type: String,
    json_schema: Option<SchemaIn>,
    grammar: Option<String>,
}

#[derive(Debug, Deserialize)]
struct SchemaIn {
    name: Option<String>,
    schema: Option<Box<RawValue>>,
    strict: Option<bool>,
}

impl Completion {
    /// What is asked of the mesh, and how the answer is to be written.
    pub(crate) fn into_chat(self) -> Result<(Shape, ChatRequest), Refusal> {
        let stream = self.stream.unwrap_or(false);
        if self.stream_options.is_some() && !stream {
            return Err(Refusal::invalid(
                "stream_options",
                "stream_options: only allowed when stream is true",
            ));
        }
        let choices = whole("n", self.n, 1, 8)?.unwrap_or(1);
        let shape = Shape {
            stream,
            include_usage: self
                .stream_options
                .as_ref()
                .and_then(|options| options.include_usage)
                .unwrap_or(false),
            choices,
        };
        let sampling = self.sampling()?;
        let limit = match self.max_completion_tokens {
            Some(_) => max_tokens("max_completion_tokens", self.max_completion_tokens)?,
            None => max_tokens("max_tokens", self.max_tokens)?,
        };
        let request = ChatRequest {
            max_tokens: limit,
            model: self.model.unwrap_or_default(),
            messages: messages(self.messages)?,
            sampling: Some(sampling),
            response_format: self.response_format.map(FormatIn::into_format).transpose()?.flatten(),
            tools: tools(self.tools.unwrap_or_default())?,
            tool_choice: self.tool_choice.map(tool_choice).transpose()?,
            n: choices,
            conversation_id: self.conversation_id.unwrap_or_default(),
            ..ChatRequest::default()
        };
        Ok((shape, request))
    }

    fn sampling(&self) -> Result<Sampling, Refusal> {
        let top_logprobs = whole("top_logprobs", self.top_logprobs, 0, 20)?.unwrap_or(0);
        if top_logprobs > 0 && self.logprobs != Some(true) {
            return Err(Refusal::invalid("top_logprobs", "top_logprobs: only allowed when logprobs is true"));
        }
        if self.top_p == Some(0.0) {
            return Err(Refusal::invalid("top_p", "top_p: expected a number over 0 and up to 1, got 0"));
        }
        let top_k = match self.top_k {
            Some(-1) => Some(0), // vLLM's way to say "all"
            top_k => whole("top_k", top_k, 0, u32::MAX)?,
        };
        Ok(Sampling {
            temperature: within("temperature", self.temperature, 0.0..=2.0)?,
            top_p: within("top_p", self.top_p, 0.0..=1.0)?,
            top_k,
            min_p: within("min_p", self.min_p, 0.0..=1.0)?,
            frequency_penalty: within("frequency_penalty", self.frequency_penalty, -2.0..=2.0)?,
            presence_penalty: within("presence_penalty", self.presence_penalty, -2.0..=2.0)?,
            repetition_penalty: within("repetition_penalty", self.repetition_penalty, 0.01..=10.0)?,
            seed: self.seed.as_ref().map(seed).transpose()?,
            stop: self.stop.as_ref().map(stops).transpose()?.unwrap_or_default(),
            logit_bias: self.logit_bias.as_ref().map(biases).transpose()?.unwrap_or_default(),
            logprobs: self.logprobs.unwrap_or(false),
            top_logprobs,
        })
    }
}

/// A whole number in a range.
fn whole(name: &str, value: Option<i64>, low: u32, high: u32) -> Result<Option<u32>, Refusal> {
    let Some(value) = value else { return Ok(None) };
    match u32::try_from(value) {
        Ok(number) if (low..=high).contains(&number) => Ok(Some(number)),
        _ => Err(Refusal::invalid(
            name,
            format!("{name}: expected a number from {low} to {high}, got {value}"),
        )),
    }
}

fn seed(number: &Number) -> Result<u64, Refusal> {
    number
        .as_u64()
        .or_else(|| number.as_i64().map(i64::cast_unsigned))
        .ok_or_else(|| Refusal::invalid("seed", format!("seed: expected a whole number of 64 bits, got {number}")))
}

fn stops(stop: &TextOr<String>) -> Result<Vec<String>, Refusal> {
    let stops = match stop {
        TextOr::Text(text) => vec![text.clone()],
        TextOr::List(list) => list.clone(),
    };
    if stops.len() > STOPS {
        let message = format!("stop: expected at most {STOPS} strings, got {}", stops.len());
        return Err(Refusal::invalid("stop", message));
    }
    match stops.iter().find(|stop| !(1..=STOP_BYTES).contains(&stop.len())) {
        Some(stop) => {
            let message = format!("stop: expected strings of 1 to {STOP_BYTES} bytes, got one of {}", stop.len());
            Err(Refusal::invalid("stop", message))
        }
        None => Ok(stops),
    }
}

fn biases(given: &HashMap<String, f64>) -> Result<HashMap<u32, f32>, Refusal> {
    if given.len() > BIASES {
        return Err(Refusal::invalid(
            "logit_bias",
            format!("logit_bias: expected at most {BIASES} tokens, got {}", given.len()),
        ));
    }
    let mut biases = HashMap::with_capacity(given.len());
    for (token, bias) in given {
        let id = token
            .parse()
            .map_err(|_| Refusal::invalid("logit_bias", format!("logit_bias: expected ids of tokens as keys, got {token:?}")))?;
        biases.extend(within("logit_bias", Some(*bias), -100.0..=100.0)?.map(|bias| (id, bias)));
    }
    Ok(biases)
}

/// The messages, of which there must be one at least.
pub(crate) fn messages(given: Vec<MessageIn>) -> Result<Vec<Message>, Refusal> {
    if given.is_empty() || given.len() > MESSAGES {
        let message = format!("messages: expected 1 to {MESSAGES} messages, got {}", given.len());
        return Err(Refusal::invalid("messages", message));
    }
    given
        .into_iter()
        .enumerate()
        .map(|(index, message)| message.into_message(index))
        .collect()
}

impl MessageIn {
    fn into_message(self, index: usize) -> Result<Message, Refusal> {
        let at = format!("messages[{index}]");
        let role = match self.role.as_str() {
            "system" => Role::System,
            "developer" => Role::Developer,
            "user" => Role::User,
            "assistant" => Role::Assistant,
            "tool" => Role::Tool,
            other => {
                let message = format!("{at}.role: expected system, developer, user, assistant or tool, got {other:?}");
                return Err(Refusal::invalid(format!("{at}.role"), message));
            }
        };
        let tool_calls: Vec<ToolCall> = self.tool_calls.unwrap_or_default().into_iter().map(CallIn::into_call).collect();
        let text = match self.content {
            Some(TextOr::Text(text)) => text,
            Some(TextOr::List(parts)) => text_of(&at, parts)?,
            None if role == Role::Assistant => String::new(),
            None => return Err(Refusal::invalid(format!("{at}.content"), format!("{at}.content is missing"))),
        };
        if role == Role::Tool && self.tool_call_id.as_deref().unwrap_or_default().is_empty() {
            let param = format!("{at}.tool_call_id");
            return Err(Refusal::invalid(
                param.clone(),
                format!("{param} is missing: a tool message answers a call"),
            ));
        }
        Ok(Message {
            role: role.into(),
            text,
            tool_calls,
            tool_call_id: self.tool_call_id.unwrap_or_default(),
            name: self.name.unwrap_or_default(),
            reasoning: self.reasoning_content.unwrap_or_default(),
        })
    }
}

/// The text of content parts, one line after the other.
fn text_of(at: &str, parts: Vec<Part>) -> Result<String, Refusal> {
    let mut texts = Vec::with_capacity(parts.len());
    for (index, part) in parts.into_iter().enumerate() {
        let param = format!("{at}.content[{index}]");
        match (part.r#type.as_str(), part.text, part.refusal) {
            ("text" | "input_text" | "output_text", Some(text), _) | ("refusal", _, Some(text)) => texts.push(text),
            ("text" | "input_text" | "output_text" | "refusal", ..) => {
                return Err(Refusal::invalid(format!("{param}.text"), format!("{param}.text is missing")));
            }
            (other, ..) => {
                let message = format!("{param}.type: only text can be read, got {other:?}");
                return Err(Refusal::invalid(format!("{param}.type"), message));
            }
        }
    }
    Ok(texts.join("\n"))
}

impl CallIn {
    fn into_call(self) -> ToolCall {
        ToolCall {
            id: self.id,
            name: self.function.name,
            arguments: self.function.arguments.unwrap_or_default(),
        }
    }
}

fn tools(given: Vec<ToolIn>) -> Result<Vec<Tool>, Refusal> {
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

fn schema(param: &str, given: Option<&RawValue>) -> Result<String, Refusal> {
    let text = given.map(RawValue::get).unwrap_or_default();
    if text.len() > SCHEMA_BYTES {
        let message = format!("{param}: expected at most {SCHEMA_BYTES} bytes, got {}", text.len());
        return Err(Refusal::invalid(param, message));
    }
    Ok(text.to_owned())
}

fn tool_choice(given: WordOr<NamedTool>) -> Result<ToolChoice, Refusal> {
    let (mode, name) = match given {
        WordOr::Word(word) => match word.as_str() {
            "auto" => (ToolMode::Auto, String::new()),
            "none" => (ToolMode::None, String::new()),
            "required" => (ToolMode::Required, String::new()),
            other => {
                let message = format!("tool_choice: expected auto, none, required or a function, got {other:?}");
                return Err(Refusal::invalid("tool_choice", message));
            }
        },
        WordOr::Object(named) => (ToolMode::Named, named.function.name),
    };
    Ok(ToolChoice { mode: mode.into(), name })
}

impl FormatIn {
    fn into_format(self) -> Result<Option<ResponseFormat>, Refusal> {
        let format = match (self.r#type.as_str(), self.json_schema, self.grammar) {
            ("text", ..) => return Ok(None),
            ("json_object", ..) => Format::JsonObject(JsonObject {}),
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
