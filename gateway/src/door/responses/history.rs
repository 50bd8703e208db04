//! What came before a response: those that it goes on from, and the items that its input only names.

use proto::v1::{ListMessagesRequest, ListRecordsRequest, Message, Principal, Role};
use serde_json::Value;

use super::{
    input::ItemIn,
    item::Item,
    kept::{self, Kept},
    resource::Standing,
};
use crate::{app::App, door::conversations, failure::Refusal};

/// The most responses in a row. What is older is left out.
const RESPONSES: u32 = 512;
/// The most messages of a conversation: as many as the store tells a model of.
const MESSAGES: usize = 4096;
/// The most that are asked for at once.
const PAGE: u32 = 1000;

/// All that was said up to the end of the response `id`, oldest first.
///
/// # Errors
/// There is no such response, it still runs, or the store cannot be reached.
pub(super) async fn up_to(app: &App, principal: &Principal, id: &str) -> Result<Vec<Message>, Refusal> {
    let stream_id = kept::stream_id(id).map_err(|_| unknown(id))?;
    let request = ListRecordsRequest {
        principal: Some(principal.clone()),
        stream_id: stream_id.to_owned(),
        page_size: RESPONSES,
    };
    let status = |status: tonic::Status| {
        let refusal = kept::refusal(&status, stream_id);
        if refusal.status() == http::StatusCode::NOT_FOUND {
            unknown(id)
        } else {
            refusal
        }
    };
    let mut found = app.clients().store().list_records(request).await.map_err(status)?.into_inner();
    let mut turns = Vec::new();
    while let Some(record) = found.message().await.map_err(status)? {
        let mut kept = Kept::of(record)?;
        let answer = kept
            .answer
            .take_if(|answer| answer.state != "running")
            .and_then(|answer| answer.message);
        let output = match answer {
            Some(message) => vec![message],
            None => just_now(app, principal, &kept.document.outline.stream_id, id).await?,
        };
        let mut turn = messages(kept.document.input)?;
        turn.extend(output.into_iter().filter(|message| *message != silent()));
        turns.push(turn);
    }
    Ok(turns.into_iter().rev().flatten().collect())
}

/// All that was said in a conversation, oldest first; past [`MESSAGES`] the oldest are left out, as the store does for an answer.
///
/// # Errors
/// There is no such conversation, or the store cannot be reached.
pub(super) async fn of_conversation(app: &App, principal: &Principal, conversation_id: String) -> Result<Vec<Message>, Refusal> {
    let mut request = ListMessagesRequest {
        principal: Some(principal.clone()),
        conversation_id,
        page_size: PAGE,
        newest_first: true,
        ..ListMessagesRequest::default()
    };
    let mut messages = Vec::new();
    while messages.len() < MESSAGES {
        let listed = app.clients().store().list_messages(request.clone()).await;
        let mut listed = listed.map_err(|status| conversations::refusal(&status))?.into_inner();
        let mut listed_now = 0;
        while let Some(stored) = listed.message().await.map_err(|status| conversations::refusal(&status))? {
            request.after_id.clone_from(&stored.id);
            listed_now += 1;
            messages.extend(stored.message.filter(|message| *message != silent()));
        }
        if listed_now < PAGE {
            break;
        }
    }
    messages.truncate(MESSAGES);
    messages.reverse();
    Ok(messages)
}

/// What a response said whose end is on the way to the store.
async fn just_now(app: &App, principal: &Principal, stream_id: &str, id: &str) -> Result<Vec<Message>, Refusal> {
    let mut kept = kept::find(app, principal, stream_id).await?;
    let (standing, output) = kept.look(app, principal).await?;
    if standing != Standing::Ended {
        let message = format!("previous_response_id: the response {id:?} has not ended yet");
        return Err(Refusal::invalid("previous_response_id", message));
    }
    messages(output.objects())
}

fn silent() -> Message {
    Message {
        role: Role::Assistant.into(),
        ..Message::default()
    }
}

fn unknown(id: &str) -> Refusal {
    let message = format!("previous_response_id: there is no response with the id {id:?}");
    Refusal::invalid("previous_response_id", message).with_code("previous_response_not_found")
}

/// Items that were shown once, as messages.
fn messages(items: Vec<Value>) -> Result<Vec<Message>, Refusal> {
    let mut messages = Vec::new();
    for item in items {
        read(item)?.say(&mut messages);
    }
    Ok(messages)
}

fn read(item: Value) -> Result<Item, Refusal> {
    let broken = |error: serde_json::Error| proto::v1::Failure::new(proto::v1::Reason::Internal, format!("a stored item: {error}"));
    serde_json::from_value::<ItemIn>(item).map_err(broken)?.read("item")
}

/// The items that are meant by those that only name another one.
///
/// # Errors
/// There is no such item, or the store cannot be reached.
pub(super) async fn resolve(app: &App, principal: &Principal, items: Vec<Item>) -> Result<Vec<Item>, Refusal> {
    let mut resolved = Vec::with_capacity(items.len());
    for (index, item) in items.into_iter().enumerate() {
        let Some(id) = item.reference() else {
            resolved.push(item);
            continue;
        };
        let at = format!("input[{index}].id");
        let missing = || Refusal::missing(at.clone(), format!("{at}: there is no item with the id {id:?}"));
        let found = named(app, principal, id).await?;
        resolved.push(read(found.ok_or_else(missing)?)?);
    }
    Ok(resolved)
}

/// The item of that id, which tells whose response it belongs to.
async fn named(app: &App, principal: &Principal, id: &str) -> Result<Option<Value>, Refusal> {
    let base = id.split_once('_').and_then(|(_, rest)| rest.rsplit_once('_')).map(|(base, _)| base);
    let Some(stream_id) = base.map(|base| base.strip_suffix(super::OF_INPUT).unwrap_or(base)) else {
        return Ok(None);
    };
    let mut kept = match kept::find(app, principal, stream_id).await {
        Ok(kept) => kept,
        Err(refusal) if refusal.status() == http::StatusCode::NOT_FOUND => return Ok(None),
        Err(refusal) => return Err(refusal),
    };
    let (_, output) = kept.look(app, principal).await?;
    let mut items = kept.document.input.into_iter().chain(output.objects());
    Ok(items.find(|item| item["id"] == id))
}
