//! `POST /v1/streams/{id}/cancel`: ends an answer, whoever reads it.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::header;
use serde_json::json;

use crate::{app::App, body::principal, failure::Refusal, turn};

/// The door.
pub(crate) async fn cancel(State(app): State<App>, Path(id): Path<String>) -> Result<Response, Refusal> {
    let was_running = turn::cancel(app.clients(), &id, &principal()).await?;
    let body = json!({ "stream_id": id, "was_running": was_running });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}
