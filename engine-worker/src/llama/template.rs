//! The chat template: a conversation as the text that the model was trained to see.
//!
//! It comes from the model file, written for Python's Jinja2 as Hugging Face's `apply_chat_template` runs it; minijinja runs it
//! here. Does not tokenise.

use minijinja::{
    Environment, Error as Jinja, ErrorKind, Value,
    syntax::SyntaxConfig,
    value::{Kwargs, Serde},
};
use proto::v1::{ChatRequest, Failure};
use serde_json::json;

use super::{
    conversation::{self, Knows},
    speech::{Dialect, ThoughtMarks},
};

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
    knows: Knows,
    /// Whether the model thinks, where the request does not say.
    thinking: Option<bool>,
}

impl ChatTemplate {
    /// Compiles `source`, or ChatML if there is none. `ends` are the texts of the tokens that begin and end an input.
    ///
    /// # Errors
    /// It is no template.
    pub(super) fn new(source: Option<String>, ends: [String; 2], dialect: Dialect, thinking: Option<bool>) -> Result<Self, Jinja> {
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
        let [bos, eos] = ends;
        environment.add_template_owned("chat", source)?;
        Ok(Self {
            environment,
            bos,
            eos,
            knows: Knows { developer, dialect },
            thinking,
        })
    }

    /// The text of a conversation, up to where the assistant begins to speak. What it has begun to say stands at the end; where the template
    /// opens a thought, that is over by then.
    ///
    /// # Errors
    /// The template refuses it: roles in an order that it does not know, most often.
    pub(super) fn render(&self, request: &ChatRequest, thoughts: Option<ThoughtMarks>) -> Result<String, Failure> {
        if request.continue_final_message {
            let mut before = request.clone();
            before.continue_final_message = false;
            let begun = before.messages.pop().unwrap_or_default();
            let mut rendered = self.render(&before, thoughts)?;
            if let Some(marks) = thoughts.filter(|marks| rendered.trim_end().ends_with(marks.open)) {
                rendered.push_str(marks.close);
                rendered.push_str("\n\n");
            }
            rendered.push_str(&begun.text);
            return Ok(rendered);
        }
        let messages = conversation::messages(request, self.knows)?;
        let tools = conversation::functions(request, self.knows)?;
        let mut values = json!({
            "messages": messages,
            "tools": tools,
            "add_generation_prompt": true,
            "bos_token": self.bos,
            "eos_token": self.eos,
        });
        let thinking = request.thinking.clone().unwrap_or_default();
        if let Some(enabled) = thinking.enabled.or(self.thinking) {
            values["enable_thinking"] = enabled.into(); // Qwen's, SmolLM's and GLM's word, and DeepSeek's and Granite's
            values["thinking"] = enabled.into();
        }
        if !thinking.effort.is_empty() {
            values["reasoning_effort"] = thinking.effort.into();
        }
        let rendered = self.environment.get_template("chat");
        let rendered = rendered.and_then(|template| template.render(to_value(values)));
        rendered.map_err(|error| {
            let said = error.detail().map_or_else(|| error.kind().to_string(), str::to_owned);
            Failure::invalid(
                "messages",
                format!("the model's chat template does not take this conversation: {said}"),
            )
        })
    }
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
    use proto::v1::{Message, Reason, Role, Thinking, Tool, ToolCall, ToolChoice, ToolMode};

    use super::{super::speech::ToolFormat, *};

    /// The template of the default model, SmolLM2-135M-Instruct.
    const SMOLLM2: &str = "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

    fn template(source: &str) -> ChatTemplate {
        let dialect = Dialect {
            native: true,
            ..Dialect::of(ToolFormat::Auto, source)
        };
        ChatTemplate::new(Some(source.to_owned()), ["<s>".into(), "</s>".into()], dialect, None).unwrap()
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
            template(SMOLLM2).render(&request, None).unwrap(),
            "<|im_start|>system\nbe brief<|im_end|>\n<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\nhello<|im_end|>\n\
             <|im_start|>user\nagain<|im_end|>\n<|im_start|>assistant\n"
        );
    }

    #[test]
    fn what_the_assistant_has_begun_to_say_stands_at_the_end() {
        let mut request = ChatRequest {
            messages: vec![say(Role::User, "hi"), say(Role::Assistant, "{\"a")],
            continue_final_message: true,
            ..ChatRequest::default()
        };
        let before = "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n";
        let marks = ThoughtMarks::of("<think></think>");
        assert!(marks.is_some());
        let rendered = template(CHATML).render(&request, marks).unwrap();
        assert_eq!(rendered, format!("{before}{{\"a"));
        let thinks = CHATML.replace("assistant\n{% endif", "assistant\n<think>\n{% endif");
        let rendered = template(&thinks).render(&request, marks).unwrap();
        assert_eq!(rendered, format!("{before}<think>\n</think>\n\n{{\"a"));
        request.messages.remove(0);
        assert_eq!(template(CHATML).render(&request, None).unwrap_err().param, "messages");
    }

    #[test]
    fn a_model_without_a_template_gets_chatml() {
        let request = ChatRequest {
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        let template = ChatTemplate::new(None, [String::new(), String::new()], Dialect::of(ToolFormat::Auto, ""), None).unwrap();
        assert_eq!(
            template.render(&request, None).unwrap(),
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
        assert_eq!(
            template(source).render(&request, None).unwrap(),
            format!("{known}{}c1", r#"{"a":"<b>"}"#)
        );
        request.tool_choice = Some(ToolChoice {
            mode: ToolMode::None.into(),
            ..ToolChoice::default()
        });
        assert_eq!(template(source).render(&request, None).unwrap(), format!("{}c1", r#"{"a":"<b>"}"#));
    }

    #[test]
    fn a_template_that_can_be_told_is_told_whether_the_model_thinks() {
        let source = "{% if enable_thinking is defined %}{{ enable_thinking }}{% endif %} {{ reasoning_effort }}";
        let mut request = ChatRequest {
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        assert_eq!(template(source).render(&request, None).unwrap(), " ");
        let off = ChatTemplate {
            thinking: Some(false),
            ..template(source)
        };
        assert_eq!(off.render(&request, None).unwrap(), "False ", "by the setting");
        request.thinking = Some(Thinking {
            enabled: Some(true),
            effort: "low".into(),
            budget: 0,
        });
        assert_eq!(off.render(&request, None).unwrap(), "True low", "the request knows better");
    }

    #[test]
    fn what_a_template_refuses_is_the_requests_fault() {
        let source = "{% if messages[0].role != 'user' %}{{ raise_exception('roles must alternate') }}{% endif %}";
        let request = ChatRequest {
            messages: vec![say(Role::Assistant, "hi")],
            ..ChatRequest::default()
        };
        let failure = template(source).render(&request, None).unwrap_err();
        assert_eq!((failure.reason(), failure.param.as_str()), (Reason::InvalidRequest, "messages"));
        assert!(failure.message.contains("roles must alternate"));
        assert_eq!(
            template(source).render(&ChatRequest::default(), None).unwrap_err().param,
            "messages"
        );
    }

    #[test]
    fn a_template_that_never_ends_is_stopped() {
        let source = "{% for a in range(9999) %}{% for b in range(9999) %}{{ a }}{% endfor %}{% endfor %}";
        let request = ChatRequest {
            prompt: "hi".into(),
            ..ChatRequest::default()
        };
        assert!(template(source).render(&request, None).is_err());
    }
}
