//! Going on with an answer that another worker began, by the server's own means: the text so far is the last message of the
//! conversation, the assistant's, and the server is asked to continue it instead of beginning a new one
//! (vLLM's `continue_final_message`, <https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html>). Pure.
//!
//! Only chat completions have such a thing. The server does not know our token ids, so the rest may differ from what the first one would
//! have said; each token comes once all the same. What a server could only begin anew is refused: a shape that its text must have, calls of
//! functions, several choices, thoughts.

use clap::ValueEnum;
use proto::v1::{ChatRequest, Failure, GenerateRequest, Reason, ToolMode, Usage, entry::Event};
use serde_json::{Map, Value, json};

use super::chat::ask::go_on;

/// Whether the server can continue a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Continues {
    /// If it says of its models that they are vLLM's
    #[default]
    Auto,
    /// As vLLM does
    Vllm,
    /// No: an answer whose worker is lost ends with an error
    No,
}

impl Continues {
    /// What that means for a model of this owner.
    pub(super) fn means(self, owned_by: &str) -> bool {
        match self {
            Self::Auto => owned_by == "vllm",
            Self::Vllm => true,
            Self::No => false,
        }
    }
}

/// What was made before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Made {
    text: String,
    tokens: u32,
    reasoning: u32,
}

impl Made {
    /// What a request brings along; nothing for an answer that begins.
    ///
    /// # Errors
    /// [`Reason::Unsupported`]: the server cannot go on from there.
    pub(super) fn of(request: &GenerateRequest, chat: &ChatRequest) -> Result<Self, Failure> {
        let mut made = Self::default();
        if request.position == 0 {
            return Ok(made);
        }
        let choice = chat.tool_choice.as_ref().map(proto::v1::ToolChoice::mode);
        if chat.n > 1 {
            return Err(cannot("with several choices"));
        }
        if !chat.prompt_tokens.is_empty() {
            return Err(cannot("to an input of tokens"));
        }
        if chat.response_format.as_ref().is_some_and(|format| format.format.is_some()) {
            return Err(cannot("whose text must have a shape"));
        }
        if matches!(choice, Some(ToolMode::Required | ToolMode::Named)) {
            return Err(cannot("that must call a function"));
        }
        for entry in &request.entries {
            made.text.push_str(&entry.token);
            made.tokens += entry.tokens;
            match entry.event {
                Some(Event::ToolCall(_)) => return Err(cannot("that calls a function")),
                Some(Event::Reasoning(_)) => made.reasoning += entry.tokens,
                _ => {}
            }
        }
        if made.reasoning > 0 && made.text.is_empty() {
            return Err(cannot("in the middle of its thoughts"));
        }
        Ok(made)
    }

    /// Asks for the rest only. Says false if there is none: all tokens that were asked for have been made.
    pub(super) fn write(&self, body: &mut Value) -> bool {
        // A raw input is continued by itself, longer by what was made.
        if let Some(Value::String(prompt)) = body.get_mut("prompt") {
            prompt.push_str(&self.text);
        }
        let left = body["max_tokens"].as_u64().map(|most| most.saturating_sub(self.tokens.into()));
        if let Some(left) = left {
            body["max_tokens"] = left.into();
        }
        if !self.text.is_empty()
            && let Some(body) = body.as_object_mut()
        {
            self.speak_on(body);
        }
        left != Some(0)
    }

    /// The text so far is the last message, or the end of it where the answer began with one.
    fn speak_on(&self, body: &mut Map<String, Value>) {
        let goes_on = body.contains_key("continue_final_message");
        let Some(messages) = body.get_mut("messages").and_then(Value::as_array_mut) else {
            return;
        };
        match messages.last_mut().map(|last| &mut last["content"]) {
            Some(Value::String(begun)) if goes_on => begun.push_str(&self.text),
            _ => messages.push(json!({"role": "assistant", "content": self.text})),
        }
        go_on(body);
    }

