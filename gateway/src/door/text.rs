//! `POST /v1/completions`, OpenAI's legacy door (<https://platform.openai.com/docs/api-reference/completions>): the text that follows a
//! prompt, without a chat template around it. [`request`] is what may be sent, [`chunk`] how an answer streams, [`object`] what answers
//! are that don't.
//!
//! A list of prompts is a list of answers, made at once, with one leave for all. They cannot stream together: the place in a stream is a
//! place in one answer.

mod chunk;
mod logprobs;
mod object;
mod request;

use axum::{
    extract::{Request, State},
    response::{IntoResponse as _, Response},
};
use futures_util::future::try_join_all;
use proto::v1::{ChatRequest, Head};

pub(super) use self::request::TextCompletion;
use self::{chunk::Chunks, object::Answered};
use super::{
    Opened,
    whole::{self, Whole},
};
use crate::{
    account::Account,
    app::App,
    body::{self, Query},
    comeback::Comeback,
    failure::Refusal,
    identity::Caller,
    limits::nth_name,
    openapi,
    stack::Arrival,
};

/// How the client wants the answers written.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    stream: bool,
    resumable: bool,
    include_usage: bool,
    choices: u32,
    /// Of each prompt, what stands before its text: the prompt, if it is to be repeated.
    echo: Vec<String>,
}

/// What a request has come to.
enum Admitted {
    Stream(Box<Account>, Opened),
    Whole(Vec<(Head, Whole)>),
}

/// Completes a text.
///
/// With `stream`, as `text_completion` events and a last `[DONE]`, which comes only after a whole answer.
#[utoipa::path(
    post,
    path = "/v1/completions",
    operation_id = "complete_text",
    tag = openapi::OPENAI,
    params(openapi::Comeback),
    request_body = TextCompletion,
    responses(
        (status = OK, description = "The answer.", content((Answered = "application/json"), (openapi::Sent = "text/event-stream"))),
        openapi::CameBack,
        openapi::BodyRefused,
    ),
)]
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Response {
    let (shape, admitted) = match admit(&app, arrival, caller, request).await {
        Ok(admitted) => admitted,
        Err(refusal) => return refusal.into_response(),
    };
    match admitted {
        Admitted::Stream(account, opened) => super::stream(&app, *account, opened, shape.resumable, |head| Chunks::new(head, shape)),
        Admitted::Whole(answers) => match answers.first() {
            Some((head, _)) => super::whole_object(&head.clone(), &Answered::new(&shape, answers)),
            None => Refusal::invalid("prompt", "prompt is empty").into_response(),
        },
    }
}

async fn admit(app: &App, arrival: Arrival, caller: Caller, request: Request) -> Result<(Shape, Admitted), Refusal> {
    let open = || Account::open(app, arrival.clone(), caller.clone(), "text");
    let mut account = open();
    let read = read(app, request).await;
    let (mut shape, mut requests, mut comeback, body) = read.map_err(|refusal| account.refuse(refusal))?;
    comeback.resumable |= shape.resumable;
    shape.resumable = comeback.resumable;
    if let Some(last) = &comeback.last {
        let opened = match super::only_streams_go_on(shape.stream) {
            Ok(()) => super::come_back(app, &mut account, last).await,
            Err(refusal) => Err(refusal),
        };
        let opened = opened.map_err(|refusal| account.refuse(refusal))?;
        return Ok((shape, Admitted::Stream(Box::new(account), opened)));
    }
    comeback.resumable &= shape.stream;
    for request in &mut requests {
        comeback.sign(request, account.caller(), || body::value(&body));
    }
    if shape.stream {
        let answer = super::begin(app, &mut account, requests.swap_remove(0)).await;
        let opened = Opened::Answer(answer.map_err(|refusal| account.refuse(refusal))?, 0);
        return Ok((shape, Admitted::Stream(Box::new(account), opened)));
    }
    let accounts = ask_leave(app, account, &mut requests, open).await?;
    let answers = requests.into_iter().zip(accounts);
    let answers = try_join_all(answers.map(|(request, account)| answer(app, account, request))).await?;
    Ok((shape, Admitted::Whole(answers)))
}

/// An account for each answer, once all of them together have leave: none is begun before that.
async fn ask_leave(
    app: &App,
    mut account: Account,
    requests: &mut [ChatRequest],
    open: impl Fn() -> Account,
) -> Result<Vec<Account>, Refusal> {
    let Some(first) = requests.first_mut() else { return Ok(Vec::new()) };
    account.sign(first);
    let name = first.stream_id.clone();
    let leave = match account.caller().may_start(first) {
        Ok(()) => account.ask_leave(app, requests).await,
        Err(refusal) => Err(refusal),
    };
    leave.map_err(|refusal| account.refuse(refusal))?;
    let mut accounts = vec![account];
    for (index, request) in requests.iter_mut().enumerate().skip(1) {
        let mut account = open();
        request.stream_id = nth_name(&name, index);
        account.sign(request);
        account.has_leave_with(&accounts[0]);
        accounts.push(account);
    }
    Ok(accounts)
}

/// What is asked: one request for each prompt.
async fn read(app: &App, request: Request) -> Result<(Shape, Vec<ChatRequest>, Comeback, bytes::BytesMut), Refusal> {
    let comeback = Comeback::of(request.headers(), &Query::of(request.uri()))?;
    let body = body::read(request, app.settings()).await?;
    let (shape, requests) = body::parse::<TextCompletion>(&body)?.into_requests()?;
    Ok((shape, requests, comeback, body))
}

/// Starts the answer to one prompt, and reads it to its end.
async fn answer(app: &App, mut account: Account, request: ChatRequest) -> Result<(Head, Whole), Refusal> {
    let answered = async {
        let answer = super::start(app, &mut account, Box::new(request)).await?;
        let head = answer.head().clone();
        Ok((head, whole::read(app, answer, &mut account).await?))
    };
    let answered = answered.await;
    answered.map_err(|refusal| account.refuse(refusal))
}

fn id(head: &Head) -> String {
    format!("cmpl-{}", head.stream_id)
}
