//! One item: what is said, what was called, what came of it, what was thought. It is shown as an object with an id, and is a part of a
//! message of the mesh. [`super::input`] reads them.

use proto::{
    Piece,
    v1::{Image, Message, Role, ToolCall},
};
use serde_json::{Value, json};

/// An item that can be read.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(super) id: Option<String>,
    pub(super) kind: Kind,
}

/// What it is.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Said {
        role: Role,
        text: String,
        images: Vec<Image>,
        phase: Option<String>,
    },
    Called(ToolCall),
    Result {
        call_id: String,
        output: String,
    },
    Thought {
        text: String,
        summarised: bool,
    },
    Reference(String),
}

impl Item {
    /// What the user says.
    pub(crate) fn user(text: String) -> Self {
        Self {
            id: None,
            kind: Kind::Said {
                role: Role::User,
                text,
                images: Vec::new(),
                phase: None,
            },
        }
    }

    /// The id of the item that this one stands for.
    pub(crate) fn reference(&self) -> Option<&str> {
        match &self.kind {
            Kind::Reference(id) => Some(id),
            _ => None,
        }
    }

    /// Gives it this id, unless the client has given one.
    pub(crate) fn named(mut self, base: &str, number: usize) -> Self {
        let prefix = match &self.kind {
            Kind::Said { .. } | Kind::Reference(_) => "msg",
            Kind::Called(_) => "fc",
            Kind::Result { .. } => "fco",
            Kind::Thought { .. } => "rs",
        };
        self.id.get_or_insert_with(|| format!("{prefix}_{base}_{number}"));
        self
    }

    /// It, as it is shown again.
    pub(crate) fn object(&self) -> Value {
        let id = &self.id;
        match &self.kind {
            Kind::Said { role, text, images, phase } => {
                let mut object = json!({
                    "id": id, "type": "message", "status": "completed", "role": role_word(*role), "content": parts(*role, text, images),
                });
                if let Some(phase) = phase {
                    object["phase"] = phase.as_str().into();
                }
                object
            }
            Kind::Called(call) => json!({
                "id": id, "type": "function_call", "status": "completed", "call_id": call.id, "name": call.name,
                "arguments": call.arguments,
            }),
            Kind::Result { call_id, output } => {
                json!({"id": id, "type": "function_call_output", "status": "completed", "call_id": call_id, "output": output})
            }
            Kind::Thought { text, summarised: true } => {
                let summary = if text.is_empty() {
                    json!([])
                } else {
                    json!([{"type": "summary_text", "text": text}])
                };
                json!({"id": id, "type": "reasoning", "summary": summary})
            }
            Kind::Thought { text, .. } => {
                json!({"id": id, "type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": text}]})
            }
            Kind::Reference(to) => json!({"type": "item_reference", "id": to}),
        }
    }

    /// Adds it to what was said. What a model did in one go is one message: it thought, spoke and called.
    pub(crate) fn say(self, messages: &mut Vec<Message>) {
        match self.kind {
            Kind::Said { role, text, images, .. } => {
                let open = messages
                    .last_mut()
                    .filter(|last| role == Role::Assistant && last.role() == role && last.text.is_empty() && last.tool_calls.is_empty());
                match open {
                    Some(message) => message.text = text,
                    None => messages.push(Message {
                        role: role.into(),
                        text,
                        images,
                        ..Message::default()
                    }),
                }
            }
            Kind::Called(call) => {
                if messages.last().is_none_or(|last| last.role() != Role::Assistant) {
                    messages.push(assistant());
                }
                if let Some(last) = messages.last_mut() {
                    last.tool_calls.push(call);
                }
            }
            Kind::Result { call_id, output } => messages.push(Message {
                role: Role::Tool.into(),
                text: output,
                tool_call_id: call_id,
                ..Message::default()
            }),
            Kind::Thought { text, .. } => messages.push(Message {
                reasoning: text,
                ..assistant()
            }),
            Kind::Reference(_) => {}
        }
    }
}

/// The parts of a message, as they are shown.
pub(crate) fn parts(role: Role, text: &str, images: &[Image]) -> Vec<Value> {
    if role == Role::Assistant {
        return vec![json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})];
    }
    if images.is_empty() {
        return vec![json!({"type": "input_text", "text": text})];
    }
    let part = |piece| match piece {
        Piece::Text(text) => json!({"type": "input_text", "text": text}),
        Piece::Image(image) => {
            let detail = if image.detail.is_empty() { "auto" } else { &image.detail };
            json!({"type": "input_image", "image_url": image.data_uri(), "detail": detail})
        }
    };
    proto::pieces(text, images).into_iter().map(part).collect()
}

fn assistant() -> Message {
    Message {
        role: Role::Assistant.into(),
        ..Message::default()
    }
}

/// A role, as it is written.
pub(crate) fn role_word(role: Role) -> &'static str {
    match role {
        Role::Unspecified | Role::User => "user",
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Developer => "developer",
    }
}
