//! `POST /v1/streams/{id}/cancel`: ends an answer, whoever reads it.

use axum::{
    Json,
    extract::{Path, State},
};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, failure::Refusal, identity::Caller, openapi, turn};

/// An answer that has ended, by this or before.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Cancelled {
    stream_id: String,
    /// Whether it was running until now.
    was_running: bool,
}

/// Ends an answer, whoever reads it.
#[utoipa::path(
    post,
    path = "/v1/streams/{id}/cancel",
    operation_id = "cancel_stream",
    tag = openapi::SIMPLE,
    params(("id" = String, Path, description = "The answer's name: `X-Stream-ID` of its response.")),
    responses((status = OK, description = "It has ended.", body = Cancelled), openapi::Refused),
)]
pub(crate) async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Cancelled>, Refusal> {
    let was_running = turn::cancel(app.clients(), &id, caller.principal()).await?;
    Ok(Json(Cancelled {
        stream_id: id,
        was_running,
    }))
}
