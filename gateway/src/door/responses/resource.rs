//! The response, as it is shown: what was asked, with every value that took effect, and what has come of it. Every field of the API's
//! resource is there (<https://platform.openai.com/docs/api-reference/responses/object>, <https://www.openresponses.org/specification>).

use proto::v1::Usage;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::output::{End, How, Output};

/// What is known of a response before its answer says anything.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub(crate) struct Outline {
    pub(super) stream_id: String,
    pub(super) created: i64,
    pub(super) model: String,
    /// The fields that are shown as they were asked for.
    pub(super) asked: Map<String, Value>,
}

/// How a response stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    Queued,
    Running,
    /// As its output says.
    Ended,
}

impl Outline {
    pub(crate) fn stream_id(&self) -> &str {
        &self.stream_id
    }

    /// Whether it was asked to go on by itself.
    pub(crate) fn is_background(&self) -> bool {
        self.asked.get("background").and_then(Value::as_bool).unwrap_or(false)
    }

    /// The response.
    pub(crate) fn resource(&self, standing: Standing, output: &Output) -> Value {
        let end = output.end();
        let status = match (standing, end.map(|end| &end.how)) {
            (Standing::Ended, Some(How::Completed)) => "completed",
            (Standing::Ended, Some(How::Incomplete(_))) => "incomplete",
            (Standing::Ended, Some(How::Failed { .. }) | None) => "failed",
            (Standing::Ended, Some(How::Cancelled)) => "cancelled",
            (Standing::Queued, _) => "queued",
            (Standing::Running, _) => "in_progress",
        };
        let mut resource = json!({
            "id": super::id(&self.stream_id),
            "object": "response",
            "created_at": self.created,
            "completed_at": end.and_then(|end| end.completed_at),
            "status": status,
            "error": error(end),
            "incomplete_details": incomplete(end),
            "model": self.model,
            "output": output.objects(),
            "usage": end.and_then(|end| end.usage).map(usage),
        });
        if let Value::Object(fields) = &mut resource {
            fields.extend(self.asked.clone());
        }
        resource
    }

    /// The least that there can be.
    #[cfg(test)]
    pub(super) fn for_tests(stream_id: &str) -> Self {
        Self {
            stream_id: stream_id.to_owned(),
            created: 0,
            model: "m".to_owned(),
            asked: Map::new(),
        }
    }
}

/// The codes of a failed response are a closed list (`ResponseError` in the API); what is ours stands in the message.
fn error(end: Option<&End>) -> Option<Value> {
    match &end?.how {
        How::Failed { code, message } => Some(json!({"code": "server_error", "message": format!("{message} ({code})")})),
        _ => None,
    }
}

fn incomplete(end: Option<&End>) -> Option<Value> {
    match &end?.how {
        How::Incomplete(reason) => Some(json!({"reason": reason})),
        _ => None,
    }
}

/// Usage as the Responses API writes it.
fn usage(usage: Usage) -> Value {
    json!({
        "input_tokens": usage.prompt_tokens,
        "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
        "output_tokens": usage.completion_tokens,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
        "total_tokens": u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
    })
}
