//! Responses that were made before: shown, streamed again from any event on, cancelled, deleted, and the items of their input.

use axum::{
    Json,
    body::Body,
    extract::{Path, State},
    response::{IntoResponse as _, Response},
};
use bytes::BytesMut;
use http::{HeaderValue, Uri, header};
use proto::v1::{Failure, Principal, Reason};
use serde_json::{Value, json};
use utoipa::IntoParams;

use super::{
    events::Events,
    kept::{self, Kept},
    page::{ItemPage, ItemPaging},
};
use crate::{
    account::Account,
    app::App,
    body::Query,
    failure::Refusal,
    identity::Caller,
    openapi, sse,
    stack::{Arrival, STREAM_ID},
    turn,
};

/// Shows a response again, or streams it, from any event on: while it runs, and for as long as it is kept.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}",
    operation_id = "read_response",
    tag = openapi::OPENAI,
    params(("id" = String, Path, description = "The response's id, `resp_…`."), Again),
    responses(
        (status = OK, description = "The response.", content((Value = "application/json"), (openapi::Sent = "text/event-stream"))),
        openapi::Refused,
    ),
)]
pub(crate) async fn read(State(app): State<App>, arrival: Arrival, caller: Caller, Path(id): Path<String>, uri: Uri) -> Response {
    let query = Query::of(&uri);
    let after = match after(&query) {
        Ok(after) => after,
        Err(refusal) => return refusal.into_response(),
    };
    if after.stream {
        let account = Account::open(&app, arrival, caller, "responses");
        return stream(&app, account, &id, after.number).await;
    }
    show(&app, caller.principal(), &id).await.unwrap_or_else(Refusal::into_response)
}

/// How it may be asked for.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the document only: the query is read field by field")]
struct Again {
    /// As events.
    stream: Option<bool>,
    /// Only with `stream`: the `sequence_number` of the last event that the client has.
    starting_after: Option<u64>,
}

/// Whether to stream, and after which event.
struct After {
    stream: bool,
    number: Option<u64>,
}

fn after(query: &Query) -> Result<After, Refusal> {
    let stream = query.value("stream", "true or false")?.unwrap_or(false);
    let number = query.value("starting_after", "the sequence_number of an event")?;
    if number.is_some() && !stream {
        return Err(Refusal::invalid(
            "starting_after",
            "starting_after: only allowed when stream is true",
        ));
    }
    Ok(After { stream, number })
}

async fn show(app: &App, principal: &Principal, id: &str) -> Result<Response, Refusal> {
    let mut kept = kept::find(app, principal, kept::stream_id(id)?).await?;
    let (standing, output) = kept.look(app, principal).await?;
    let outline = &kept.document.outline;
    Ok(object(outline.stream_id(), &outline.resource(standing, &output)))
}

