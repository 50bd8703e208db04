//! `GET /ws/chat`: chat over a WebSocket, several turns on one socket, one at a time.
//!
//! In: `{"prompt": "…"}` (also `messages`, `model`, `max_tokens`, `conversation_id`), `{"type": "cancel"}`,
//! `{"type": "resume", "stream_id": "…", "after": N}`. Out: `{"type": "token", "stream_id", "position", "content"}` for each entry, then
//! `{"type": "done", "finish_reason", "usage"}`, or `{"type": "cancelled"}`, or `{"type": "error", "error": {…}}`. A socket that has gone
//! lets go of its answer; one that is silent for too long is closed; when the gateway stops, each is closed with 1012 at its time
//! ([`crate::leave`]), after the tokens that are ready, and its client resumes at another gateway.
//!
//! A browser offers two subprotocols, `unbroken.v1` and `ticket.<ticket>`, where a key is asked for. Whether that is still good is
//! looked at again with each turn.

#[cfg(test)]
mod conformance;
mod incoming;
mod outgoing;

use std::{
    future::{pending, poll_fn},
    pin::pin,
    task::Poll,
    time::Duration,
};

use axum::{
    extract::{
        State, WebSocketUpgrade,
        ws::{CloseFrame, Message, Utf8Bytes, WebSocket},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::{SinkExt as _, StreamExt as _};
use http::StatusCode;
use proto::v1::Entry;
use tokio::time::{Instant, sleep, timeout};

#[cfg(test)]
pub(super) use self::incoming::parse;
use self::{incoming::Incoming, outgoing::Events};
use crate::{
    account::Account,
    app::App,
    failure::{Body, Refusal},
    identity::{Caller, credential::PROTOCOL},
    leave, openapi,
    stack::Arrival,
    turn::Answer,
};

/// How long a closing socket may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(1);
/// "The service restarts: come back" (RFC 6455's registry of close codes).
const RESTART: u16 = 1012;
/// And what it means here.
const COME_BACK: (u16, &str) = (RESTART, "the gateway restarts: connect again, and resume after the last position");
/// "The message is not of a kind that can be taken."
const UNSUPPORTED: u16 = 1003;
/// "The message is too big to be taken."
const TOO_BIG: u16 = 1009;

/// Chats over a WebSocket, several turns on one socket. A browser offers the subprotocols that `POST /v1/tickets` gives.
///
/// In: `{"prompt": "…"}`, `{"type": "cancel"}`, `{"type": "resume", "stream_id": "…", "after": N}`. Out: `token` for each entry, then `done`,
/// `cancelled` or `error`.
#[utoipa::path(
    get,
    path = "/ws/chat",
    operation_id = "open_socket",
    tag = openapi::SIMPLE,
    responses(
        (status = SWITCHING_PROTOCOLS, description = "It speaks WebSocket from here on."),
        (status = BAD_REQUEST, description = "There is a key in the address.", body = Body<'_>),
        (status = UNAUTHORIZED, description = "A key or a ticket is needed, or this one is not good.", body = Body<'_>),
        (status = FORBIDDEN, description = "This web page may not.", body = Body<'_>),
        (status = SERVICE_UNAVAILABLE, description = "A key or a ticket cannot be checked now.", body = Body<'_>),
        (status = UPGRADE_REQUIRED, description = "The request is none for a WebSocket.", body = Body<'_>),
    ),
)]
pub(crate) async fn open(
    State(app): State<App>,
    arrival: Arrival,
    caller: Caller,
    upgrade: Result<WebSocketUpgrade, axum::extract::ws::rejection::WebSocketUpgradeRejection>,
) -> Response {
    let Ok(upgrade) = upgrade else {
        return Refusal::new(
            StatusCode::UPGRADE_REQUIRED,
            "upgrade_required",
            "this address speaks WebSocket: connect to it as ws://…/ws/chat",
        )
        .into_response();
    };
    bounded(upgrade, app.settings().body_limit)
        .protocols([PROTOCOL])
        .on_upgrade(async move |socket| {
            // The drain must know of the socket, to wait for it.
            let drain = app.drain().clone();
            let _ = drain.spawn(Socket::new(app, arrival, caller, socket).run()).await;
        })
}

/// A socket on which a message may have as many bytes as the body of a request elsewhere. A client that sends more is told so with 1009.
fn bounded(upgrade: WebSocketUpgrade, most: usize) -> WebSocketUpgrade {
    upgrade.max_message_size(most).max_frame_size(most)
}

/// One socket.
struct Socket {
    app: App,
    arrival: Arrival,
    caller: Caller,
    wire: WebSocket,
    /// When the client was last heard of.
    heard: Instant,
    turn: Option<Turn>,
    batch: Vec<Entry>,
}

/// The turn that runs.
struct Turn {
    answer: Answer,
    account: Account,
    events: Events,
    /// Whether the client knows the answer's name: without it, it cannot go on elsewhere.
    told: bool,
}

/// What a socket waits for.
enum Happening {
    Message(Option<Result<Message, axum::Error>>),
    Entries(Option<u32>),
    Tick,
    Draining,
    Leave,
}

impl Socket {
    fn new(app: App, arrival: Arrival, caller: Caller, wire: WebSocket) -> Self {
        Self {
            app,
            arrival,
            caller,
            wire,
            heard: Instant::now(),
            turn: None,
            batch: Vec::new(),
        }
    }

    async fn run(mut self) {
        let goodbye = self.talk().await;
        self.turn = None;
        if let Some((code, reason)) = goodbye {
            let frame = CloseFrame {
                code,
                reason: Utf8Bytes::from_static(reason),
            };
            let close = async {
                self.wire.send(Message::Close(Some(frame))).await?;
                while let Some(Ok(_)) = self.wire.next().await {}
                if code == TOO_BIG {
                    pending::<()>().await; // a socket with something unread in it is reset, and the close with it
                }
                Ok::<(), axum::Error>(())
            };
            let _ = timeout(GOODBYE, close).await;
        }
    }

    /// Talks until the client has gone (`None`) or is to be sent away.
    async fn talk(&mut self) -> Option<(u16, &'static str)> {
        let ping = self.app.settings().ws_ping;
        let drain = self.app.drain().clone();
        let in_place = self.app.settings().handover().is_zero();
        let mut leaving = leave::when(&self.app, &self.arrival.request_id, true);
        let mut last_call = pin!(drain.last_call());
        let mut tick = pin!(sleep(ping));
        loop {
            let running = self.turn.is_some();
            if in_place && !running && drain.is_draining() {
                return Some(COME_BACK);
            }
            let can_go = self.turn.as_ref().is_none_or(|turn| turn.told);
            let happening = tokio::select! {
                message = self.wire.next() => Happening::Message(message),
                first = read(&mut self.turn, &mut self.batch), if running => Happening::Entries(first),
                () = tick.as_mut() => Happening::Tick,
                () = drain.draining(), if in_place && !running => Happening::Draining,
                () = &mut leaving, if can_go => Happening::Leave,
                () = last_call.as_mut() => Happening::Leave,
            };
            match happening {
                Happening::Message(Some(Ok(message))) => {
                    self.heard = Instant::now();
                    match message {
                        Message::Text(text) => self.hear(text.as_bytes()).await.ok()?,
                        Message::Binary(_) => return Some((UNSUPPORTED, "messages are JSON texts")),
                        Message::Close(_) => return None,
                        Message::Ping(_) | Message::Pong(_) => {}
                    }
                }
                Happening::Message(Some(Err(error))) if is_too_big(&error) => {
                    return Some((TOO_BIG, "the message has more bytes than UNBROKEN_BODY_LIMIT"));
                }
                Happening::Message(_) => return None,
                Happening::Entries(first) => self.tell(first).await.ok()?,
                Happening::Tick if self.heard.elapsed() > ping * 2 => return None,
                Happening::Tick => {
                    tick.as_mut().reset(Instant::now() + ping);
                    self.wire.send(Message::Ping(bytes::Bytes::new())).await.ok()?;
                }
                Happening::Draining => {}
                Happening::Leave => {
                    self.leave().await.ok()?;
                    return Some(COME_BACK);
                }
            }
        }
    }

    /// Does what the client says; what is wrong with it is said, and the socket stays.
    async fn hear(&mut self, text: &[u8]) -> Result<(), axum::Error> {
        let incoming = match incoming::parse(text) {
            Ok(incoming) => incoming,
            Err(refusal) => return self.send(outgoing::refused(&refusal)).await,
        };
        if let Incoming::Cancel = incoming {
            match &mut self.turn {
                Some(turn) => turn.answer.cancel(),
                None => {
                    self.send(outgoing::refused(&Refusal::invalid("type", "type: no answer is running")))
                        .await?;
                }
            }
            return Ok(());
        }
        if self.turn.is_some() {
            let busy = Refusal::new(StatusCode::CONFLICT, "busy", "an answer is running: wait for its end, or cancel it");
            return self.send(outgoing::refused(&busy)).await;
        }
        let arrival = Arrival {
            at: Instant::now(),
            ..self.arrival.clone()
        };
        let mut account = Account::open(&self.app, arrival, self.caller.clone(), "websocket");
        let told = matches!(incoming, Incoming::Resume(..));
        let begun = {
            let admission = async {
                self.app.identity().again(&self.caller).await?;
                match incoming {
                    Incoming::Chat(request) => super::begin(&self.app, &mut account, request).await.map(Some),
                    Incoming::Resume(stream_id, next) => super::resume(&self.app, &mut account, &stream_id, next).await,
                    Incoming::Cancel => Ok(None),
                }
            };
            // A client that goes, or says anything, while its turn waits for a slot: the turn is let go with the socket.
            tokio::select! {
                begun = admission => begun,
                () = gone(&mut self.wire) => return Err(axum::Error::new("the client has gone")),
            }
        };
        match begun {
            Ok(Some(answer)) => {
                self.turn = Some(Turn {
                    events: Events::new(answer.head()),
                    answer,
                    account,
                    told,
                });
                Ok(())
            }
            Ok(None) => self.send(outgoing::nothing_left()).await,
            Err(refusal) => self.send(outgoing::refused(&account.refuse(refusal))).await,
        }
    }

    /// Sends a batch of entries, in one write.
    async fn tell(&mut self, first: Option<u32>) -> Result<(), axum::Error> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        for (position, entry) in (first.unwrap_or_default()..).zip(&self.batch) {
            self.wire.feed(turn.events.message(position, entry)).await?;
        }
        turn.account.note(&self.batch, Instant::now());
        turn.told = true;
        if first.is_none() || self.batch.last().is_some_and(Entry::is_terminal) {
            self.turn = None;
        }
        self.wire.flush().await
    }

    /// Sends the tokens that are ready, and lets go of the turn: its client goes on with it elsewhere.
    async fn leave(&mut self) -> Result<(), axum::Error> {
        let Some(turn) = &mut self.turn else { return Ok(()) };
        self.batch.clear();
        let ready = poll_fn(|context| Poll::Ready(turn.answer.poll_read(context, &mut self.batch))).await;
        if let Poll::Ready(first) = ready {
            self.tell(first).await?;
        }
        if let Some(turn) = &mut self.turn {
            turn.answer.expect_back();
            turn.account.moved();
        }
        Ok(())
    }

    async fn send(&mut self, message: Message) -> Result<(), axum::Error> {
        self.wire.send(message).await
    }
}

/// Whether a message was larger than the bound. axum hides its stack's error, whose words are all that can be seen; a test knows them.
fn is_too_big(error: &axum::Error) -> bool {
    error.to_string().starts_with("Space limit exceeded")
}

/// Reads the next entries of the turn that runs.
async fn read(turn: &mut Option<Turn>, batch: &mut Vec<Entry>) -> Option<u32> {
    turn.as_mut()?.answer.read(batch).await
}

/// Waits until the client has gone. What it says meanwhile is not heard: a client has nothing to say before its turn begins.
async fn gone(socket: &mut WebSocket) {
    while let Some(Ok(message)) = socket.next().await {
        if let Message::Close(_) = message {
            return;
        }
    }
}
