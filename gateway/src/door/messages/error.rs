//! What a client is told when something cannot be done, in Anthropic's shape (<https://docs.anthropic.com/en/api/errors>).

use std::collections::BTreeMap;

use axum::{
    Json,
    response::{IntoResponse as _, Response},
};
use http::{HeaderName, HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema, openapi::RefOr};

use crate::{failure::Refusal, openapi};

/// Where Anthropic's API is.
const PATH: &str = "/v1/messages";
/// Anthropic's name of `X-Request-ID`.
const REQUEST_ID: HeaderName = HeaderName::from_static("request-id");
/// What Anthropic answers with when it is too busy.
const OVERLOADED: u16 = 529;

/// The body of a refusal, and the event that ends a stream which broke off.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicRefusal)]
pub(crate) struct ErrorBody<'a> {
    /// `error`.
    r#type: &'static str,
    error: ErrorObject<'a>,
    /// The request's id. An event has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    request_id: Option<&'a str>,
}

/// Why something could not be done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = AnthropicError)]
struct ErrorObject<'a> {
    /// A stable word for the kind of error.
    r#type: &'static str,
    /// For a person.
    message: &'a str,
}

/// Whether Anthropic's words are spoken there.
pub(crate) fn are_its_words(path: &str) -> bool {
    path.starts_with(PATH)
}

/// Says a refusal in Anthropic's words, whoever on the way refused: the door, or what stands before it.
pub(crate) fn in_its_words(mut response: Response, request_id: &str) -> Response {
    if let Some(refusal) = response.extensions_mut().remove::<Refusal>() {
        response = refused(&refusal, request_id);
    }
    if let Ok(id) = HeaderValue::from_str(request_id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

fn refused(refusal: &Refusal, request_id: &str) -> Response {
    let status = match refusal.status() {
        StatusCode::SERVICE_UNAVAILABLE => StatusCode::from_u16(OVERLOADED).unwrap_or(StatusCode::SERVICE_UNAVAILABLE),
        status => status,
    };
    let body = ErrorBody {
        request_id: Some(request_id),
        ..error(status, refusal.message())
    };
    let mut response = (status, Json(body)).into_response();
    refusal.dress(&mut response);
    response
}

pub(super) fn error(status: StatusCode, message: &str) -> ErrorBody<'_> {
    let kind = match status.as_u16() {
        401 => "authentication_error",
        403 => "permission_error",
        404 | 410 => "not_found_error",
        408 | 504 => "timeout_error",
        413 => "request_too_large",
        429 => "rate_limit_error",
        OVERLOADED | 503 => "overloaded_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    ErrorBody {
        r#type: "error",
        error: ErrorObject { r#type: kind, message },
        request_id: None,
    }
}

/// How the doors of Anthropic's API refuse.
#[derive(Debug)]
pub(super) struct Refused;

impl IntoResponses for Refused {
    fn responses() -> BTreeMap<String, RefOr<utoipa::openapi::Response>> {
        let all = openapi::MESH.iter().chain(&openapi::BODY).chain(&openapi::REUSED);
        let as_here = all.map(|(status, why)| if *status == 503 { (OVERLOADED, *why) } else { (*status, *why) });
        openapi::refusals(&as_here.collect::<Vec<_>>(), "AnthropicRefusal")
    }
}
