//! The items of a conversation. A message that holds several things (a thought, a text, calls) is as many items; [`stored`] says which, and
//! what they are called.

use axum::{
    Json,
    extract::{Path, Request, State},
};
use http::Uri;
use proto::v1::{AddMessagesRequest, DeleteMessageRequest, GetMessageRequest, ListMessagesRequest, Message, StoredMessage};
use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::{
    super::{
        items::{self as stored, Name},
        refusal, store_id,
    },
    find, object,
};
use crate::{
    app::App,
    body,
    door::responses::{
        ItemPage, ItemPaging,
        input::{self, ItemIn},
        list,
    },
    failure::Refusal,
    identity::Caller,
    openapi,
};

/// The most items that are added at once.
const ITEMS: usize = 20;

/// Items to add, at most 20.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = NewItems)]
struct Added {
    items: Vec<ItemIn>,
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
    Ok(Json(list(
        added.flat_map(|stored| stored::of(&conversation_id, stored)).collect(),
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
            stored::before(&conversation_id, &stored.ok_or_else(unknown)?.id, page.newest_first)
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
            let mut of_it = stored::of(&conversation_id, stored);
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
    let mut found = stored.into_iter().flat_map(|stored| stored::of(&conversation_id, stored));
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
    let of_it = stored::of(&conversation_id, stored);
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
pub(super) fn messages(given: Vec<ItemIn>) -> Result<Vec<Message>, Refusal> {
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
