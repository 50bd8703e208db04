//! An answer as a door reads it: started or attached to, read to its end, and let go by dropping it.
//!
//! The reading survives what happens below: a slot that ran full is attached again at the same position, and so is an exchange
//! that broke, at the next router in rank. What a door sees is one sequence of entries, each position once, closed by one
//! terminal entry. Doors call this; it calls [`crate::clients`].

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use proto::v1::{
    ChatRequest, EmbedRequest, EmbedResponse, Entry, Failure, Head, Principal, Reason, ResumeChatRequest, chat_command::Command,
};
use tokio::time::{Instant, Sleep, sleep};

use crate::clients::{
    Clients,
    exchange::Call,
    slot::{End, Taken},
};

/// How long to wait before a lost answer is looked for again.
const PAUSE: Duration = Duration::from_millis(50);
/// How often the routers may say that they do not know a lost answer before it is given up.
const UNKNOWN: u32 = 3;

/// One answer and the place of its reader. Dropped before its end, the reader has gone, and the answer's disconnect policy decides.
#[derive(Debug)]
pub(crate) struct Answer {
    clients: Clients,
    head: Box<Head>,
    stream_id: String,
    principal: Option<Principal>,
    /// The position of the entry that comes next.
    next: u32,
    /// Where it is read now.
    call: Option<Call>,
    /// While it is looked for elsewhere.
    search: Option<Box<Search>>,
    /// How long it may be looked for.
    patience: Duration,
    ended: bool,
}

/// The search for an answer whose exchange broke.
#[derive(Debug)]
struct Search {
    until: Instant,
    pause: Option<Pin<Box<Sleep>>>,
    tries: usize,
    unknown: u32,
    last: Failure,
}

/// Starts an answer, at its home or, if that cannot take it, at the next router in rank. Returns once it is admitted.
///
/// # Errors
/// Why no router took it.
pub(crate) async fn start(clients: &Clients, request: ChatRequest, patience: Duration) -> Result<Answer, Failure> {
    let (stream_id, principal) = (request.stream_id.clone(), request.principal.clone());
    let mut request = Some(Box::new(request));
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
    let answer = open(clients, place, patience, command, passes).await?;
    answer.ok_or_else(|| Failure::new(Reason::Internal, "a router ended an answer that it had just begun"))
}

/// Attaches to an answer that exists. `None` if it has ended and nothing comes at that position any more.
///
/// # Errors
/// Why no router could; [`Reason::NotFound`] if none knows it.
pub(crate) async fn attach(clients: &Clients, place: Place, patience: Duration) -> Result<Option<Answer>, Failure> {
    let command = place.attach();
    let passes = |reason| matches!(reason, Reason::Draining | Reason::Unavailable | Reason::NotFound);
    open(clients, place, patience, |_| command.clone(), passes).await
}

