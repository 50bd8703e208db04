//! `/conversations`: make, list, read, rename and delete them, straight from the store. A chat joins one by its `conversation_id`.

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, Uri};
use proto::v1::{
    Conversation, CreateConversationRequest, DeleteConversationRequest, Failure, GetConversationRequest, ListConversationsRequest,
    ListMessagesRequest, Reason, RenameConversationRequest, Role, StoredMessage,
};
use serde::Deserialize;
use serde_json::{Value, json};
use tonic::{Status, Streaming};

use crate::{
    app::App,
    body::{self, Query},
    failure::Refusal,
    identity::Caller,
};

/// The longest title, in characters.
const TITLE: usize = 200;
/// The largest page: one less than the store gives, as one more tells whether there are more.
const PAGE: u32 = 999;
/// A page where nothing was said.
const PAGE_DEFAULT: u32 = 100;

#[derive(Debug, Deserialize)]
struct Title {
    title: Option<String>,
}

/// `POST /conversations`.
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, Refusal> {
    let title = title(body::json::<Title>(request, app.settings()).await?)?.unwrap_or_default();
    let request = CreateConversationRequest {
        principal: Some(caller.principal().clone()),
        title,
    };
    let conversation = app
        .clients()
        .store()
        .create_conversation(request)
        .await
        .map_err(|status| refusal(&status))?;
    Ok((StatusCode::CREATED, Json(object(&conversation.into_inner()))).into_response())
}

/// `GET /conversations?limit=&after=`, the last changed first.
pub(crate) async fn list(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Json<Value>, Refusal> {
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

/// `GET /conversations/{id}`.
pub(crate) async fn read(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
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

/// `GET /conversations/{id}/messages?limit=&after=`, the oldest first.
pub(crate) async fn messages(State(app): State<App>, caller: Caller, Path(id): Path<String>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let page = Page::of(&uri)?;
    let request = ListMessagesRequest {
        principal: Some(caller.principal().clone()),
        conversation_id: id,
        page_size: page.limit + 1,
        after_id: page.after.clone(),
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

/// `PATCH /conversations/{id}` with a title.
pub(crate) async fn rename(
    State(app): State<App>,
    caller: Caller,
    Path(id): Path<String>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
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

/// `DELETE /conversations/{id}`.
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

/// A store that cannot be reached is said to be so.
fn refusal(status: &Status) -> Refusal {
    let mut failure = Failure::from_status(status);
    if failure.reason() == Reason::Unavailable {
        failure = Failure::new(Reason::StoreUnavailable, "the conversation store cannot be reached");
    }
    failure.into()
}

/// Which part of a list is wanted.
struct Page {
    limit: u32,
    after: String,
}

impl Page {
    fn of(uri: &Uri) -> Result<Self, Refusal> {
        let query = Query::of(uri);
        let limit = query.value("limit", "a number")?.unwrap_or(PAGE_DEFAULT);
        if !(1..=PAGE).contains(&limit) {
            return Err(Refusal::invalid(
                "limit",
                format!("limit: expected a number from 1 to {PAGE}, got {limit}"),
            ));
        }
        Ok(Self {
            limit,
            after: query.text("after").unwrap_or_default().to_owned(),
        })
    }

    async fn object<T>(&self, mut found: Streaming<T>, object: impl Fn(T) -> (String, Value)) -> Result<Json<Value>, Refusal> {
        let limit = self.limit as usize;
        let (mut data, mut last, mut has_more) = (Vec::new(), None, false);
        while let Some(item) = found.message().await.map_err(|status| refusal(&status))? {
            if data.len() == limit {
                has_more = true;
                break;
            }
            let (id, item) = object(item);
            last = Some(id);
            data.push(item);
        }
        Ok(Json(
            json!({ "object": "list", "data": data, "has_more": has_more, "last_id": last }),
        ))
    }
}

fn object(conversation: &Conversation) -> Value {
    json!({
        "id": conversation.id,
        "object": "conversation",
        "title": conversation.title,
        "created_at": conversation.created_ms / 1000,
        "updated_at": conversation.updated_ms / 1000,
        "messages": conversation.messages,
    })
}

fn message_object(stored: StoredMessage) -> Value {
    let message = stored.message.unwrap_or_default();
    let role = match message.role() {
        Role::Unspecified | Role::User => "user",
        Role::System => "system",
        Role::Assistant => "assistant",
        Role::Tool => "tool",
        Role::Developer => "developer",
    };
    let mut object = json!({
        "id": stored.id,
        "object": "conversation.message",
        "role": role,
        "content": message.text,
        "created_at": stored.created_ms / 1000,
    });
    if !stored.stream_id.is_empty() {
        object["stream_id"] = stored.stream_id.into();
    }
    if !stored.state.is_empty() {
        object["state"] = stored.state.into();
    }
    if !message.reasoning.is_empty() {
        object["reasoning_content"] = message.reasoning.into();
    }
    object
}