/// Streams a response: from the store if it has ended, else from where it runs.
async fn stream(app: &App, mut account: Account, id: &str, after: Option<u64>) -> Response {
    let found = async {
        let stream_id = kept::stream_id(id)?;
        let principal = account.caller().principal().clone();
        let kept = kept::find(app, &principal, stream_id).await?;
        if kept.entries().is_some() {
            return Ok((kept, None));
        }
        let lost = match crate::door::resume(app, &mut account, stream_id, 0).await {
            Ok(Some(answer)) => return Ok((kept, Some(answer))),
            Ok(None) => Reason::Interrupted.as_word(),
            Err(refusal) => match refusal.code() {
                code if [Reason::NotFound, Reason::Expired, Reason::Interrupted]
                    .iter()
                    .any(|reason| reason.as_word() == code) =>
                {
                    code
                }
                _ => return Err(refusal),
            },
        };
        let kept = kept::find(app, &principal, stream_id).await?; // it may have ended meanwhile
        if kept.entries().is_some() || kept.is_lost() || lost == Reason::Interrupted.as_word() {
            return Ok((kept, None));
        }
        Err(Refusal::from(Failure {
            retry_after_ms: 1000,
            ..Failure::new(Reason::Unavailable, "the response runs, but nobody here knows where")
        }))
    };
    match found.await {
        Ok((kept, Some(answer))) => {
            let mut outline = kept.document.outline;
            outline.model.clone_from(&answer.head().model);
            sse::response(app, account, answer, Events::new(outline, after), None)
        }
        Ok((kept, None)) => {
            account.nothing_left();
            replay(kept, after)
        }
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

/// All events of a response that has ended.
fn replay(kept: Kept, after: Option<u64>) -> Response {
    let entries = kept.entries().unwrap_or_else(|| vec![kept::interrupted()]);
    let stream_id = kept.document.outline.stream_id().to_owned();
    let events: BytesMut = Events::new(kept.document.outline, after).whole(&entries);
    named(sse::events(Body::from(events.freeze())), &stream_id)
}

/// A response that was made by the same request before, and has ended.
pub(super) fn before(kept: Kept, stream: bool) -> Response {
    if stream {
        return replay(kept, None);
    }
    let entries = kept.entries().unwrap_or_else(|| vec![kept::interrupted()]);
    let outline = &kept.document.outline;
    let output = super::Output::of(outline.stream_id(), &entries);
    object(outline.stream_id(), &outline.resource(super::Standing::Ended, &output))
}

/// A response of one object.
pub(super) fn object(stream_id: &str, object: &Value) -> Response {
    let json = [(header::CONTENT_TYPE, HeaderValue::from_static("application/json"))];
    named((json, object.to_string()).into_response(), stream_id)
}

fn named(mut response: Response, stream_id: &str) -> Response {
    if let Ok(stream_id) = HeaderValue::from_str(stream_id) {
        response.headers_mut().insert(STREAM_ID, stream_id);
    }
    response
}

/// Ends a response. One that has ended stays as it is.
#[utoipa::path(
    post,
    path = "/v1/responses/{id}/cancel",
    operation_id = "cancel_response",
    tag = openapi::OPENAI,
    params(("id" = String, Path, description = "The response's id, `resp_…`.")),
    responses((status = OK, description = "The response.", body = Value), openapi::Refused),
)]
pub(crate) async fn cancel(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Response, Refusal> {
    let (principal, stream_id) = (caller.principal(), kept::stream_id(&id)?);
    let kept = kept::find(&app, principal, stream_id).await?;
    if kept.entries().is_none() {
        stop(&app, stream_id, principal).await?;
    }
    show(&app, principal, &id).await
}

/// Ends an answer, if somebody makes it.
async fn stop(app: &App, stream_id: &str, principal: &Principal) -> Result<(), Refusal> {
    match turn::cancel(app.clients(), stream_id, principal).await {
        Ok(_) => Ok(()),
        Err(failure) if matches!(failure.reason(), Reason::NotFound | Reason::Expired | Reason::Interrupted) => Ok(()),
        Err(failure) => Err(failure.into()),
    }
}

/// Deletes a response. One that runs is ended first.
#[utoipa::path(
    delete,
    path = "/v1/responses/{id}",
    operation_id = "delete_response",
    tag = openapi::OPENAI,
    params(("id" = String, Path, description = "The response's id, `resp_…`.")),
    responses((status = OK, description = "It is deleted.", body = Value), openapi::Refused),
)]
pub(crate) async fn delete(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<Value>, Refusal> {
    let (principal, stream_id) = (caller.principal(), kept::stream_id(&id)?);
    let kept = kept::find(&app, principal, stream_id).await?;
    if kept.entries().is_none() {
        stop(&app, stream_id, principal).await?;
    }
    kept::delete(&app, principal, stream_id).await?;
    Ok(Json(json!({"id": id, "object": "response", "deleted": true})))
}

/// Lists the items of a response's input, the newest first.
#[utoipa::path(
    get,
    path = "/v1/responses/{id}/input_items",
    operation_id = "list_input_items",
    tag = openapi::OPENAI,
    params(("id" = String, Path, description = "The response's id, `resp_…`."), ItemPaging),
    responses((status = OK, description = "A part of them.", body = Value), openapi::Refused),
)]
pub(crate) async fn input_items(State(app): State<App>, caller: Caller, Path(id): Path<String>, uri: Uri) -> Result<Json<Value>, Refusal> {
    let page = ItemPage::of(&uri)?;
    let kept = kept::find(&app, caller.principal(), kept::stream_id(&id)?).await?;
    let mut items = kept.document.input;
    if page.newest_first {
        items.reverse();
    }
    let first = match &page.after {
        None => 0,
        Some(after) => {
            let place = items.iter().position(|item| item["id"] == after.as_str());
            let missing = || Refusal::invalid("after", format!("after: there is no item {after:?} in the input"));
            place.ok_or_else(missing)? + 1
        }
    };
    Ok(Json(page.object(items.into_iter().skip(first).take(page.limit + 1).collect())))
}
