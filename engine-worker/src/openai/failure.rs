//! What a server's refusal means for the caller. Pure.
//!
//! The server's own words are passed on to the caller, who may be able to help it, and never logged: they may quote the prompt.

use std::time::Duration;

use proto::v1::{Failure, Reason};
use serde_json::Value;

/// Anthropic's status for a server that has too much to do.
const OVERLOADED: u16 = 529;
/// The most characters of a server's message that are passed on.
const MESSAGE_CHARS: usize = 1000;
/// What servers say when a prompt is too long, where they give no code for it.
const TOO_LONG: [&str; 5] = [
    "prompt is too long",
    "maximum context length",
    "context length",
    "exceeds the available context",
    "max_model_len",
];

/// The failure behind a status that is no success.
pub(super) fn of_status(status: u16, body: &[u8], retry_after: Option<Duration>) -> Failure {
    let error = serde_json::from_slice::<Value>(body).unwrap_or_default();
    let told = told(&error);
    let says = |what: &str| {
        if told.is_empty() {
            what.to_owned()
        } else {
            format!("{what}: {told}")
        }
    };
    let retry_after_ms = retry_after.map_or(0, |after| u32::try_from(after.as_millis()).unwrap_or(u32::MAX));
    let failure = match status {
        // Its message may show a part of the key.
        401 | 403 => Failure::new(Reason::Upstream, "the server behind this worker refuses the worker's key"),
        404 if told.to_lowercase().contains("model") => Failure {
            param: "model".to_owned(),
            ..Failure::new(Reason::ModelNotFound, says("the server behind this worker has no such model"))
        },
        404 => Failure::new(
            Reason::Upstream,
            says("the server behind this worker has no such address; is UNBROKEN_UPSTREAM its base?"),
        ),
        408 | 504 => Failure::new(Reason::Timeout, says("the server behind this worker took too long")),
        429 | OVERLOADED => Failure::new(Reason::QueueFull, says("the server behind this worker takes no more")),
        503 => Failure::new(Reason::Unavailable, says("the server behind this worker is not available")),
        400..=499 => refused(&error, &told),
        _ => Failure::new(
            Reason::Upstream,
            says(&format!("the server behind this worker failed with status {status}")),
        ),
    };
    Failure { retry_after_ms, ..failure }
}

/// The failure behind an error in the middle of a stream: the content of its `error`.
pub(super) fn of_error(error: &Value) -> Failure {
    let error = inner(error);
    let code = error
        .get("code")
        .and_then(|code| code.as_u64().or_else(|| code.as_str()?.parse().ok()));
    let mut words = ["type", "code"].into_iter().filter_map(|name| error.get(name)?.as_str());
    let status = code.and_then(|code| u16::try_from(code).ok()).or_else(|| words.find_map(status_of));
    match status {
        Some(status @ 400..=599) => of_status(status, error.to_string().as_bytes(), None),
        _ => Failure::new(
            Reason::Upstream,
            format!("the server behind this worker broke off: {}", told(error)),
        ),
    }
}

/// The status that a word for an error stands for, where an error comes too late for one
/// (<https://platform.claude.com/docs/en/api/errors>, and the codes of OpenAI's Responses).
fn status_of(word: &str) -> Option<u16> {
    match word {
        "invalid_request_error" | "invalid_prompt" | "context_length_exceeded" => Some(400),
        "authentication_error" => Some(401),
        "permission_error" => Some(403),
        "not_found_error" => Some(404),
        "rate_limit_error" | "rate_limit_exceeded" => Some(429),
        "timeout_error" => Some(504),
        "overloaded_error" => Some(OVERLOADED),
        _ => None,
    }
}

