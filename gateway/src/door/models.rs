//! `GET /v1/models` and `GET /v1/models/{id}`: what the routers said last; nobody is asked.

use axum::{
    Json,
    extract::{Path, State},
};
use proto::v1::{Failure, Model, Reason};
use serde::Serialize;
use utoipa::ToSchema;

use crate::{app::App, failure::Refusal, openapi};

/// All models.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ModelList)]
pub(crate) struct List {
    /// `list`.
    object: &'static str,
    data: Vec<ModelOut>,
}

/// A model.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Model)]
pub(crate) struct ModelOut {
    id: String,
    /// `model`.
    object: &'static str,
    /// When it was loaded, in seconds since 1970.
    created: i64,
    owned_by: &'static str,
    capabilities: Capabilities,
    /// Tokens that input and output may take together, where it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    context_length: Option<u32>,
}

/// What a model can do.
#[derive(Debug, Serialize, ToSchema)]
struct Capabilities {
    chat: bool,
    embeddings: bool,
    /// It sees the images of messages.
    images: bool,
}

/// Lists the models.
#[utoipa::path(
    get,
    path = "/v1/models",
    operation_id = "list_models",
    tag = openapi::OPENAI,
    responses((status = OK, description = "All models.", body = List), openapi::Refused),
)]
pub(crate) async fn list(State(app): State<App>) -> Json<List> {
    Json(List {
        object: "list",
        data: app.clients().models().iter().map(object).collect(),
    })
}

/// Reads one model. Its id may contain slashes.
#[utoipa::path(
    get,
    path = "/v1/models/{*id}",
    operation_id = "read_model",
    tag = openapi::OPENAI,
    params(("id" = String, Path, description = "The model's id.")),
    responses((status = OK, description = "The model.", body = ModelOut), openapi::Refused),
)]
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<ModelOut>, Refusal> {
    let models = app.clients().models();
    let model = models.iter().find(|model| model.id == id).ok_or_else(|| Failure {
        param: "model".to_owned(),
        ..Failure::new(Reason::ModelNotFound, format!("there is no model {id:?}; see /v1/models"))
    })?;
    Ok(Json(object(model)))
}

fn object(model: &Model) -> ModelOut {
    ModelOut {
        id: model.id.clone(),
        object: "model",
        created: model.created,
        owned_by: "unbroken",
        capabilities: Capabilities {
            chat: model.chat,
            embeddings: model.embeddings,
            images: model.images,
        },
        context_length: (model.context_length > 0).then_some(model.context_length),
    }
}
