//! What a response shows of what was asked for. Pure.

use serde_json::{Map, Value, json};

use super::{Asked, ReasoningIn};

impl Asked {
    /// What the response shows, with the values that take effect where nothing was said.
    pub(super) fn asked(
        self,
        mut shown: Map<String, Value>,
        store: bool,
        background: bool,
        conversation: Option<&str>,
    ) -> Map<String, Value> {
        let reasoning = self.reasoning.unwrap_or(ReasoningIn {
            effort: None,
            summary: None,
        });
        let rest = json!({
            "instructions": self.instructions,
            "previous_response_id": self.previous_response_id,
            "conversation": conversation.map(|id| json!({"id": id})),
            "parallel_tool_calls": self.parallel_tool_calls.unwrap_or(true),
            "temperature": self.temperature.unwrap_or(1.0),
            "top_p": self.top_p.unwrap_or(1.0),
            "presence_penalty": self.presence_penalty.unwrap_or(0.0),
            "frequency_penalty": self.frequency_penalty.unwrap_or(0.0),
            "top_logprobs": self.top_logprobs.unwrap_or(0),
            "max_output_tokens": self.max_output_tokens,
            "max_tool_calls": self.max_tool_calls,
            "reasoning": {"effort": reasoning.effort, "summary": reasoning.summary},
            "truncation": self.truncation.as_deref().unwrap_or("disabled"),
            "store": store,
            "background": background,
            "service_tier": "default",
            "metadata": self.metadata.unwrap_or_default(),
            "user": self.user,
            "safety_identifier": self.safety_identifier,
            "prompt_cache_key": self.prompt_cache_key,
        });
        if let Value::Object(rest) = rest {
            shown.extend(rest);
        }
        shown
    }
}
