//! What an HTTP client is told when something cannot be done: the one table from the mesh's reasons to statuses, types and codes,
//! and the body in OpenAI's shape (<https://platform.openai.com/docs/guides/error-codes>).
//!
//! Every door answers with a [`Refusal`]; a stream that has begun carries the same object as an event ([`error_object`]).

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::{HeaderName, HeaderValue, StatusCode, header};
use proto::v1::{Failure, Reason};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

/// Why a request is not answered. Its response bears it as an extension, for doors that say it in other words.
#[derive(Clone, Debug)]
pub(crate) struct Refusal(Box<Inner>);

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    /// OpenAI's `type`, where it does not follow from the status.
    kind: Option<&'static str>,
    code: &'static str,
    message: String,
    param: Option<String>,
    retry_after: Option<Duration>,
    queue_depth: Option<u32>,
}

/// The name of [`Body`] in the document of the doors.
pub(crate) const SCHEMA: &str = "Refusal";

/// The body of a refusal.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Refusal)]
pub(crate) struct Body<'a> {
    error: ErrorObject<'a>,
}

/// Why something could not be done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Error)]
struct ErrorObject<'a> {
    /// For a person.
    message: &'a str,
    /// `invalid_request_error` where the request is at fault, `server_error` where not.
    r#type: &'static str,
    /// The field at fault.
    #[schema(required)]
    param: Option<&'a str>,
    /// A stable word for the reason.
    code: &'static str,
    /// Where the queue is full: how many wait.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    queue_depth: Option<u32>,
}

/// Says to the SDKs of OpenAI and Anthropic whether to ask again by themselves.
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// How long a client is asked to wait where nothing better is known.
const RETRY_AFTER: Duration = Duration::from_secs(1);

impl Refusal {
    /// A refusal by the gateway itself.
    pub(crate) fn new(status: StatusCode, code: &'static str, message: impl Into<String>) -> Self {
        Self(Box::new(Inner {
            status,
            kind: None,
            code,
            message: message.into(),
            param: None,
            retry_after: None,
            queue_depth: None,
        }))
    }

    /// The request is wrong in this field.
    pub(crate) fn invalid(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::BAD_REQUEST, "invalid_request", message);
        refusal.0.param = Some(param.into());
        refusal
    }

    /// With this word, by which clients know what to do.
    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.0.code = code;
        self
    }

    /// With this `type` for clients of OpenAI.
    pub(crate) fn of_kind(mut self, kind: &'static str) -> Self {
        self.0.kind = Some(kind);
        self
    }

    /// It is worth trying again after this time.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        self.0.retry_after = Some(wait);
        self
    }

    /// What this field names is not there, or is somebody else's.
    pub(crate) fn missing(param: impl Into<String>, message: impl Into<String>) -> Self {
        let mut refusal = Self::new(StatusCode::NOT_FOUND, "not_found", message);
        refusal.0.param = Some(param.into());
        refusal
    }

    /// The HTTP status.
    pub(crate) fn status(&self) -> StatusCode {
        self.0.status
    }

    /// For a person.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// After how many seconds it is worth trying again.
    pub(crate) fn retry_after_seconds(&self) -> Option<u64> {
        let wait = self.0.retry_after?.as_millis().div_ceil(1000).max(1);
        u64::try_from(wait).ok()
    }

    /// A stable word for the reason.
    pub(crate) fn code(&self) -> &'static str {
        self.0.code
    }

    /// Whether the SDKs of OpenAI and Anthropic, which ask again by themselves after such a status, are to leave it: an answer that somebody
    /// cancelled would be made again, and what is in conflict stays so.
    fn is_final(&self) -> bool {
        self.0.status == StatusCode::CONFLICT
    }

    /// The headers that belong to the status, for whichever body: `Retry-After`, the SDKs' `x-should-retry`, and for 401 and 403 what would
    /// be taken (<https://www.rfc-editor.org/rfc/rfc6750#section-3>).
    pub(crate) fn dress(&self, response: &mut Response) {
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after_seconds() {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        if self.is_final() {
            headers.insert(SHOULD_RETRY, HeaderValue::from_static("false"));
        }
        let challenge = match (self.0.status, self.0.code) {
            (StatusCode::UNAUTHORIZED, "missing_credentials") => "Bearer realm=\"unbroken\"",
            (StatusCode::UNAUTHORIZED, _) => "Bearer realm=\"unbroken\", error=\"invalid_token\"",
            (StatusCode::FORBIDDEN, "forbidden") => "Bearer realm=\"unbroken\", error=\"insufficient_scope\"",
            _ => return,
        };
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    }

    /// What the client is told, as in the body's `error`.
    pub(crate) fn object(&self) -> Value {
        json!(self.error())
    }

    fn error(&self) -> ErrorObject<'_> {
        ErrorObject {
            message: &self.0.message,
            r#type: self.0.kind.unwrap_or_else(|| kind(self.0.status)),
            param: self.0.param.as_deref(),
            code: self.0.code,
            queue_depth: self.0.queue_depth,
        }
    }
}

