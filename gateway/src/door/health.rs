//! `GET /health` (what can be reached, in detail), `GET /ready` (whether a first chat would be answered) and `GET /metrics`. All three
//! tell what the routers said last; nobody is asked.

use axum::{
    Json,
    extract::State,
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, header};
use proto::v1::{Failure, Reason, RouterStatus, WorkerState, WorkerStatus};
use serde_json::{Value, json};

use crate::{
    app::App,
    clients::Router,
    failure::{Body, Refusal},
    openapi,
};

/// Says whether a router, a worker and the store are there, and how each is.
#[utoipa::path(
    get,
    path = "/health",
    operation_id = "health",
    tag = openapi::OPERATORS,
    responses(
        (status = OK, description = "All are there.", body = Object),
        (status = SERVICE_UNAVAILABLE, description = "One is not: the body tells which.", body = Object),
    ),
)]
pub(crate) async fn health(State(app): State<App>) -> Response {
    let routers: Vec<Value> = app.clients().routers().iter().map(|router| router_object(router)).collect();
    let statuses = app.clients().statuses();
    let router = app.clients().routers().iter().any(|router| router.is_live());
    let store = statuses.iter().any(|status| status.store_up);
    let workers = statuses.iter().flat_map(|status| &status.workers);
    let worker = workers.clone().any(|worker| worker.state() == WorkerState::Ready);
    let healthy = router && store && worker;
    let body = json!({
        "status": if healthy { "ok" } else { "unhealthy" },
        "router": state(router),
        "worker": state(worker),
        "store": state(store),
        "draining": app.drain().is_draining(),
        "routers": routers,
    });
    let status = if healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(body)).into_response()
}

/// Says whether a first chat would be answered.
#[utoipa::path(
    get,
    path = "/ready",
    operation_id = "ready",
    tag = openapi::OPERATORS,
    responses((status = OK, description = "It would.", body = Object), (status = SERVICE_UNAVAILABLE, description = "It would not.", body = Body<'_>)),
)]
pub(crate) async fn ready(State(app): State<App>) -> Result<Json<Value>, Refusal> {
    if app.drain().is_draining() {
        return Err(Failure::new(Reason::Draining, "this gateway is stopping").into());
    }
    let percent = app.settings().ready_queue_percent;
    if app.clients().routers().iter().any(|router| router.is_ready(percent)) {
        return Ok(Json(json!({ "status": "ready" })));
    }
    Err(Failure::new(
        Reason::Unavailable,
        "no router is connected that has a ready worker with a chat model, does not drain, and has room in its queue; see /health",
    )
    .into())
}

/// Tells the metrics, for Prometheus.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "metrics",
    tag = openapi::OPERATORS,
    responses((status = OK, description = "In OpenMetrics' text format.", body = String, content_type = "application/openmetrics-text")),
)]
pub(crate) async fn metrics(State(app): State<App>) -> Response {
    let depth: u32 = app.clients().statuses().iter().map(|status| status.queue_depth).sum();
    app.metrics().queue_depth.set(i64::from(depth));
    let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, kind)], app.metrics().encode()).into_response()
}

fn state(up: bool) -> &'static str {
    if up { "up" } else { "down" }
}

fn router_object(router: &Router) -> Value {
    let mut object = json!({
        "address": router.address(),
        "connected": router.is_live(),
        "answers": router.answers(),
    });
    if let Some(status) = router.status() {
        let status: &RouterStatus = &status;
        object["draining"] = status.draining.into();
        object["queue_depth"] = status.queue_depth.into();
        object["queue_limit"] = status.queue_limit.into();
        object["running"] = status.running.into();
        object["store"] = state(status.store_up).into();
        object["workers"] = status.workers.iter().map(worker_object).collect();
    }
    object
}

fn worker_object(worker: &WorkerStatus) -> Value {
    let state = match worker.state() {
        WorkerState::Unspecified => "unknown",
        WorkerState::Connecting => "connecting",
        WorkerState::Ready => "ready",
        WorkerState::Draining => "draining",
        WorkerState::Ejected => "ejected",
    };
    let mut object = json!({ "address": worker.address, "state": state });
    if !worker.reason.is_empty() {
        object["reason"] = worker.reason.as_str().into();
    }
    if let Some(load) = &worker.load {
        object["slots"] = load.slots.into();
        object["busy"] = load.busy.into();
        object["queued"] = load.queued.into();
    }
    object
}
