//! The reader of one answer: a position, a call on some exchange, and where to look when that breaks.

use std::{
    future::{Future as _, poll_fn},
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use proto::v1::{Entry, Failure, Head, Principal, Reason};
use tokio::time::{Instant, Sleep, sleep};

use super::Place;
use crate::clients::{
    Bearer, Clients,
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
    bearer: Bearer,
    /// The position of the entry that comes next.
    next: u32,
    /// Where it is read now.
    call: Option<Call>,
    /// While it is looked for elsewhere.
    search: Option<Box<Search>>,
    /// How long it may be looked for.
    patience: Duration,
    /// Its end was asked for; whoever carries it next must hear of it too.
    cancelling: bool,
    ended: bool,
    lost: bool,
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

impl Answer {
    /// The answer that `call` reads from `place` on, and that was admitted.
    pub(super) fn new(clients: &Clients, (place, bearer): (Place, Bearer), call: Call, head: Box<Head>, patience: Duration) -> Self {
        Self {
            clients: clients.clone(),
            head,
            stream_id: place.stream_id,
            principal: place.principal,
            bearer,
            next: place.next,
            call: Some(call),
            search: None,
            patience,
            cancelling: false,
            ended: false,
            lost: false,
        }
    }

    /// What is known of it.
    pub(crate) fn head(&self) -> &Head {
        &self.head
    }

    /// The position of the entry that comes next.
    pub(crate) fn position(&self) -> u32 {
        self.next
    }

    /// Whether its last entry was not its own: no router could be found that carries it. It may go on, unread.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost
    }

    /// Asks for its end. Its terminal entry will come.
    pub(crate) fn cancel(&mut self) {
        self.cancelling = true;
        if let Some(call) = &self.call {
            call.cancel();
        }
    }

    /// Reads no more of it: its client is to go on elsewhere, soon.
    pub(crate) fn expect_back(&mut self) {
        self.ended = true;
        if let Some(call) = self.call.take() {
            call.expect_back();
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
                    let again = call.exchange().open(self.place().attach(), self.next, self.bearer.clone());
                    self.take(again);
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
                let exchange = router.exchange(&self.stream_id);
                let call = exchange.open(self.place().attach(), self.next, self.bearer.clone());
                self.take(call);
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

    /// Reads on `call` from now on.
    fn take(&mut self, call: Option<Call>) {
        self.call = call;
        if let (Some(call), true) = (&self.call, self.cancelling) {
            call.cancel();
        }
    }

    /// Whether a refusal to attach ends the search.
    fn consider(&mut self, failure: Failure) -> Result<(), Failure> {
        let patience = self.patience;
        let search = self.search.get_or_insert_with(|| Box::new(Search::new(patience)));
        match failure.reason() {
            Reason::Draining | Reason::Unavailable | Reason::Moved => {}
            Reason::NotFound if search.unknown < UNKNOWN => search.unknown += 1,
            Reason::NotFound => return Err(search.last.clone()),
            _ => return Err(failure),
        }
        Ok(())
    }

    fn fail(&mut self, failure: Failure, batch: &mut Vec<Entry>) -> u32 {
        self.ended = true;
        self.lost = true;
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
            drop(call.exchange().open(self.place().attach(), self.next, Bearer::default()));
        }
    }
}