/// The one table: a reason of the mesh as an HTTP status.
pub(crate) fn status(reason: Reason) -> StatusCode {
    match reason {
        Reason::Unspecified | Reason::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Reason::InvalidRequest | Reason::ContextLengthExceeded | Reason::Unsupported | Reason::Limit => StatusCode::BAD_REQUEST,
        Reason::ModelNotFound | Reason::NotFound => StatusCode::NOT_FOUND,
        Reason::Revoked => StatusCode::UNAUTHORIZED,
        Reason::Conflict => StatusCode::CONFLICT,
        Reason::Expired => StatusCode::GONE,
        Reason::QueueFull | Reason::Unavailable | Reason::StoreUnavailable | Reason::Draining | Reason::Moved => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        Reason::WorkerLost | Reason::Upstream | Reason::Interrupted => StatusCode::BAD_GATEWAY,
        Reason::Timeout => StatusCode::GATEWAY_TIMEOUT,
    }
}

/// OpenAI's `type` for a status.
fn kind(status: StatusCode) -> &'static str {
    if status.is_client_error() {
        "invalid_request_error"
    } else {
        "server_error"
    }
}

/// The `error` object of an answer that broke off after its head was sent.
pub(crate) fn error_object(failure: &Failure) -> Value {
    Refusal::from(failure.clone()).object()
}

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        let reason = failure.reason();
        let status = status(reason);
        let retry_after = match failure.retry_after_ms {
            0 => (status == StatusCode::SERVICE_UNAVAILABLE).then_some(RETRY_AFTER),
            ms => Some(Duration::from_millis(ms.into())),
        };
        Self(Box::new(Inner {
            status,
            kind: None,
            code: reason.as_word(),
            message: failure.message,
            param: Some(failure.param).filter(|param| !param.is_empty()),
            retry_after,
            queue_depth: (reason == Reason::QueueFull).then_some(failure.queue_depth),
        }))
    }
}

impl From<tonic::Status> for Refusal {
    fn from(status: tonic::Status) -> Self {
        Failure::from_status(&status).into()
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let body = json!(Body { error: self.error() }).to_string();
        let mut response = (self.0.status, [(header::CONTENT_TYPE, "application/json")], body).into_response();
        self.dress(&mut response);
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_queue_says_how_many_wait_and_when_to_come_back() {
        let refusal = Refusal::from(Failure {
            queue_depth: 12,
            retry_after_ms: 2500,
            ..Failure::new(Reason::QueueFull, "the queue is full")
        });
        assert_eq!(refusal.object()["queue_depth"], 12);
        let response = refusal.into_response();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(response.headers()[header::RETRY_AFTER], "3");
    }

    #[test]
    fn only_faults_of_the_request_blame_the_request() {
        for number in 0..=19 {
            let reason = Reason::try_from(number).unwrap();
            let refusal = Refusal::from(Failure::new(reason, "no"));
            assert_eq!(
                refusal.object()["type"] == "invalid_request_error",
                refusal.into_response().status().is_client_error(),
                "{reason:?}"
            );
        }
    }
}
