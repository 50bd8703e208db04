//! What every request passes on its way to a door: an id, a span, and safety from panics; then, but for the few routes that are
//! everybody's, a judgement of who asks. [`crate::app`] puts it around the routes.
//!
//! Bodies are bounded where they are read ([`crate::body`]), connections in [`chassis::http`]; limits are
//! judged where all of a request is known ([`crate::door`]), and told here.

use std::{convert::Infallible, panic::AssertUnwindSafe, sync::Arc};

use axum::{
    extract::{FromRequestParts, MatchedPath, Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use chassis::{http::Peer, trace};
use futures_util::FutureExt as _;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, request::Parts};
use tokio::time::Instant;
use tower_http::cors::{AllowHeaders, Any, CorsLayer};
use tracing::{Instrument as _, Span, info_span};

use crate::{
    app::App,
    door::messages,
    failure::Refusal,
    front,
    identity::{Asking, Caller},
    limits, origin,
};

/// The header that carries a request's id in both directions.
pub(crate) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header that names an answer.
pub(crate) const STREAM_ID: HeaderName = HeaderName::from_static("x-stream-id");
/// The longest id that is taken over from a caller, in bytes: a few uuids.
const REQUEST_ID_LENGTH: usize = 128;

/// The arrival of a request.
#[derive(Clone, Debug)]
pub(crate) struct Arrival {
    /// When.
    pub(crate) at: Instant,
    /// Its id: the caller's, or ours.
    pub(crate) request_id: Arc<str>,
    /// Its span, part of the caller's trace.
    pub(crate) span: Span,
    /// Where its limits are left, for the response's headers.
    pub(crate) quota: limits::Slot,
}

impl Arrival {
    fn of(request: &Request) -> Self {
        let request_id = request_id(request.headers());
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        let span = info_span!("request", method = %request.method(), route, request_id = &*request_id);
        if let Some(parent) = request.headers().get(trace::TRACEPARENT).and_then(|value| value.to_str().ok()) {
            trace::continue_from(&span, parent);
        }
        Self {
            at: Instant::now(),
            request_id,
            span,
            quota: limits::Slot::default(),
        }
    }
}

impl<S: Sync> FromRequestParts<S> for Arrival {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(parts.extensions.remove::<Self>().unwrap_or_else(|| Self {
            at: Instant::now(),
            request_id: fresh_id(),
            span: Span::none(),
            quota: limits::Slot::default(),
        }))
    }
}

/// Gives the request its id and span, answers for a door that panics, says refusals in the words of the API that was asked, and how the caller
/// stands.
pub(crate) async fn receive(mut request: Request, next: Next) -> Response {
    let arrival = Arrival::of(&request);
    let (request_id, span) = (Arc::clone(&arrival.request_id), arrival.span.clone());
    let quota = Arc::clone(&arrival.quota);
    request.extensions_mut().insert(arrival);
    let words = messages::are_its_words(request.uri().path());
    let answered = AssertUnwindSafe(next.run(request).instrument(span)).catch_unwind().await;
    let mut response = answered.unwrap_or_else(|_| {
        tracing::error!(request_id = &*request_id, "a door panicked");
        Refusal::new(StatusCode::INTERNAL_SERVER_ERROR, "internal_error", "a fault of ours").into_response()
    });
    if words {
        response = messages::in_its_words(response, &request_id);
    }
    if let Ok(value) = HeaderValue::from_str(&request_id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    if let Some(quota) = quota.get() {
        quota.write(response.headers_mut());
    }
    response
}

/// Judges who asks, and tells the door.
pub(crate) async fn identify(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    match judge(&app, &parts).await {
        Ok(caller) => {
            parts.extensions.insert(caller);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refusal) => {
            app.metrics().refused(refusal.code());
            refusal.into_response()
        }
    }
}

/// Who asks, if the page and the name that they ask by may be; behind a trusted front, for whom it speaks.
async fn judge(app: &App, parts: &Parts) -> Result<Caller, Refusal> {
    let asking = Asking {
        method: &parts.method,
        route: parts.extensions.get::<MatchedPath>().map_or("", MatchedPath::as_str),
        uri: &parts.uri,
        headers: &parts.headers,
    };
    origin::judge(&asking, app.settings(), app.identity().is_asked())?;
    let caller = app.identity().judge(asking).await?;
    let peer = parts.extensions.get::<Peer>().and_then(|peer| peer.0);
    Ok(match front::vouched(&app.settings().fronts, peer, &parts.headers)? {
        None => caller,
        Some(vouched) => caller.speaking_for(vouched),
    })
}

/// The caller's id if it is short and plain, else a fresh one.
fn request_id(headers: &HeaderMap) -> Arc<str> {
    headers
        .get(REQUEST_ID)
        .and_then(|value| value.to_str().ok())
        .filter(|id| (1..=REQUEST_ID_LENGTH).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_graphic()))
        .map_or_else(fresh_id, Arc::from)
}

fn fresh_id() -> Arc<str> {
    uuid::Uuid::new_v4().simple().to_string().into()
}

/// Which web pages may call, from the setting. `None`: those of this gateway only.
///
/// # Errors
/// The origin that is none.
pub(crate) fn cors(origins: &[String]) -> Result<Option<CorsLayer>, String> {
    let origins: Vec<&str> = origins
        .iter()
        .map(|origin| origin.trim())
        .filter(|origin| !origin.is_empty())
        .collect();
    if origins.is_empty() {
        return Ok(None);
    }
    let layer = CorsLayer::new()
        .allow_methods(Any)
        // Not any, by a star: that would leave out Authorization (https://fetch.spec.whatwg.org/#cors-non-wildcard-request-header-name).
        .allow_headers(AllowHeaders::mirror_request())
        .expose_headers(
            [REQUEST_ID, STREAM_ID, http::header::RETRY_AFTER]
                .into_iter()
                .chain(limits::HEADERS)
                .collect::<Vec<_>>(),
        )
        .max_age(std::time::Duration::from_hours(1));
    if origins.contains(&"*") {
        return Ok(Some(layer.allow_origin(Any)));
    }
    let values = origins
        .into_iter()
        .map(|origin| {
            match (
                origin.starts_with("http://") || origin.starts_with("https://"),
                HeaderValue::from_str(origin),
            ) {
                (true, Ok(value)) => Ok(value),
                _ => Err(origin.to_owned()),
            }
        })
        .collect::<Result<Vec<_>, _>>()?;
    Ok(Some(layer.allow_origin(values)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_could_forge_a_log_line_is_replaced() {
        let with = |value: &'static [u8]| HeaderMap::from_iter([(REQUEST_ID, HeaderValue::from_bytes(value).unwrap())]);
        assert_eq!(&*request_id(&with(b"abc-123")), "abc-123");
        for bad in [&b""[..], b"two words", b"caf\xc3\xa9", &[b'x'; 129]] {
            assert_eq!(request_id(&with(bad)).len(), 32);
        }
    }

    #[test]
    fn an_origin_is_a_scheme_and_a_host() {
        assert!(cors(&[String::new()]).unwrap().is_none());
        assert!(cors(&["https://chat.example.com".into()]).unwrap().is_some());
        assert_eq!(cors(&["chat.example.com".into()]).unwrap_err(), "chat.example.com");
    }
}
