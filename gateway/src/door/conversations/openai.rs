//! `/v1/conversations`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/conversations>): the conversations of the
//! store, with their messages as items. A message that holds several things (a thought, a text, calls) is as many items; [`items`] says
//! which, and what they are called.

use axum::{
    Json,
    extract::{Path, Request, State},
};
use http::Uri;
use proto::v1::{
    AddMessagesRequest, Conversation, CreateConversationRequest, DeleteConversationRequest, DeleteMessageRequest, GetConversationRequest,
    GetMessageRequest, ListMessagesRequest, Message, StoredMessage, UpdateConversationRequest,
};
use serde::Deserialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::{
    items::{self, Name},
    public_id, refusal, store_id,
};
use crate::{
    app::App,
    body,
    door::responses::{
        ItemPage, ItemPaging, Metadata,
        input::{self, ItemIn},
        list as item_list, metadata as check_metadata,
    },
    failure::Refusal,
    identity::Caller,
    openapi,
};

/// The most items that are added at once.
const ITEMS: usize = 20;

/// A conversation to make.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewConversation)]
struct Made {
    items: Option<Vec<ItemIn>>,
    metadata: Option<Metadata>,
}

/// Items to add, at most 20.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewItems)]
struct Added {
    items: Vec<ItemIn>,
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

/// Adds items to a conversation, without asking for an answer.
#[utoipa::path(
    post,
    path = "/v1/conversations/{id}/items",
    operation_id = "add_items",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`.")),
    request_body = Added,
    responses((status = OK, description = "The items.", body = Value), openapi::BodyRefused),
)]
pub(crate) async fn add_items(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let added = body::json::<Added>(request, app.settings()).await?;
    let conversation_id = store_id(&id);
    let request = AddMessagesRequest {
        principal: Some(caller.principal().clone()),
        conversation_id: conversation_id.clone(),
        messages: messages(added.items)?,
    };
    let added = app
        .clients()
        .store()
        .add_messages(request)
        .await
        .map_err(|status| refusal(&status))?;
    let added = added.into_inner().messages.into_iter();
    Ok(Json(item_list(
        added.flat_map(|stored| items::of(&conversation_id, stored)).collect(),
        false,
    )))
}

/// Lists the items of a conversation, the newest first.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items",
    operation_id = "list_items",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`."), ItemPaging),
    responses((status = OK, description = "A part of them.", body = Value), openapi::Refused),
)]
pub(crate) async fn list_items(State(app): State<App>, caller: Caller, Path(id): Path<String>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let page = ItemPage::of(&uri)?;
    let conversation_id = store_id(&id);
    let mut from = match &page.after {
        None => String::new(),
        Some(after) => {
            let stored = message(&app, &caller, &conversation_id, after).await?;
            let unknown = || Refusal::invalid("after", format!("after: there is no item {after:?} in this conversation"));
            items::before(&conversation_id, &stored.ok_or_else(unknown)?.id, page.newest_first)
        }
    };
    let (mut found, mut wanted) = (Vec::new(), page.after.is_none());
    loop {
        let request = ListMessagesRequest {
            principal: Some(caller.principal().clone()),
            conversation_id: conversation_id.clone(),
            page_size: u32::try_from(page.limit + 1).unwrap_or(u32::MAX),
            after_id: from.clone(),
            newest_first: page.newest_first,
        };
        let listed = app
            .clients()
            .store()
            .list_messages(request)
            .await
            .map_err(|status| refusal(&status))?;
        let (mut listed, mut count) = (listed.into_inner(), 0);
        while let Some(stored) = listed.message().await.map_err(|status| refusal(&status))? {
            count += 1;
            from.clone_from(&stored.id);
            let mut of_it = items::of(&conversation_id, stored);
            if page.newest_first {
                of_it.reverse();
            }
            for item in of_it {
                if wanted {
                    found.push(item);
                } else {
                    wanted = page.after.as_deref() == item["id"].as_str();
                }
            }
        }
        if count <= page.limit || found.len() > page.limit {
            return Ok(Json(page.object(found)));
        }
    }
}

/// Shows an item of a conversation.
#[utoipa::path(
    get,
    path = "/v1/conversations/{id}/items/{item}",
    operation_id = "show_item",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`."), ("item" = String, Path, description = "The item's id.")),
    responses((status = OK, description = "The item.", body = Value), openapi::Refused),
)]
pub(crate) async fn read_item(
    State(app): State<App>,
    caller: Caller,
    Path((id, item)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let conversation_id = store_id(&id);
    let stored = message(&app, &caller, &conversation_id, &item).await?;
    let mut found = stored.into_iter().flat_map(|stored| items::of(&conversation_id, stored));
    let found = found.find(|one| one["id"] == item.as_str());
    found.map(Json).ok_or_else(|| unknown(&item))
}

/// Takes an item out of its conversation.
#[utoipa::path(
    delete,
    path = "/v1/conversations/{id}/items/{item}",
    operation_id = "delete_item",
    tag = openapi::CONVERSATIONS,
    params(("id" = String, Path, description = "The conversation's id, `conv_…`."), ("item" = String, Path, description = "The item's id.")),
    responses((status = OK, description = "The conversation.", body = Value), openapi::Refused),
)]
pub(crate) async fn delete_item(
    State(app): State<App>,
    caller: Caller,
    Path((id, item)): Path<(String, String)>,
) -> Result<Json<Value>, Refusal> {
    let conversation_id = store_id(&id);
    let stored = message(&app, &caller, &conversation_id, &item)
        .await?
        .ok_or_else(|| unknown(&item))?;
    let message_id = stored.id.clone();
    let of_it = items::of(&conversation_id, stored);
    let name = Name::parse(&item).filter(|_| of_it.iter().any(|one| one["id"] == item.as_str()));
    let name = name.ok_or_else(|| unknown(&item))?;
    let request = DeleteMessageRequest {
        principal: Some(caller.principal().clone()),
        conversation_id: conversation_id.clone(),
        id: message_id,
        part: name.part(of_it.len()).into(),
        tool_call: name.number,
    };
    app.clients()
        .store()
        .delete_message(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok(Json(object(find(&app, &caller, &conversation_id).await?)))
}

fn unknown(item: &str) -> Refusal {
    Refusal::missing("item_id", format!("there is no item with the id {item:?} in this conversation"))
}

/// The message that an item is a part of. `None` if there is none.
async fn message(app: &App, caller: &Caller, conversation_id: &str, item: &str) -> Result<Option<StoredMessage>, Refusal> {
    find(app, caller, conversation_id).await?;
    let Some(name) = Name::parse(item) else { return Ok(None) };
    let (id, stream_id) = name.message(conversation_id);
    let request = GetMessageRequest {
        principal: Some(caller.principal().clone()),
        conversation_id: conversation_id.to_owned(),
        id,
        stream_id,
    };
    match app.clients().store().get_message(request).await {
        Ok(stored) => Ok(Some(stored.into_inner())),
        Err(status) => match refusal(&status) {
            refused if refused.status() == http::StatusCode::NOT_FOUND => Ok(None),
            refused => Err(refused),
        },
    }
}

/// Items as messages.
fn messages(given: Vec<ItemIn>) -> Result<Vec<Message>, Refusal> {
    let mut messages = Vec::new();
    for (index, item) in input::read("items", given, ITEMS)?.into_iter().enumerate() {
        if item.reference().is_some() {
            let param = format!("items[{index}].type");
            let message = format!("{param}: a conversation takes items themselves, not references");
            return Err(Refusal::invalid(param, message));
        }
        item.say(&mut messages);
    }
    Ok(messages)
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
