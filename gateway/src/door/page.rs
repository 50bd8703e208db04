//! `GET /`: one static page that chats by `EventSource`, enough to try the mesh in a browser. It needs nothing from elsewhere.

use axum::response::{Html, IntoResponse as _, Response};
use http::{HeaderValue, header};

use crate::openapi;

const PAGE: &str = include_str!("../../web/index.html");
/// Its own script and style, calls to this gateway, and nothing else.
const POLICY: &str = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; connect-src 'self'; \
                      img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Chats in a browser.
#[utoipa::path(
    get,
    path = "/",
    operation_id = "page",
    tag = openapi::SIMPLE,
    responses((status = OK, description = "The page.", body = String, content_type = "text/html")),
)]
pub(crate) async fn page() -> Response {
    html(PAGE)
}

/// A page that needs nothing from elsewhere, with the head that says so.
pub(super) fn html(page: &'static str) -> Response {
    let mut response = Html(page).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
