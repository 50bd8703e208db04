//! `GET /v1/models` and `GET /v1/models/{id}`: what the routers said last; nobody is asked.

use axum::{
    Json,
    extract::{Path, State},
};
use proto::v1::{Failure, Model, Reason};
use serde_json::{Value, json};

use crate::{app::App, failure::Refusal};

/// All models.
pub(crate) async fn list(State(app): State<App>) -> Json<Value> {
    let models: Vec<Value> = app.clients().models().iter().map(object).collect();
    Json(json!({ "object": "list", "data": models }))
}

/// One model. Its id may contain slashes.
pub(crate) async fn one(State(app): State<App>, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let models = app.clients().models();
    let model = models.iter().find(|model| model.id == id).ok_or_else(|| Failure {
        param: "model".to_owned(),
        ..Failure::new(Reason::ModelNotFound, format!("there is no model {id:?}; see /v1/models"))
    })?;
    Ok(Json(object(model)))
}

fn object(model: &Model) -> Value {
    let mut object = json!({
        "id": model.id,
        "object": "model",
        "created": model.created,
        "owned_by": "unbroken",
        "capabilities": { "chat": model.chat, "embeddings": model.embeddings },
    });
    if model.context_length > 0 {
        object["context_length"] = model.context_length.into();
    }
    object
}