/// The request itself was at fault.
fn refused(error: &Value, told: &str) -> Failure {
    let field = |name| inner(error).get(name).and_then(Value::as_str);
    let lower = told.to_lowercase();
    let too_long = field("code") == Some("context_length_exceeded")
        || field("type") == Some("exceed_context_size_error")
        || TOO_LONG.iter().any(|words| lower.contains(words));
    let (reason, param) = if too_long {
        (Reason::ContextLengthExceeded, "messages")
    } else {
        (Reason::InvalidRequest, field("param").unwrap_or_default())
    };
    let message = if told.is_empty() {
        "the server behind this worker refused the request without saying why"
    } else {
        told
    };
    Failure {
        param: param.to_owned(),
        ..Failure::new(reason, message)
    }
}

/// OpenAI puts it into `error`; vLLM and others have had it outside.
fn inner(error: &Value) -> &Value {
    error.get("error").filter(|inner| inner.is_object()).unwrap_or(error)
}

fn told(error: &Value) -> String {
    let texts = [inner(error).get("message"), error.get("error"), error.get("detail"), Some(error)];
    let text = texts.into_iter().flatten().find_map(Value::as_str).unwrap_or_default();
    text.chars().take(MESSAGE_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn each_status_has_its_reason() {
        for (status, body, reason) in [
            (400, r#"{"error":{"message":"bad top_p","param":"top_p"}}"#, Reason::InvalidRequest),
            (422, r#"{"detail":"no"}"#, Reason::InvalidRequest),
            (
                400,
                r#"{"error":{"message":"x","code":"context_length_exceeded"}}"#,
                Reason::ContextLengthExceeded,
            ),
            (
                400,
                r#"{"object":"error","message":"This model's maximum context length is 8 tokens."}"#,
                Reason::ContextLengthExceeded,
            ),
            (
                401,
                r#"{"error":{"message":"Incorrect API key provided: sk-ab"}}"#,
                Reason::Upstream,
            ),
            (
                404,
                r#"{"error":{"message":"The model `x` does not exist."}}"#,
                Reason::ModelNotFound,
            ),
            (404, "Not Found", Reason::Upstream),
            (429, "", Reason::QueueFull),
            (
                529,
                r#"{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}"#,
                Reason::QueueFull,
            ),
            (500, "boom", Reason::Upstream),
            (503, r#"{"error":"loading"}"#, Reason::Unavailable),
            (504, "", Reason::Timeout),
        ] {
            let failure = of_status(status, body.as_bytes(), None);
            assert_eq!(failure.reason(), reason, "{status} {body}");
            assert!(!failure.message.is_empty() && !failure.message.contains("sk-ab"), "{failure}");
        }
    }

    #[test]
    fn a_servers_words_and_field_are_passed_on() {
        let failure = of_status(400, br#"{"error":{"message":"bad top_p","param":"top_p"}}"#, None);
        assert_eq!((failure.message.as_str(), failure.param.as_str()), ("bad top_p", "top_p"));
        assert_eq!(of_status(429, b"", Some(Duration::from_secs(2))).retry_after_ms, 2000);
    }

    #[test]
    fn an_error_in_the_middle_is_known_by_its_number_or_its_word() {
        for (error, reason) in [
            (json!({"message": "over", "code": 429}), Reason::QueueFull),
            (json!({"message": "over", "code": "429"}), Reason::QueueFull),
            (json!({"type": "overloaded_error", "message": "Overloaded"}), Reason::QueueFull),
            (
                json!({"type": "error", "code": "rate_limit_exceeded", "message": "slow down"}),
                Reason::QueueFull,
            ),
            (json!({"type": "timeout_error", "message": "late"}), Reason::Timeout),
            (json!({"type": "api_error", "message": "boom"}), Reason::Upstream),
            (json!({"code": "server_error", "message": "boom"}), Reason::Upstream),
            (
                json!({"type": "invalid_request_error", "message": "prompt is too long: 9 tokens > 8 maximum"}),
                Reason::ContextLengthExceeded,
            ),
            (json!("out of memory"), Reason::Upstream),
            (json!(null), Reason::Upstream),
        ] {
            assert_eq!(of_error(&error).reason(), reason, "{error}");
        }
    }
}