/// Ends an answer, whoever reads it. Says whether it was running.
///
/// # Errors
/// Why no router could; [`Reason::NotFound`] if none knows it.
pub(crate) async fn cancel(clients: &Clients, stream_id: &str, principal: &Principal) -> Result<bool, Failure> {
    let mut failure = unreachable_routers();
    for router in clients.ranked(stream_id) {
        let request = proto::v1::CancelChatRequest {
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
    let mut failure = unreachable_routers();
    for router in clients.ranked(request.inputs.first().map_or("", String::as_str)) {
        match router.client().embed(request.clone()).await {
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
    place: Place,
    patience: Duration,
    mut command: impl FnMut(bool) -> Command,
    passes: impl Fn(Reason) -> bool,
) -> Result<Option<Answer>, Failure> {
    let mut failure = unreachable_routers();
    let mut routers = clients.ranked(&place.stream_id).into_iter().peekable();
    while let Some(router) = routers.next() {
        let command = command(routers.peek().is_none());
        let Some(call) = router.exchange(&place.stream_id).open(command, place.next) else {
            continue;
        };
        match poll_fn(|context| call.slot().poll_head(context)).await {
            Ok(head) => {
                return Ok(Some(Answer {
                    clients: clients.clone(),
                    head,
                    stream_id: place.stream_id,
                    principal: place.principal,
                    next: place.next,
                    call: Some(call),
                    search: None,
                    patience,
                    ended: false,
                }));
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

impl Answer {
    /// What is known of it.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The position of the entry that comes next.
    pub(crate) fn position(&self) -> u32 {
        self.next
    }

    /// Asks for its end. Its terminal entry will come.
    pub(crate) fn cancel(&self) {
        if let Some(call) = &self.call {
            call.cancel();
        }
    }

    /// Moves all entries that are ready into the empty `batch`; the position of the first is returned. `None` after the terminal
    /// entry.
    pub(crate) fn poll_read(&mut self, context: &mut Context<'_>, batch: &mut Vec<Entry>) -> Poll<Option<u32>> {
        loop {
            if self.ended {
                return Poll::Ready(None);
            }
            let Some(call) = &self.call else {
                if let Err(failure) = ready!(self.poll_search(context)) {
                    return Poll::Ready(Some(self.fail(failure, batch)));
                }
                continue;
            };
            match ready!(call.slot().poll_take(context, batch)) {
                Taken::Entries(first) => {
                    self.next = first + u32::try_from(batch.len()).unwrap_or(u32::MAX);
                    self.search = None;
                    self.ended = batch.last().is_some_and(Entry::is_terminal);
                    return Poll::Ready(Some(first));
                }
                Taken::End(End::Behind) => {
                    let again = call.exchange().open(self.place().attach(), self.next);
                    self.call = again;
                }
                Taken::End(End::Done) => self.ended = true,
                Taken::End(End::Broken) => self.call = None,
                Taken::End(End::Refused(failure)) => {
                    self.call = None;
                    if let Err(failure) = self.consider(*failure) {
                        return Poll::Ready(Some(self.fail(failure, batch)));
                    }
                }
            }
        }
    }

    /// Waits for entries; see [`Answer::poll_read`].
    pub(crate) async fn read(&mut self, batch: &mut Vec<Entry>) -> Option<u32> {
        batch.clear();
        poll_fn(|context| self.poll_read(context, batch)).await
    }

    fn place(&self) -> Place {
        Place {
            stream_id: self.stream_id.clone(),
            principal: self.principal.clone(),
            next: self.next,
        }
    }

    /// Attaches at the next router in rank, or at the same again; gives up when the patience is over.
    fn poll_search(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        loop {
            let patience = self.patience;
            let search = self.search.get_or_insert_with(|| Box::new(Search::new(patience)));
            if let Some(pause) = &mut search.pause {
                ready!(pause.as_mut().poll(context));
            }
            search.pause = Some(Box::pin(sleep(PAUSE)));
            if Instant::now() >= search.until {
                return Poll::Ready(Err(search.last.clone()));
            }
            let tries = search.tries;
            search.tries += 1;
            let routers = self.clients.ranked(&self.stream_id);
            if let Some(router) = routers.get(tries % routers.len().max(1)) {
                self.call = router.exchange(&self.stream_id).open(self.place().attach(), self.next);
                if self.call.is_some() {
                    tracing::info!(
                        stream_id = self.stream_id,
                        position = self.next,
                        router = router.address(),
                        "answer attached again"
                    );
                    return Poll::Ready(Ok(()));
                }
            }
        }
    }

    /// Whether a refusal to attach ends the search.
    fn consider(&mut self, failure: Failure) -> Result<(), Failure> {
        let Some(search) = &mut self.search else { return Err(failure) };
        match failure.reason() {
            Reason::Draining | Reason::Unavailable => {}
            Reason::NotFound if search.unknown < UNKNOWN => search.unknown += 1,
            Reason::NotFound => return Err(search.last.clone()),
            _ => return Err(failure),
        }
        Ok(())
    }

    fn fail(&mut self, failure: Failure, batch: &mut Vec<Entry>) -> u32 {
        self.ended = true;
        batch.push(Entry::failed(failure));
        self.next
    }
}

impl Search {
    fn new(patience: Duration) -> Self {
        Self {
            until: Instant::now() + patience,
            pause: None,
            tries: 0,
            unknown: 0,
            last: Failure::new(
                Reason::Interrupted,
                "the router that carried the answer was lost, and no other could take it over",
            ),
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        // A reader that lags is expected back: say that it is not coming.
        if !self.ended
            && let Some(call) = &self.call
            && call.slot().is_behind()
        {
            drop(call.exchange().open(self.place().attach(), self.next));
        }
    }
}
