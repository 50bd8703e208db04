//! `/v1/conversations`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/conversations>): the conversations of the
//! store, with their messages as [`items`].

pub(crate) mod items;

use axum::{
    Json,
    extract::{Path, Request, State},
};
use proto::v1::{Conversation, CreateConversationRequest, DeleteConversationRequest, GetConversationRequest, UpdateConversationRequest};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use self::items::messages;
use super::{public_id, refusal, store_id};
use crate::{
    app::App,
    body,
    door::responses::{Metadata, input::ItemIn, metadata as check_metadata},
    failure::Refusal,
    identity::Caller,
    openapi,
};

/// A conversation to make.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewConversation)]
struct Made {
    items: Option<Vec<ItemIn>>,
    metadata: Option<Metadata>,
}

/// Other metadata.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConversationChange)]
struct Changed {
    metadata: Option<Metadata>,
}

/// Makes a conversation, with what it begins with.
#[utoipa::path(
    post,
    path = "/v1/conversations",
    operation_id = "make_conversation",
    tag = openapi::CONVERSATIONS,
    request_body = Made,
    responses((status = OK, description = "The conversation.", body = Value), openapi::BodyRefused),
)]
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Json<Value>, Refusal> {
    let body = body::read(request, app.settings()).await?;
    let made = if body.is_empty() {
        Made {
            items: None,
            metadata: None,
        }
    } else {
        body::parse::<Made>(&body)?
    };
    check_metadata("metadata", made.metadata.as_ref())?;
    let request = CreateConversationRequest {
        principal: Some(caller.principal().clone()),
        title: String::new(),
        metadata: made.metadata.unwrap_or_default().into_iter().collect(),
        messages: messages(made.items.unwrap_or_default())?,
    };
    let made = app
        .clients()
        .store()
        .create_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(object(made.into_inner())))
}

/// Shows a conversation.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}",
    operation_id = "show_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`.")),
    responses((status = OK, description = "The conversation.", body = Value), openapi::Refused),
)]
pub(crate) async fn read(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    Ok(Json(object(find(&app, &caller, &store_id(&id)).await?)))
}

async fn find(app: &App, caller: &Caller, id: &str) -> Result<Conversation, Refusal> {
    let request = GetConversationRequest {
        principal: Some(caller.principal().clone()),
        id: id.to_owned(),
    };
    let found = app
        .clients()
        .store()
        .get_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(found.into_inner())
}

/// Gives a conversation other metadata.
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}",
    operation_id = "update_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`.")),
    request_body = Changed,
    responses((status = OK, description = "The conversation.", body = Value), openapi::BodyRefused),
)]
pub(crate) async fn update(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let changed = body::json::<Changed>(request, app.settings()).await?;
    check_metadata("metadata", changed.metadata.as_ref())?;
    let request = UpdateConversationRequest {
        principal: Some(caller.principal().clone()),
        id: store_id(&id),
        metadata: changed.metadata.unwrap_or_default().into_iter().collect(),
    };
    let changed = app
        .clients()
        .store()
        .update_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(object(changed.into_inner())))
}

/// Deletes a conversation, with all that was said in it.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}",
    operation_id = "remove_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`.")),
    responses((status = OK, description = "It is deleted.", body = Value), openapi::Refused),
)]
pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let request = DeleteConversationRequest {
        principal: Some(caller.principal().clone()),
        id: store_id(&id),
    };
    app.clients()
        .store()
        .delete_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(json!({"id": id, "object": "conversation.deleted", "deleted": true})))
}

fn object(conversation: Conversation) -> Value {
    let metadata: Metadata = conversation.metadata.into_iter().collect();
    json!({
        "id": public_id(&conversation.id),
        "object": "conversation",
        "created_at": conversation.created_ms / 1000,
        "metadata": metadata,
    })
}
