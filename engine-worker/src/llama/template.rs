//! The chat template: a conversation as the text that the model was trained to see.
//!
//! It comes from the model file, written for Python's Jinja2 as Hugging Face's `apply_chat_template` runs it; minijinja runs it
//! here. Does not tokenise.

use minijinja::{
    Environment, Error as Jinja, ErrorKind, Value, context,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use proto::v1::{ChatRequest, Failure, Message, Reason, Role, ToolChoice, ToolMode};
use serde_json::json;

/// For a model that brings no template: ChatML, which most have seen.
const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

/// The steps that a template may take, a fraction of a second: 4,096 messages take some hundred each.
const FUEL: u64 = 3_000_000;

/// A model's template, ready to use.
#[derive(Debug)]
pub(super) struct ChatTemplate {
    environment: Environment<'static>,
    bos: String,
    eos: String,
    /// Whether it knows the role `developer`.
    developer: bool,
}

impl ChatTemplate {
    /// Compiles `source`, or ChatML if there is none.
    ///
    /// # Errors
    /// It is no template.
    pub(super) fn new(source: Option<String>, bos: String, eos: String) -> Result<Self, Jinja> {
        let mut environment = Environment::new();
        let syntax = SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?;
        environment.set_syntax(syntax);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", |message: String| -> Result<Value, Jinja> {
            Err(Jinja::new(ErrorKind::InvalidOperation, message))
        });
        environment.add_filter("tojson", to_json);
        let source = source.unwrap_or_else(|| CHATML.to_owned());
        let developer = source.contains("developer");
        environment.add_template_owned("chat", source)?;
        Ok(Self {
            environment,
            bos,
            eos,
            developer,
        })
    }

    /// The text of a conversation, up to where the assistant begins to speak.
    ///
    /// # Errors
    /// The template refuses it: roles in an order that it does not know, most often.
    pub(super) fn render(&self, request: &ChatRequest) -> Result<String, Failure> {
        let mut messages: Vec<Value> = request
            .messages
            .iter()
            .map(|message| self.message(message))
            .collect::<Result<_, _>>()?;
        if !request.prompt.is_empty() {
            messages.push(to_value(json!({"role": "user", "content": request.prompt})));
        }
        if messages.is_empty() {
            return Err(Failure::invalid("messages", "there must be at least one message, or a prompt"));
        }
        let values = context! {
            messages => messages,
            tools => tools(request)?,
            add_generation_prompt => true,
            bos_token => &self.bos,
            eos_token => &self.eos,
        };
        let rendered = self.environment.get_template("chat").and_then(|template| template.render(values));
        rendered.map_err(|error| {
            let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            Failure::invalid(
                "messages",
                format!("the model's chat template does not take this conversation: {said}"),
            )
        })
    }

    fn message(&self, message: &Message) -> Result<Value, Failure> {
        let role = match message.role() {
            Role::Unspecified | Role::User => "user",
            Role::Developer if self.developer => "developer",
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
                let arguments = parse("messages", &call.arguments)?;
                Ok(json!({"id": call.id, "type": "function", "function": {"name": call.name, "arguments": arguments}}))
            });
            value["tool_calls"] = calls.collect::<Result<_, Failure>>()?;
        }
        Ok(to_value(value))
    }
}

/// The functions as templates expect them, or nothing: then a template says nothing of functions.
fn tools(request: &ChatRequest) -> Result<Value, Failure> {
    let mode = request.tool_choice.as_ref().map_or(ToolMode::Auto, ToolChoice::mode);
    match mode {
        ToolMode::None => return Ok(Value::from(())),
        ToolMode::Required | ToolMode::Named => {
            return Err(Failure {
                param: "tool_choice".into(),
                ..Failure::new(
                    Reason::Unsupported,
                    "this engine cannot make the model call a function: use `auto` or `none`",
                )
            });
        }
        ToolMode::Unspecified | ToolMode::Auto => {}
    }
    if request.tools.is_empty() {
        return Ok(Value::from(()));
    }
    let tools = request.tools.iter().map(|tool| {
        let parameters = parse("tools", &tool.parameters)?;
        Ok(json!({"type": "function", "function": {"name": tool.name, "description": tool.description, "parameters": parameters}}))
    });
    Ok(to_value(tools.collect::<Result<Vec<_>, Failure>>()?))
}

fn parse(field: &str, text: &str) -> Result<serde_json::Value, Failure> {
    if text.is_empty() {
        return Ok(json!({}));
    }
    serde_json::from_str(text).map_err(|error| Failure::invalid(field, format!("a function's JSON is none: {error}")))
}

