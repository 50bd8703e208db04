//! An answer as a door reads it: started or attached to, read to its end, and let go by dropping it.
//!
//! The reading survives what happens below: a slot that ran full is attached again at the same position, and so is an exchange
//! that broke, at the next router in rank. What a door sees is one sequence of entries, each position once, closed by one
//! terminal entry. Doors call this; it calls [`crate::clients`].

mod answer;

use std::{future::poll_fn, time::Duration};

use proto::v1::{
    CancelChatRequest, ChatRequest, CountTokensRequest, CountTokensResponse, EmbedRequest, EmbedResponse, Failure, Principal, Reason,
    ResumeChatRequest, chat_command::Command, chat_service_client::ChatServiceClient,
};
use tonic::{Response, Status, transport::Channel};

pub(crate) use self::answer::Answer;
use crate::clients::{Bearer, Clients, slot::End};

/// Starts an answer, at its home or, if that cannot take it, at the next router in rank. Returns once it is admitted.
///
/// # Errors
/// Why no router took it.
pub(crate) async fn start(clients: &Clients, request: Box<ChatRequest>, patience: Duration) -> Result<Answer, Failure> {
    let (stream_id, principal) = (request.stream_id.clone(), request.principal.clone());
    let bearer = Bearer::starting(&request.key_id);
    let mut request = Some(request);
    let command = |last: bool| {
        let request = if last { request.take() } else { request.clone() };
        Command::Start(request.unwrap_or_default())
    };
    let passes = |reason| matches!(reason, Reason::Draining | Reason::Unavailable);
    let place = Place {
        stream_id,
        principal,
        next: 0,
    };
    let answer = open(clients, (place, bearer), patience, command, passes).await?;
    answer.ok_or_else(|| Failure::new(Reason::Internal, "a router ended an answer that it had just begun"))
}

/// Attaches to an answer that exists, for a moment's look at it. `None` if it has ended and nothing comes at that position any more.
///
/// # Errors
/// Why no router could; [`Reason::NotFound`] if none knows it.
pub(crate) async fn attach(clients: &Clients, place: Place, patience: Duration) -> Result<Option<Answer>, Failure> {
    resume(clients, place, Bearer::default(), patience).await
}

/// Attaches to an answer that exists, for `bearer`. `None` if it has ended and nothing comes at that position any more.
///
/// # Errors
/// Why no router could; [`Reason::NotFound`] if none knows it.
pub(crate) async fn resume(clients: &Clients, place: Place, bearer: Bearer, patience: Duration) -> Result<Option<Answer>, Failure> {
    let command = place.attach();
    let passes = |reason| matches!(reason, Reason::Draining | Reason::Unavailable | Reason::NotFound);
    open(clients, (place, bearer), patience, |_| command.clone(), passes).await
}

/// Ends an answer, whoever reads it. Says whether it was running.
///
/// # Errors
/// Why no router could; [`Reason::NotFound`] if none knows it.
pub(crate) async fn cancel(clients: &Clients, stream_id: &str, principal: &Principal) -> Result<bool, Failure> {
    let mut failure = unreachable_routers();
    for router in clients.ranked(stream_id) {
        let request = CancelChatRequest {
            stream_id: stream_id.to_owned(),
            principal: Some(principal.clone()),
        };
        match router.client().cancel_chat(request).await {
            Ok(response) => return Ok(response.into_inner().was_running),
            Err(status) => failure = Failure::from_status(&status),
        }
    }
    Err(failure)
}

/// Turns texts into vectors, at any router that can.
///
/// # Errors
/// Why no router could.
pub(crate) async fn embed(clients: &Clients, request: EmbedRequest) -> Result<EmbedResponse, Failure> {
    let key = request.inputs.first().cloned().unwrap_or_default();
    let embed = |mut router: Client| {
        let request = request.clone();
        async move { router.embed(request).await }
    };
    ask(clients, &key, embed).await
}

/// Counts the tokens of a request's input, at any router that can.
///
/// # Errors
/// Why no router could.
pub(crate) async fn count_tokens(clients: &Clients, request: CountTokensRequest) -> Result<CountTokensResponse, Failure> {
    let count = |mut router: Client| {
        let request = request.clone();
        async move { router.count_tokens(request).await }
    };
    ask(clients, "", count).await
}

type Client = ChatServiceClient<Channel>;

/// Asks the routers, the first in rank for `key` first, until one can tell.
async fn ask<T, F>(clients: &Clients, key: &str, call: impl Fn(Client) -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Response<T>, Status>>,
{
    let mut failure = unreachable_routers();
    for router in clients.ranked(key) {
        match call(router.client()).await {
            Ok(response) => return Ok(response.into_inner()),
            Err(status) => failure = Failure::from_status(&status),
        }
        if !matches!(failure.reason(), Reason::Draining | Reason::Unavailable) {
            break;
        }
    }
    Err(failure)
}

/// A position in an answer.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The answer.
    pub(crate) stream_id: String,
    /// On whose behalf it is read.
    pub(crate) principal: Option<Principal>,
    /// The position of the first entry wanted.
    pub(crate) next: u32,
}

impl Place {
    fn attach(&self) -> Command {
        Command::Attach(ResumeChatRequest {
            stream_id: self.stream_id.clone(),
            position: self.next,
            principal: self.principal.clone(),
        })
    }
}

async fn open(
    clients: &Clients,
    (place, bearer): (Place, Bearer),
    patience: Duration,
    mut command: impl FnMut(bool) -> Command,
    passes: impl Fn(Reason) -> bool,
) -> Result<Option<Answer>, Failure> {
    let mut failure = unreachable_routers();
    let mut routers = clients.ranked(&place.stream_id).into_iter().peekable();
    while let Some(router) = routers.next() {
        let command = command(routers.peek().is_none());
        let Some(call) = router.exchange(&place.stream_id).open(command, place.next, bearer.clone()) else {
            continue;
        };
        match poll_fn(|context| call.slot().poll_head(context)).await {
            Ok(head) => {
                return Ok(Some(Answer::new(clients, (place, bearer), call, head, patience)));
            }
            Err(End::Refused(refusal)) if passes(refusal.reason()) => failure = *refusal,
            Err(End::Refused(refusal)) => return Err(*refusal),
            Err(End::Done) => return Ok(None),
            Err(End::Behind | End::Broken) => failure = Failure::new(Reason::Unavailable, "the router was lost before the answer began"),
        }
    }
    Err(failure)
}

fn unreachable_routers() -> Failure {
    Failure {
        retry_after_ms: 1000,
        ..Failure::new(Reason::Unavailable, "no router can be reached (UNBROKEN_ROUTERS)")
    }
}
