//! `GET /v1/admin/requests`: the request log of the caller's tenant, the latest first. For the role `admin` only. It says who asked which
//! model when, by which door and with which key, what it took and how it ended; what was said is not in it.

use axum::{Json, extract::State};
use http::{StatusCode, Uri};
use proto::v1::{ListRequestsRequest, LogScope, LoggedRequest};
use serde::Serialize;
use utoipa::{IntoParams, ToSchema};

use super::conversations::{List, Page, Paging, refusal};
use crate::{
    app::App,
    body::Query,
    failure::Refusal,
    identity::{Caller, Role},
    openapi,
};

/// Which times are wanted.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "for the document: [`list`] reads them by name")]
struct Times {
    /// Logged then or later, in seconds since 1970.
    from: Option<u32>,
    /// Logged before then.
    until: Option<u32>,
}

/// A request, as it was logged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = LoggedRequest)]
pub(crate) struct Line {
    id: String,
    /// `request`.
    object: &'static str,
    /// Who asked. Missing: anonymous.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    user: String,
    /// The id of the key that was shown.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    key_id: String,
    /// The door. Missing: gRPC.
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    door: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    request_id: String,
    stream_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    conversation_id: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    model: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    #[schema(required = false)]
    worker: String,
    /// `finished`, `failed`, `cancelled` or `refused`.
    state: String,
    /// How it ended: `stop`, `length`, `tool_calls`, `cancelled`, or the reason of the failure or refusal.
    finish_reason: String,
    /// The HTTP status.
    status: u32,
    prompt_tokens: u32,
    completion_tokens: u32,
    reasoning_tokens: u32,
    cached_tokens: u32,
    /// In seconds since 1970.
    started_at: i64,
    /// Likewise.
    logged_at: i64,
    /// Milliseconds to the first token. 0: none came.
    ttft_ms: u32,
    /// Milliseconds in all.
    duration_ms: u32,
}

/// Lists the requests of the caller's tenant, the latest first.
#[utoipa::path(
    get,
    path = "/v1/admin/requests",
    operation_id = "list_requests",
    tag = openapi::OPERATORS,
    params(Paging, Times),
    responses(
        (status = OK, description = "A part of them.", body = List<Line>),
        (status = FORBIDDEN, description = "It takes the role `admin`."),
        openapi::Refused,
    ),
)]
pub(crate) async fn list(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Json<List<Line>>, Refusal> {
    if caller.role() != Role::Admin {
        let message = "the request log is read with the role admin, which this caller does not have";
        return Err(Refusal::new(StatusCode::FORBIDDEN, "forbidden", message));
    }
    let page = Page::of(&uri)?;
    let query = Query::of(&uri);
    let time = |name| {
        let seconds = query.value::<u32>(name, "a time in seconds since 1970")?;
        Ok::<_, Refusal>(seconds.map_or(0, |seconds| i64::from(seconds) * 1000))
    };
    let request = ListRequestsRequest {
        principal: Some(caller.principal().clone()),
        scope: LogScope::Tenant.into(),
        from_ms: time("from")?,
        until_ms: time("until")?,
        page_size: page.limit + 1,
        after: page.after.clone(),
        stream_ids: Vec::new(),
    };
    let found = app
        .clients()
        .store()
        .list_requests(request)
        .await
        .map_err(|status| refusal(&status))?;
    page.object(found.into_inner(), |logged| (logged.cursor.clone(), object(logged)))
        .await
}

fn object(logged: LoggedRequest) -> Line {
    let turn = logged.turn.unwrap_or_default();
    let usage = turn.usage.unwrap_or_default();
    Line {
        id: logged.cursor,
        object: "request",
        user: turn.principal.map(|principal| principal.user_id).unwrap_or_default(),
        key_id: turn.key_id,
        door: turn.door,
        request_id: turn.request_id,
        stream_id: turn.stream_id,
        conversation_id: turn.conversation_id,
        model: turn.model,
        worker: turn.worker,
        state: turn.state,
        finish_reason: turn.finish_reason,
        status: if turn.status == 0 {
            StatusCode::OK.as_u16().into()
        } else {
            turn.status
        },
        prompt_tokens: usage.prompt_tokens,
        completion_tokens: usage.completion_tokens,
        reasoning_tokens: usage.reasoning_tokens,
        cached_tokens: usage.cached_tokens,
        started_at: turn.started_ms / 1000,
        logged_at: logged.logged_ms / 1000,
        ttft_ms: turn.ttft_ms,
        duration_ms: turn.duration_ms,
    }
}