fn to_value(value: impl serde::Serialize) -> Value {
    Value::from(Serde(value))
}

/// Jinja2's filter as Hugging Face sets it: without the escapes for HTML that minijinja's own makes.
#[allow(clippy::needless_pass_by_value)] // as minijinja passes it
fn to_json(value: &Value, options: Kwargs) -> Result<Value, Jinja> {
    let wrong = |error: serde_json::Error| Jinja::new(ErrorKind::InvalidOperation, error.to_string());
    let indent: Option<usize> = options.get("indent")?;
    let _: (Option<bool>, Option<Value>, Option<bool>) =
        (options.get("ensure_ascii")?, options.get("separators")?, options.get("sort_keys")?);
    options.assert_all_used()?;
    let text = match indent {
        None => serde_json::to_string(value).map_err(wrong)?,
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            let mut out = Vec::new();
            let mut serializer = serde_json::Serializer::with_formatter(&mut out, formatter);
            serde::Serialize::serialize(value, &mut serializer).map_err(wrong)?;
            String::from_utf8_lossy(&out).into_owned()
        }
    };
    Ok(Value::from_safe_string(text))
}

#[cfg(test)]
mod tests {
    use proto::v1::{Tool, ToolCall};

    use super::*;

    /// The template of the default model, SmolLM2-135M-Instruct.
    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        ChatTemplate::new(Some(source.to_owned()), "<s>".into(), "</s>".into()).unwrap()
    }

    fn say(role: Role, text: &str) -> Message {
        Message {
            role: role.into(),
            text: text.into(),
            ..Message::default()
        }
    }

    #[test]
    fn a_conversation_is_written_as_the_model_knows_it() {
        let request = ChatRequest {
            messages: vec![
                say(Role::Developer, "be brief"),
                say(Role::User, "hi"),
                say(Role::Assistant, "hello"),
            ],
            prompt: "again".into(),
            ..ChatRequest::default()
        };
        assert_eq!(
            template(SMOLLM2).render(&request).unwrap(),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n\
             <|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn a_model_without_a_template_gets_chatml() {
        let request = ChatRequest {
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        let template = ChatTemplate::new(None, String::new(), String::new()).unwrap();
        assert_eq!(
            template.render(&request).unwrap(),
            "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn functions_are_passed_to_a_template_that_knows_them() {
        let source = "{% if tools %}{% for tool in tools %}{{ tool | tojson }}{% endfor %}{% endif %}\
                      {% for m in messages %}{% if m.tool_calls %}{{ m.tool_calls[0].function.arguments | tojson }}{% endif %}{{ m.get('tool_call_id', '') }}{% endfor %}";
        let mut request = ChatRequest {
            messages: vec![
                Message {
                    tool_calls: vec![ToolCall {
                        id: "c1".into(),
                        name: "f".into(),
                        arguments: r#"{"a":"<b>"}"#.into(),
                    }],
                    ..say(Role::Assistant, "")
                },
                Message {
                    tool_call_id: "c1".into(),
                    ..say(Role::Tool, "7")
                },
            ],
            tools: vec![Tool {
                name: "f".into(),
                parameters: r#"{"type":"object"}"#.into(),
                ..Tool::default()
            }],
            ..ChatRequest::default()
        };
        let known = r#"{"type":"function","function":{"name":"f","description":"","parameters":{"type":"object"}}}"#;
        assert_eq!(template(source).render(&request).unwrap(), format!("{known}{}c1", r#"{"a":"<b>"}"#));
        request.tool_choice = Some(ToolChoice {
            mode: ToolMode::None.into(),
            ..ToolChoice::default()
        });
        assert_eq!(template(source).render(&request).unwrap(), format!("{}c1", r#"{"a":"<b>"}"#));
        request.tool_choice = Some(ToolChoice {
            mode: ToolMode::Required.into(),
            ..ToolChoice::default()
        });
        assert_eq!(template(source).render(&request).unwrap_err().reason(), Reason::Unsupported);
    }

    #[test]
    fn what_a_template_refuses_is_the_requests_fault() {
        let source = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}";
        let request = ChatRequest {
            messages: vec![say(Role::Assistant, "hi")],
            ..ChatRequest::default()
        };
        let failure = template(source).render(&request).unwrap_err();
        assert_eq!((failure.reason(), failure.param.as_str()), (Reason::InvalidRequest, "messages"));
        assert!(failure.message.contains("roles must alternate"));
        assert_eq!(template(source).render(&ChatRequest::default()).unwrap_err().param, "messages");
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        let request = ChatRequest {
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        assert!(template(source).render(&request).is_err());
    }
}
