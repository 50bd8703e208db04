//! `POST /v1/tickets`: short-lived credentials for what a browser cannot send a key with. In:
//!
//! - `{}` or `{"for": "websocket"}`: a ticket for one WebSocket, to be offered as a subprotocol within 30 seconds.
//! - `{"for": "stream", "stream_id": "…"}`: a token to read that answer, as `stream_token=` in the query.
//! - `{"for": "start", "query": {"q": "…", …}}`: a token to start one answer by `GET` with just this query, and to read it. The
//!   `idempotency_key` that comes with it (or was sent) goes into the query, too.

use axum::{
    Json,
    extract::{Request, State},
};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::{
    app::App,
    body,
    event_id::is_stream_id,
    failure::Refusal,
    idempotency::{Key, fingerprint},
    identity::{
        Caller,
        credential::{PROTOCOL, TICKET},
        hex,
        token::Grant,
    },
    openapi,
};

/// What a ticket is wanted for.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = TicketWanted)]
struct Asked {
    /// `websocket`, if not said; `stream` for reading an answer; `start` for starting one and reading it.
    #[schema(pattern = "^(websocket|stream|start)$")]
    r#for: Option<String>,
    /// With `stream`: which answer.
    stream_id: Option<String>,
    /// With `start`: what will be asked, by its names in the address.
    #[schema(value_type = Option<std::collections::BTreeMap<String, String>>)]
    query: Option<Map<String, Value>>,
    /// With `start`: the key that will stand beside it. Without it, one is made.
    #[schema(min_length = 1, max_length = 255)]
    idempotency_key: Option<String>,
}

/// A ticket.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Ticket {
    /// `ticket`.
    object: &'static str,
    /// What for.
    r#for: &'static str,
    /// For a WebSocket: the subprotocols to offer.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    protocols: Option<[String; 2]>,
    /// For an answer that is to be read: its name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stream_id: Option<String>,
    /// For one that is to be started: what stands in the query, too.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    idempotency_key: Option<String>,
    /// For both: what stands in the query.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    stream_token: Option<String>,
    /// In seconds since 1970.
    expires_at: i64,
}

/// Makes a ticket for a WebSocket, or a token for an event stream.
#[utoipa::path(
    post,
    path = "/v1/tickets",
    operation_id = "create_ticket",
    tag = openapi::IDENTITY,
    request_body = Asked,
    responses((status = OK, description = "It is made.", body = Ticket), openapi::BodyRefused),
)]
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Json<Ticket>, Refusal> {
    let asked: Asked = body::json(request, app.settings()).await?;
    let ticket = match asked.r#for.as_deref() {
        None | Some("websocket") => socket(&app, &caller)?,
        Some("stream") => read(&app, &caller, asked)?,
        Some("start") => start(&app, &caller, asked)?,
        Some(other) => {
            let message = format!("for: expected websocket, stream or start, got {other:?}");
            return Err(Refusal::invalid("for", message));
        }
    };
    Ok(Json(ticket))
}

fn socket(app: &App, caller: &Caller) -> Result<Ticket, Refusal> {
    let (ticket, expires_ms) = app.identity().ticket(caller)?;
    Ok(Ticket {
        protocols: Some([PROTOCOL.to_owned(), format!("{TICKET}{ticket}")]),
        ..Ticket::new("websocket", expires_ms)
    })
}

fn read(app: &App, caller: &Caller, asked: Asked) -> Result<Ticket, Refusal> {
    let stream_id = asked.stream_id.filter(|id| is_stream_id(id));
    let stream_id = stream_id.ok_or_else(|| Refusal::invalid("stream_id", "stream_id: expected the name of an answer"))?;
    let (token, expires_ms) = app.identity().stream_token(caller, Grant::Read(stream_id.clone()));
    Ok(Ticket {
        stream_id: Some(stream_id),
        stream_token: Some(token),
        ..Ticket::new("stream", expires_ms)
    })
}

fn start(app: &App, caller: &Caller, asked: Asked) -> Result<Ticket, Refusal> {
    let Some(query) = asked.query else {
        return Err(Refusal::invalid(
            "query",
            "query is missing: what is to be asked, by its names in the address",
        ));
    };
    let text = asked.idempotency_key.unwrap_or_else(|| uuid::Uuid::new_v4().simple().to_string());
    let key = Key::parse("idempotency_key", text.as_bytes())?;
    let query = query.into_iter().map(in_address).collect::<Result<Value, Refusal>>()?;
    let grant = Grant::Start(key.stream_id(caller.principal()), hex(&fingerprint(&query)));
    let (token, expires_ms) = app.identity().stream_token(caller, grant);
    Ok(Ticket {
        idempotency_key: Some(text),
        stream_token: Some(token),
        ..Ticket::new("start", expires_ms)
    })
}

impl Ticket {
    fn new(what_for: &'static str, expires_ms: i64) -> Self {
        Self {
            object: "ticket",
            r#for: what_for,
            protocols: None,
            stream_id: None,
            idempotency_key: None,
            stream_token: None,
            expires_at: expires_ms / 1000,
        }
    }
}

/// A value as it will stand in the address: there everything is a text.
fn in_address((name, value): (String, Value)) -> Result<(String, Value), Refusal> {
    match value {
        Value::String(_) => Ok((name, value)),
        Value::Number(_) | Value::Bool(_) => Ok((name, Value::from(value.to_string()))),
        _ => {
            let param = format!("query.{name}");
            Err(Refusal::invalid(
                param.clone(),
                format!("{param}: expected a text, a number, true or false"),
            ))
        }
    }
}
