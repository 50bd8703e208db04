//! `/v1/responses`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/responses>) and that of Open Responses
//! (<https://www.openresponses.org/specification>): [`request`], [`input`] with its [`item`]s, [`tool`] and [`mod@metadata`] are what may be
//! sent, [`output`] is what an answer comes to, [`events`] how it streams, [`resource`] how it is shown, [`kept`] where it is found again,
//! [`history`] what came before it, [`count`] how long an input is.
//!
//! A response is an answer and a small document. Its id is that of the answer, and the ids of its items follow from it; the events are a
//! pure function of document and entries. So a response can be shown and streamed again, from any event on, at any gateway: while it runs,
//! and for as long as it is kept.

pub(crate) mod count;
mod events;
mod history;
pub(crate) mod input;
pub(crate) mod item;
mod kept;
mod metadata;
mod output;
mod page;
mod request;
mod resource;
pub(crate) mod retrieve;
mod tool;

use std::{
    pin::pin,
    slice::from_mut,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use proto::v1::{ChatRequest, DisconnectPolicy, Failure, Principal, Reason, Role, entry::Event};
use tokio::time::{Instant, timeout};

use self::{
    events::Events,
    kept::{Document, Kept},
    output::Output,
    request::{Asked, Plan, Shape},
    resource::{Outline, Standing},
};
pub(crate) use self::{
    metadata::{Metadata, metadata},
    page::{ItemPage, ItemPaging, list},
};
use super::{Opened, conversations};
use crate::{
    account::Account,
    app::App,
    body::{self, Query},
    comeback::Comeback,
    failure::{Body, Refusal},
    idempotency,
    identity::Caller,
    openapi,
    stack::Arrival,
    turn::Answer,
};

/// How long a response that goes on by itself is waited for until it is admitted; past that it is shown as queued.
const ADMISSION: Duration = Duration::from_secs(1);
/// After the name of an answer: the items of its input.
const OF_INPUT: &str = "i";

/// Judges a body as [`create`] does: for the property tests of all doors.
#[cfg(test)]
pub(super) fn judge(bytes: &[u8]) -> Result<(), Refusal> {
    body::parse::<Asked>(bytes)?.plan().map(drop)
}

/// A response's id, from its answer's name.
fn id(stream_id: &str) -> String {
    format!("resp_{stream_id}")
}

/// Milliseconds since 1970.
fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// What a request has come to.
enum Begun {
    /// An answer to read.
    Answer(Box<Outline>, Answer),
    /// It goes on by itself, and has not been admitted yet.
    Queued(Box<Outline>),
    /// The same was asked before, and has ended.
    Before(Box<Kept>),
}

/// Answers, by OpenAI's Responses API.
///
/// With `stream`, as semantic events with a `sequence_number`, and a last `[DONE]` after a whole answer. What is too long for the model is
/// not compacted (there is no `/v1/responses/compact`): `truncation: auto` leaves the oldest messages out.
#[utoipa::path(
    post,
    path = "/v1/responses",
    operation_id = "create_response",
    tag = openapi::OPENAI,
    params(openapi::Key),
    request_body = Asked,
    responses(
        (status = OK, description = "The response.", content((Value = "application/json"), (openapi::Sent = "text/event-stream"))),
        (status = UNPROCESSABLE_ENTITY, description = "This `Idempotency-Key` was used for another request.", body = Body<'_>),
        openapi::BodyRefused,
    ),
)]
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let mut account = Account::open(&app, arrival, caller, "responses");
    match admit(&app, &mut account, request).await {
        Ok((shape, begun)) => answer(&app, account, shape, begun).await,
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

async fn answer(app: &App, mut account: Account, shape: Shape, begun: Begun) -> Response {
    let (outline, answer) = match begun {
        Begun::Answer(outline, answer) => (*outline, answer),
        Begun::Queued(outline) => {
            account.nothing_left();
            let output = Output::new(outline.stream_id());
            return retrieve::object(outline.stream_id(), &outline.resource(Standing::Queued, &output));
        }
        Begun::Before(kept) => {
            account.was_answered_before();
            return retrieve::before(*kept, shape.stream);
        }
    };
    if shape.stream {
        return super::stream(app, account, Opened::Answer(answer, 0), false, |_| Events::new(outline, None));
    }
    let stream_id = outline.stream_id().to_owned();
    if shape.background {
        account.nothing_left();
        return retrieve::object(&stream_id, &outline.resource(Standing::Running, &Output::new(&stream_id)));
    }
    match whole(app, answer, &mut account, &stream_id).await {
        Ok(output) => retrieve::object(&stream_id, &outline.resource(Standing::Ended, &output)),
        Err(refusal) => account.refuse(refusal).into_response(),
    }
}

/// Reads an answer to its end.
///
/// # Errors
/// It broke off, or the gateway stops before its end.
async fn whole(app: &App, mut answer: Answer, account: &mut Account, stream_id: &str) -> Result<Output, Refusal> {
    let mut output = Output::new(stream_id);
    let mut batch = Vec::new();
    while super::in_time(app, pin!(async { Ok(answer.read(&mut batch).await) }))
        .await?
        .is_some()
    {
        account.note(&batch, Instant::now());
        for entry in &batch {
            if let Some(Event::Failed(failure)) = &entry.event {
                return Err((**failure).clone().into());
            }
            output.take(entry, &mut ());
        }
    }
    Ok(output)
}

async fn admit(app: &App, account: &mut Account, request: Request) -> Result<(Shape, Begun), Refusal> {
    let comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let mut plan = body::parse::<Asked>(&body)?.plan()?;
    let caller = account.caller().clone();
    comeback.sign(&mut plan.request, &caller, || body::value(&body));
    let shape = plan.shape;
    let begun = begin(app, account, plan, caller.principal()).await?;
    Ok((shape, begun))
}

/// Starts the answer, after its record was opened.
async fn begin(app: &App, account: &mut Account, mut plan: Plan, principal: &Principal) -> Result<Begun, Refusal> {
    let request = &mut plan.request;
    if request.stream_id.is_empty() {
        request.stream_id = uuid::Uuid::now_v7().simple().to_string();
    }
    request.principal = Some(principal.clone());
    request.keep = plan.store;
    let policy = match request.disconnect() {
        _ if plan.shape.background => DisconnectPolicy::Background,
        // Its client can come back to it.
        DisconnectPolicy::Unspecified if plan.store && plan.shape.stream => DisconnectPolicy::Detach,
        policy => policy,
    };
    request.disconnect = policy.into();
    let document = ask(app, &mut plan, principal).await?;
    account.sign(&mut plan.request);
    account.ask_leave(app, from_mut(&mut plan.request)).await?;
    let opened = if plan.store {
        record(app, &mut plan, document).await?
    } else {
        Recorded::No(document.outline)
    };
    let request = Box::new(plan.request);
    let stream_id = request.stream_id.clone();
    let (mut outline, is_new) = match opened {
        Recorded::New(outline) => (outline, true),
        Recorded::No(outline) => (outline, false),
        Recorded::Before => (kept::find(app, principal, &stream_id).await?.document.outline, false),
    };
    let (store, wait) = (request.keep, plan.shape.background && !plan.shape.stream);
    let started = start(app, account, request, plan.truncate && plan.conversation.is_none());
    let started = if wait {
        match timeout(ADMISSION, started).await {
            Ok(started) => started,
            Err(_) => return Ok(Begun::Queued(Box::new(outline))),
        }
    } else {
        started.await
    };
    match started {
        Ok(answer) => {
            outline.model.clone_from(&answer.head().model);
            if !store {
                outline.created = answer.head().created;
            }
            Ok(Begun::Answer(Box::new(outline), answer))
        }
        Err(refusal) if is_new => {
            // There is nothing to find. The refusal counts, whatever becomes of the record: it goes with its age.
            let _ = kept::delete(app, principal, &stream_id).await;
            Err(refusal)
        }
        Err(refusal) if store && refusal.code() == Reason::Expired.as_word() => {
            Ok(Begun::Before(Box::new(kept::find(app, principal, &stream_id).await?)))
        }
        Err(refusal) => Err(refusal),
    }
}

/// Starts the answer. Where that is wished for, the oldest messages are left out until the rest fits into the model's context.
async fn start(app: &App, account: &mut Account, mut request: Box<ChatRequest>, truncate: bool) -> Result<Answer, Refusal> {
    loop {
        let again = truncate.then(|| request.clone());
        match super::start(app, account, request).await {
            Err(refusal) if refusal.code() == Reason::ContextLengthExceeded.as_word() => {
                request = again.and_then(shorter).ok_or(refusal)?;
            }
            started => return started,
        }
    }
}

/// The request without the first quarter of its messages; a result of a function does not stand first. `None`: there is only one.
fn shorter(mut request: Box<ChatRequest>) -> Option<Box<ChatRequest>> {
    let count = request.messages.len();
    let results = |from: usize| {
        request.messages[from..]
            .iter()
            .take_while(|message| message.role() == Role::Tool)
            .count()
    };
    let out = count.div_ceil(4);
    let out = out + results(out.min(count));
    if out >= count {
        return None;
    }
    request.messages.drain(..out);
    Some(request)
}

/// Writes what is asked into the plan's request: what came before, and the input. Returns what is kept of it.
async fn ask(app: &App, plan: &mut Plan, principal: &Principal) -> Result<Document, Refusal> {
    let request = &mut plan.request;
    if let Some(previous) = &plan.previous {
        request.messages = history::up_to(app, principal, previous).await?;
    }
    if let Some(conversation) = &plan.conversation {
        request.conversation_id = conversations::store_id(conversation);
        plan.asked["conversation"] = serde_json::json!({ "id": conversations::public_id(&request.conversation_id) });
    }
    let base = format!("{}{OF_INPUT}", request.stream_id);
    let items = history::resolve(app, principal, std::mem::take(&mut plan.input)).await?;
    let mut input = Vec::with_capacity(items.len());
    for (number, item) in items.into_iter().enumerate() {
        let item = item.named(&base, number);
        input.push(item.object());
        item.say(&mut request.messages);
    }
    let outline = Outline {
        stream_id: request.stream_id.clone(),
        created: now_ms() / 1000,
        model: request.model.clone(),
        asked: std::mem::take(&mut plan.asked),
    };
    Ok(Document { outline, input })
}

/// Whether a response is kept.
enum Recorded {
    /// From now on.
    New(Outline),
    /// The same was asked before.
    Before,
    /// Not at all.
    No(Outline),
}

/// Opens the record. A response that needs nothing of the store is answered while that is away; it says that it is not stored.
async fn record(app: &App, plan: &mut Plan, mut document: Document) -> Result<Recorded, Refusal> {
    let previous = plan.previous.as_deref().map(kept::stream_id).transpose()?.unwrap_or_default();
    match kept::open(app, &plan.request, previous, &document).await {
        Ok(true) => Ok(Recorded::New(document.outline)),
        Ok(false) => Ok(Recorded::Before),
        Err(failure) if is_away(&failure) && !plan.shape.background && plan.conversation.is_none() => {
            plan.request.keep = false;
            document.outline.asked["store"] = false.into();
            Ok(Recorded::No(document.outline))
        }
        Err(failure) => Err(idempotency::refused(failure)),
    }
}

fn is_away(failure: &Failure) -> bool {
    failure.reason() == Reason::StoreUnavailable
}
