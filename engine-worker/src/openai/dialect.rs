//! The dialects that a server may speak: one small table of what differs between them. The transport (`upstream`, `events`, `relay`)
//! is the same for all. Pure.

use clap::ValueEnum;
use proto::v1::{ChatRequest, Failure, Reason};
use serde_json::Value;

use super::{chat, messages, responses, told::Told};

/// In which words a server is asked, and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// OpenAI's chat completions: vLLM, SGLang, TGI, llama-server, Ollama, …
    #[default]
    Chat,
    /// OpenAI's Responses
    Responses,
    /// Anthropic's Messages
    Messages,
}

/// Understands the events of one stream, one after the other.
pub(super) trait Interpreter: Send {
    /// Takes the data of one event, and tells what it means.
    ///
    /// # Errors
    /// The server says that it failed, or what it says makes no sense.
    fn take(&mut self, data: &[u8], told: &mut Told) -> Result<(), Failure>;
}

impl Dialect {
    /// Where an answer is asked for, under the server's base address, or what follows a raw input.
    pub(super) fn path(self, raw: bool) -> &'static str {
        match self {
            Self::Chat if raw => "completions",
            Self::Chat => "chat/completions",
            Self::Responses => "responses",
            Self::Messages => "messages",
        }
    }

    /// The query of the list of models. Anthropic's has pages, of 20 unless more are asked for.
    pub(super) fn models(self) -> &'static [(&'static str, &'static str)] {
        match self {
            Self::Chat | Self::Responses => &[],
            Self::Messages => &[("limit", "1000")],
        }
    }

    /// Whether a field of a body is one of the input, which alone is asked for when it is only to be counted
    /// (<https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html>,
    /// <https://platform.claude.com/docs/en/api/messages-count-tokens>,
    /// <https://platform.openai.com/docs/api-reference/responses/input-tokens>): some refuse the others.
    pub(super) fn is_counted(self, field: &str) -> bool {
        match self {
            Self::Chat => !matches!(field, "stream" | "stream_options"),
            Self::Responses => matches!(field, "model" | "input" | "text" | "tools" | "tool_choice" | "parallel_tool_calls"),
            Self::Messages => matches!(
                field,
                "model" | "system" | "messages" | "tools" | "tool_choice" | "thinking" | "output_config"
            ),
        }
    }

    /// Whether servers of this dialect make vectors, too.
    pub(super) fn embeds(self) -> bool {
        self != Self::Messages
    }

    /// Whether a text can be continued in it.
    pub(super) fn continues(self) -> bool {
        self == Self::Chat
    }

    /// A request of the mesh, as the body of the server's. `most` stands for `max_tokens` where the dialect cannot do without.
    ///
    /// # Errors
    /// The dialect has no words for something that was asked.
    pub(super) fn body(self, request: &ChatRequest, model: &str, most: u32) -> Result<Value, Failure> {
        match self {
            Self::Chat => chat::ask::body(request, model),
            Self::Responses => responses::ask::body(request, model),
            Self::Messages => messages::ask::body(request, model, most),
        }
    }

    /// Somebody to understand one stream.
    pub(super) fn interpreter(self) -> Box<dyn Interpreter> {
        match self {
            Self::Chat => Box::new(chat::chunk::Chunks),
            Self::Responses => Box::new(responses::event::Events),
            Self::Messages => Box::new(messages::event::Events::default()),
        }
    }
}

/// Refuses the first field that was asked for: what the dialect has no word for would silently not be done.
///
/// # Errors
/// [`Reason::Unsupported`], with the field.
pub(super) fn no_words(dialect: &str, fields: &[(&str, bool)]) -> Result<(), Failure> {
    match fields.iter().find(|(_, asked)| *asked) {
        None => Ok(()),
        Some((field, _)) => Err(Failure {
            param: (*field).to_owned(),
            ..Failure::new(
                Reason::Unsupported,
                format!("{field} cannot be asked of the server behind this worker: {dialect} have no word for it"),
            )
        }),
    }
}

/// Whether a penalty changes anything: many clients send the neutral one.
pub(super) fn bites(penalty: Option<f32>, neutral: f32) -> bool {
    penalty.is_some_and(|penalty| (penalty - neutral).abs() > f32::EPSILON)
}

/// 0.7 as 0.7, and not as the `f64` nearest to the `f32` nearest to it.
pub(super) fn decimal(number: f32) -> Value {
    number.to_string().parse::<f64>().map_or(Value::Null, Value::from)
}

/// JSON that travels as text.
///
/// # Errors
/// It is none; `param` is named.
pub(super) fn json_text(param: &str, text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::invalid(param, format!("{param}: what should be JSON is not: {error}")))
}

/// What a server sends that is not of its dialect.
pub(super) fn odd(error: &serde_json::Error) -> Failure {
    Failure::new(Reason::Upstream, format!("the server sent an event that cannot be read: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_no_word_is_refused_by_its_field_and_what_changes_nothing_is_not() {
        assert_eq!(no_words("x", &[("n", false)]), Ok(()));
        let refused = no_words("x", &[("n", false), ("seed", true)]).unwrap_err();
        assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Unsupported, "seed"));
        assert!(bites(Some(0.5), 0.0) && !bites(Some(1.0), 1.0) && !bites(None, 0.0));
    }
}
