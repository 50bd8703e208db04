//! `/conversations`: make, list, read, rename and delete them, straight from the store. A chat joins one by its `conversation_id`.

mod items;
mod object;
pub(crate) mod openai;
mod page;

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, Uri};
use proto::v1::{
    CreateConversationRequest, DeleteConversationRequest, Failure, GetConversationRequest, ListConversationsRequest, ListMessagesRequest,
    Reason, RenameConversationRequest,
};
use serde::Deserialize;
use tonic::Status;
use utoipa::ToSchema;

use self::object::{ConversationOut, MessageOut, message_object, object};
pub(super) use self::page::{List, Page, Paging};
use crate::{app::App, body, failure::Refusal, identity::Caller, openapi};

/// The longest title, in characters.
const TITLE: usize = 200;
/// What the ids of OpenAI's API begin with.
const PREFIX: &str = "conv_";

/// A conversation's title.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ConversationTitle, examples(json!({"title": "Cats"})))]
struct Title {
    #[schema(max_length = 200)]
    title: Option<String>,
}

/// Makes a conversation.
#[utoipa::path(
    post,
    path = "/conversations",
    operation_id = "create_conversation",
    tag = openapi::CONVERSATIONS,
    request_body = Title,
    responses((status = CREATED, description = "It is made.", body = ConversationOut), openapi::BodyRefused),
)]
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, Refusal> {
    let title = title(body::json::<Title>(request, app.settings()).await?)?.unwrap_or_default();
    let request = CreateConversationRequest {
        principal: Some(caller.principal().clone()),
        title,
        ..CreateConversationRequest::default()
    };
    let conversation = app
        .clients()
        .store()
        .create_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok((StatusCode::CREATED, Json(object(&conversation.into_inner()))).into_response())
}

/// Lists conversations, the last changed first.
#[utoipa::path(
    get,
    path = "/conversations",
    operation_id = "list_conversations",
    tag = openapi::CONVERSATIONS,
    params(Paging),
    responses((status = OK, description = "A part of them.", body = List<ConversationOut>), openapi::Refused),
)]
pub(crate) async fn list(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Json<List<ConversationOut>>, Refusal> {
    let page = Page::of(&uri)?;
    let request = ListConversationsRequest {
        principal: Some(caller.principal().clone()),
        page_size: page.limit + 1,
        after_id: page.after.clone(),
    };
    let found = app
        .clients()
        .store()
        .list_conversations(request)
        .await
        .map_err(|status| refusal(&status))?;
    page.object(found.into_inner(), |conversation| (conversation.id.clone(), object(&conversation)))
        .await
}

/// Reads one, without its messages.
#[utoipa::path(
    get,
    path = "/conversations/{id}",
    operation_id = "read_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id.")),
    responses((status = OK, description = "The conversation.", body = ConversationOut), openapi::Refused),
)]
pub(crate) async fn read(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<ConversationOut>, Refusal> {
    let request = GetConversationRequest {
        principal: Some(caller.principal().clone()),
        id,
    };
    let conversation = app
        .clients()
        .store()
        .get_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(object(&conversation.into_inner())))
}

/// Lists its messages, the oldest first.
#[utoipa::path(
    get,
    path = "/conversations/{id}/messages",
    operation_id = "list_messages",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id."), Paging),
    responses((status = OK, description = "A part of them.", body = List<MessageOut>), openapi::Refused),
)]
pub(crate) async fn messages(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    uri: Uri,
) -> Result<Json<List<MessageOut>>, Refusal> {
    let page = Page::of(&uri)?;
    let request = ListMessagesRequest {
        principal: Some(caller.principal().clone()),
        conversation_id: id,
        page_size: page.limit + 1,
        after_id: page.after.clone(),
        newest_first: false,
    };
    let found = app
        .clients()
        .store()
        .list_messages(request)
        .await
        .map_err(|status| refusal(&status))?;
    page.object(found.into_inner(), |message| (message.id.clone(), message_object(message)))
        .await
}

/// Renames it.
#[utoipa::path(
    patch,
    path = "/conversations/{id}",
    operation_id = "rename_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id.")),
    request_body = Title,
    responses((status = OK, description = "It is renamed.", body = ConversationOut), openapi::BodyRefused),
)]
pub(crate) async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<ConversationOut>, Refusal> {
    let title = title(body::json::<Title>(request, app.settings()).await?)?.unwrap_or_default();
    if title.is_empty() {
        return Err(Refusal::invalid("title", format!("title: expected 1 to {TITLE} characters")));
    }
    let request = RenameConversationRequest {
        principal: Some(caller.principal().clone()),
        id,
        title,
    };
    let conversation = app
        .clients()
        .store()
        .rename_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(object(&conversation.into_inner())))
}

/// Deletes it with all its messages.
#[utoipa::path(
    delete,
    path = "/conversations/{id}",
    operation_id = "delete_conversation",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id.")),
    responses((status = NO_CONTENT, description = "It is deleted."), openapi::Refused),
)]
pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<StatusCode, Refusal> {
    let request = DeleteConversationRequest {
        principal: Some(caller.principal().clone()),
        id,
    };
    app.clients()
        .store()
        .delete_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(StatusCode::NO_CONTENT)
}

fn title(given: Title) -> Result<Option<String>, Refusal> {
    match &given.title {
        Some(title) if title.chars().count() > TITLE => {
            Err(Refusal::invalid("title", format!("title: expected at most {TITLE} characters")))
        }
        _ => Ok(given.title),
    }
}

/// What the store has said. One that cannot be reached is said to be so.
pub(crate) fn failure(status: &Status) -> Failure {
    let failure = Failure::from_status(status);
    if failure.reason() == Reason::Unavailable {
        return Failure::new(Reason::StoreUnavailable, "the conversation store cannot be reached");
    }
    failure
}

pub(super) fn refusal(status: &Status) -> Refusal {
    failure(status).into()
}

/// A conversation's id as OpenAI's API writes it.
pub(crate) fn public_id(id: &str) -> String {
    format!("{PREFIX}{}", items::plain(id))
}

/// And as the store does.
pub(crate) fn store_id(id: &str) -> String {
    let plain = id.strip_prefix(PREFIX).unwrap_or(id);
    match uuid::Uuid::try_parse(plain) {
        Ok(uuid) => uuid.hyphenated().to_string(),
        Err(_) => plain.to_owned(),
    }
}
