//! `POST /v1/streams/{id}/cancel`: ends an answer, whoever reads it.

use axum::{
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use http::header;
use serde_json::json;

use crate::{app::App, failure::Refusal, identity::Caller, turn};

/// The door.
pub(crate) async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, Refusal> {
    let was_running = turn::cancel(app.clients(), &id, caller.principal()).await?;
    let body = json!({ "stream_id": id, "was_running": was_running });
    Ok(([(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response())
}
