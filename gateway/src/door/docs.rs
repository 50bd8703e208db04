//! `GET /openapi.json`, the document of the doors, and `GET /docs`, a page to read it on. Both need nothing from elsewhere.

use std::sync::LazyLock;

use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use http::header;

use super::page::html;
use crate::{app, openapi};

const PAGE: &str = include_str!("../../web/docs.html");

static DOCUMENT: LazyLock<Bytes> = LazyLock::new(|| openapi::document(app::document()).into());

/// Describes all this, in OpenAPI 3.1.
#[utoipa::path(
    get,
    path = "/openapi.json",
    operation_id = "openapi",
    tag = openapi::OPERATORS,
    responses((status = OK, description = "This document.", body = Object)),
)]
pub(crate) async fn document() -> Response {
    ([(header::CONTENT_TYPE, "application/json")], DOCUMENT.clone()).into_response()
}

/// Shows the document in a browser.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "docs",
    tag = openapi::OPERATORS,
    responses((status = OK, description = "The page.", body = String, content_type = "text/html")),
)]
pub(crate) async fn browse() -> Response {
    html(PAGE)
}