    /// The whole answer's usage, where the server counted what it made itself, and took what was made before for input.
    pub(super) fn add_to(&self, usage: Usage) -> Usage {
        let repeated = if self.text.is_empty() { 0 } else { self.tokens - self.reasoning };
        Usage {
            prompt_tokens: usage.prompt_tokens.saturating_sub(repeated),
            completion_tokens: usage.completion_tokens + self.tokens,
            reasoning_tokens: usage.reasoning_tokens + self.reasoning,
            ..usage
        }
    }
}

fn cannot(what: &str) -> Failure {
    Failure {
        param: "resume".to_owned(),
        ..Failure::new(
            Reason::Unsupported,
            format!("the server behind this worker cannot go on with an answer {what}"),
        )
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{Entry, Tool, ToolChoice};

    use super::*;

    fn going_on(entries: Vec<Entry>, change: impl FnOnce(&mut ChatRequest)) -> Result<Made, Reason> {
        let mut chat = ChatRequest::default();
        change(&mut chat);
        let request = GenerateRequest {
            position: u32::try_from(entries.len()).unwrap(),
            entries,
            ..GenerateRequest::default()
        };
        Made::of(&request, &chat).map_err(|failure| failure.reason())
    }

    fn said() -> Vec<Entry> {
        vec![Entry::text("Once ", 1), Entry::text("upon", 2)]
    }

    #[test]
    fn the_text_so_far_is_continued_and_counts_once() {
        let made = going_on(said(), |_| {}).unwrap();
        let mut body = json!({"messages": [{"role": "user", "content": "hi"}], "max_tokens": 10});
        assert!(made.write(&mut body));
        assert_eq!(
            body,
            json!({
                "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Once upon"}],
                "max_tokens": 8,
                "add_generation_prompt": false,
                "continue_final_message": true,
            })
        );
        let begun = json!({"role": "assistant", "content": "It was: "});
        let mut body = json!({"messages": [begun], "max_tokens": 10, "continue_final_message": true});
        assert!(made.write(&mut body));
        assert_eq!(body["messages"], json!([{"role": "assistant", "content": "It was: Once upon"}]));
        let counted = Usage {
            prompt_tokens: 7,
            completion_tokens: 3,
            ..Usage::default()
        };
        let usage = made.add_to(counted);
        assert_eq!((usage.prompt_tokens, usage.completion_tokens), (5, 5));
        assert!(
            !made.write(&mut json!({"messages": [], "max_tokens": 2})),
            "nothing is left to ask for"
        );
    }

    #[test]
    fn what_could_only_begin_anew_is_refused() {
        let call = Entry {
            event: Some(Event::ToolCall(Box::default())),
            ..Entry::default()
        };
        let thought = Entry {
            tokens: 1,
            event: Some(Event::Reasoning("hm".to_owned())),
            ..Entry::default()
        };
        let refused = [
            going_on(said(), |chat| chat.n = 2),
            going_on(said(), |chat| {
                chat.response_format = Some(proto::v1::ResponseFormat {
                    format: Some(proto::v1::response_format::Format::JsonObject(proto::v1::JsonObject {})),
                });
            }),
            going_on(said(), |chat| {
                chat.tools = vec![Tool::default()];
                chat.tool_choice = Some(ToolChoice {
                    mode: ToolMode::Required.into(),
                    ..ToolChoice::default()
                });
            }),
            going_on(vec![call], |_| {}),
            going_on(vec![thought.clone()], |_| {}),
        ];
        for refused in refused {
            assert_eq!(refused, Err(Reason::Unsupported));
        }
        let mut thoughtful = said();
        thoughtful.insert(0, thought);
        assert_eq!(going_on(thoughtful, |_| {}).unwrap().reasoning, 1);
        assert_eq!(going_on(Vec::new(), |chat| chat.n = 2), Ok(Made::default()), "one that begins");
    }

    #[test]
    fn only_vllm_is_believed_unasked() {
        assert!(Continues::Auto.means("vllm") && !Continues::Auto.means("openai"));
        assert!(Continues::Vllm.means("") && !Continues::No.means("vllm"));
    }
}
