//! One item of an output, and how it is shown.

use proto::v1::TokenLogprob;
use serde_json::{Value, json};

/// One item.
#[derive(Debug)]
pub(crate) struct Item {
    pub(super) kind: Kind,
    pub(super) id: String,
    /// The text, the thought, or the arguments.
    pub(in crate::door::responses) text: String,
    pub(super) call_id: String,
    pub(super) name: String,
    pub(in crate::door::responses) logprobs: Vec<TokenLogprob>,
    pub(super) status: &'static str,
}

/// What an item is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The model thinks.
    Thought,
    /// It speaks.
    Text,
    /// It calls a function: the call of this index.
    Call(u32),
}

impl Item {
    pub(in crate::door::responses) fn kind(&self) -> Kind {
        self.kind
    }

    pub(in crate::door::responses) fn id(&self) -> &str {
        &self.id
    }

    pub(in crate::door::responses) fn name(&self) -> &str {
        &self.name
    }

    /// The item, as it is shown.
    pub(in crate::door::responses) fn object(&self) -> Value {
        let (id, status) = (&self.id, self.status);
        match self.kind {
            Kind::Thought => json!({
                "id": id, "type": "reasoning", "status": status, "summary": [],
                "content": if self.text.is_empty() { json!([]) } else { json!([self.part()]) },
            }),
            Kind::Text => json!({
                "id": id, "type": "message", "status": status, "role": "assistant",
                "content": if status == "in_progress" && self.text.is_empty() { json!([]) } else { json!([self.part()]) },
            }),
            Kind::Call(_) => json!({
                "id": id, "type": "function_call", "status": status, "call_id": self.call_id, "name": self.name, "arguments": self.text,
            }),
        }
    }

    /// The one part that a thought or a text has.
    pub(in crate::door::responses) fn part(&self) -> Value {
        match self.kind {
            Kind::Thought => json!({"type": "reasoning_text", "text": self.text}),
            Kind::Text | Kind::Call(_) => json!({
                "type": "output_text", "text": self.text, "annotations": [], "logprobs": logprobs(&self.logprobs),
            }),
        }
    }
}

/// What OpenAI writes for a token that cannot be.
const IMPOSSIBLE: f32 = -9999.0;

/// Log probabilities, as they are shown.
pub(in crate::door::responses) fn logprobs(tokens: &[TokenLogprob]) -> Value {
    let one = |token: &TokenLogprob| {
        let value = if token.logprob.is_finite() { token.logprob } else { IMPOSSIBLE };
        json!({"token": token.token, "logprob": value, "bytes": token.bytes})
    };
    let all = tokens.iter().map(|token| {
        let mut object = one(token);
        object["top_logprobs"] = token.top.iter().map(one).collect();
        object
    });
    all.collect()
}
