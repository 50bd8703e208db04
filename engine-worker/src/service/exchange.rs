//! An exchange: many answers on one call, polled as one stream.
//!
//! Commands, answers that are starting and the readers of running ones are all polled from the stream itself, so no task per
//! answer exists, and all that one decode step made leaves in one write (tonic packs what is ready into one frame). When the call
//! breaks, this is dropped: its answers are unattended from then on, and those that still wait for a seat go on waiting for a while.

use std::{
    collections::VecDeque,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use chassis::pace::{MADE, Pace};
use foldhash::{HashMap, HashMapExt as _};
use futures_util::{
    Stream, StreamExt as _,
    future::{AbortHandle, Abortable},
    stream::FuturesUnordered,
};
use journal::Readers;
use proto::v1::{EngineCommand, Entry, Failure, GenerateResponse, engine_command::Command};
use tokio::{runtime::Handle, time::timeout};
use tonic::{Status, Streaming};

use super::answers::{Answers, Attached, Attendance, Record, Starting};
use super::hold::{Hold, Notices};
use super::opening::Opening;

/// The most entries of one response: a reader that begins far behind leaves turns to the others.
pub(super) const BATCH: usize = 256;
/// After this many responses in a row, commands have their turn even if more is ready.
const BURST: u32 = 64;
/// Commands that are taken in one turn, so that responses have theirs.
const COMMANDS: usize = 64;

type Start = Pin<Box<dyn Future<Output = (u32, Result<Attached, Failure>)> + Send>>;

/// The responses of an exchange.
pub struct Exchange {
    answers: Arc<Answers>,
    commands: Streaming<EngineCommand>,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    /// No command will come any more: the router has closed its side, or the worker is draining and takes nothing new.
    closing: Closing,
    starts: FuturesUnordered<Abortable<Start>>,
    starting: HashMap<u32, Waiting>,
    readers: Readers<Entry, Reading>,
    pace: Pace,
    /// Which calls have lost their answers to another router.
    notices: Arc<Notices>,
    /// Responses that are not entries: heads and refusals.
    replies: VecDeque<GenerateResponse>,
    burst: u32,
}

#[derive(Default)]
struct Closing {
    by_router: bool,
    by_drain: bool,
}

/// A call whose answer has not begun.
struct Waiting {
    record: Arc<Record>,
    abort: AbortHandle,
    hold: Arc<Hold>,
}

/// A call that reads its answer.
struct Reading {
    attendance: Attendance,
    /// The position of the journal's first entry.
    base: u32,
    opening: Opening,
    hold: Arc<Hold>,
}

impl Exchange {
    pub(super) fn new(answers: Arc<Answers>, commands: Streaming<EngineCommand>) -> Self {
        let drain = answers.drain().clone();
        Self {
            answers,
            commands,
            draining: Box::pin(async move { drain.draining().await }),
            closing: Closing::default(),
            starts: FuturesUnordered::new(),
            starting: HashMap::new(),
            readers: Readers::default(),
            pace: Pace::new(MADE),
            notices: Arc::default(),
            replies: VecDeque::new(),
            burst: 0,
        }
    }

    /// Takes commands and answers that have begun, as many as have come.
    fn poll_others(&mut self, context: &mut Context<'_>) -> Result<(), Status> {
        if !self.closing.by_drain && self.draining.as_mut().poll(context).is_ready() {
            self.closing.by_drain = true;
        }
        let mut taken = 0;
        while !self.closing.by_router {
            match self.commands.poll_next_unpin(context) {
                Poll::Pending => break,
                Poll::Ready(None) => self.closing.by_router = true,
                Poll::Ready(Some(command)) => self.obey(command?),
            }
            taken += 1;
            if taken == COMMANDS {
                context.waker().wake_by_ref();
                break;
            }
        }
        while let Some(call) = self.notices.poll(context) {
            if self.knows(call) {
                self.replies.push_back(GenerateResponse {
                    call,
                    disowned: true,
                    ..GenerateResponse::default()
                });
            }
        }
        while let Poll::Ready(Some(started)) = self.starts.poll_next_unpin(context) {
            match started {
                Ok((call, Ok(attached))) => {
                    let waiting = self.starting.remove(&call);
                    let hold = waiting.map_or_else(|| Hold::new(&self.notices, call), |waiting| waiting.hold);
                    self.read(call, attached, Opening::Head, hold);
                }
                Ok((call, Err(failure))) => {
                    self.starting.remove(&call);
                    self.refuse(call, failure);
                }
                Err(futures_util::future::Aborted) => {}
            }
        }
        Ok(())
    }

    fn obey(&mut self, command: EngineCommand) {
        let call = command.call;
        match command.command {
            Some(Command::Start(_) | Command::Attach(_)) if self.knows(call) => {
                let message = format!("call {call} is in use in this exchange");
                self.refuse(call, Failure::invalid("call", message));
            }
            Some(Command::Start(request)) if request.stream_id.is_empty() => {
                self.refuse(
                    call,
                    Failure::invalid("stream_id", "stream_id is missing: an exchange names its answers"),
                );
            }
            Some(Command::Start(request)) => match self.answers.enter(*request) {
                Ok(starting) => self.start(call, starting),
                Err(failure) => self.refuse(call, failure),
            },
            Some(Command::Attach(request)) => match self.answers.attach(&request) {
                Ok(attached) => {
                    let hold = Hold::new(&self.notices, call);
                    self.read(call, attached, Opening::of(&request), hold);
                }
                Err(failure) => self.refuse(call, failure),
            },
            Some(Command::Detach(_)) => {
                self.readers.remove(call);
                if let Some(waiting) = self.starting.remove(&call) {
                    waiting.abort.abort(); // it never began, so there is nothing that could go on
                }
            }
            Some(Command::Cancel(_)) => {
                // Not what is another router's, or has ended already.
                if let Some(reading) = self.readers.get(call).filter(|reading| !reading.hold.is_lost()) {
                    reading.attendance.abort();
                } else if let Some(waiting) = self.starting.get(&call).filter(|waiting| !waiting.hold.is_lost()) {
                    self.answers.abort_record(&waiting.record);
                }
            }
            Some(Command::Own(own)) => {
                if let Some(Reading { attendance, hold, .. }) = self.readers.get(call) {
                    attendance.record().take_over(Arc::clone(hold), own.epoch);
                }
            }
            None => self.refuse(call, Failure::invalid("command", "the command is missing")),
        }
    }

    fn knows(&self, call: u32) -> bool {
        self.starting.contains_key(&call) || self.readers.get(call).is_some()
    }

    fn start(&mut self, call: u32, starting: Starting) {
        let (abort, registration) = AbortHandle::new_pair();
        let record = starting.record();
        let hold = Hold::new(&self.notices, call);
        record.hold(Arc::clone(&hold));
        let start: Start = Box::pin(async move { (call, starting.begin().await) });
        self.starts.push(Abortable::new(start, registration));
        self.starting.insert(call, Waiting { record, abort, hold });
    }

    fn refuse(&mut self, call: u32, failure: Failure) {
        self.replies.push_back(GenerateResponse {
            call,
            refused: Some(Box::new(failure)),
            ..GenerateResponse::default()
        });
    }

    /// Reads an answer for `call` from now on. Its head goes first, if it is known yet.
    fn read(&mut self, call: u32, attached: Attached, mut opening: Opening, hold: Arc<Hold>) {
        let Attached { attendance, reader } = attached;
        let mut response = GenerateResponse {
            call,
            position: attendance.record().position(reader.next()),
            ..GenerateResponse::default()
        };
        if attendance.record().has_begun() {
            opening.write(attendance.record(), &mut response);
            self.replies.push_back(response);
        }
        let reading = Reading {
            base: attendance.record().position(0),
            attendance,
            opening,
            hold,
        };
        self.readers.insert(call, reader, reading);
        self.pace.refill();
    }

    fn poll_entries(&mut self, context: &mut Context<'_>) -> Poll<GenerateResponse> {
        ready!(self.pace.poll_send(context));
        let delivered = self.readers.poll_read(context, BATCH, |call, first, entries, reading| {
            let response = GenerateResponse {
                call,
                position: reading.base.saturating_add(first),
                entries: entries.to_vec(),
                ..GenerateResponse::default()
            };
            (response, reading.opening)
        });
        let Poll::Ready(mut delivered) = delivered else {
            self.pace.rest();
            return Poll::Pending;
        };
        self.pace.sent();
        let call = delivered.call;
        let Some((mut response, opening)) = delivered.taken else {
            let refused = delivered.done.map(|reading| Box::new(reading.attendance.record().past_the_end()));
            return Poll::Ready(GenerateResponse {
                call,
                refused,
                ..GenerateResponse::default()
            });
        };
        if opening != Opening::Told
            && let Some(Reading { attendance, opening, .. }) = delivered.done.as_mut().or_else(|| self.readers.get_mut(call))
        {
            opening.write(attendance.record(), &mut response);
        }
        Poll::Ready(response)
    }
}

impl Drop for Exchange {
    /// Another router may be looking for answers that wait for a seat, too: they wait on without this call.
    fn drop(&mut self) {
        let mut starts = std::mem::take(&mut self.starts);
        if starts.is_empty() || Handle::try_current().is_err() {
            return;
        }
        let grace = self.answers.unattended_grace();
        self.answers.drain().spawn(async move {
            let _ = timeout(grace, async { while starts.next().await.is_some() {} }).await;
        });
    }
}

impl Stream for Exchange {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let exchange = self.get_mut();
        loop {
            let looked = exchange.burst == 0;
            if looked {
                if let Err(status) = exchange.poll_others(context) {
                    return Poll::Ready(Some(Err(status)));
                }
                exchange.burst = BURST;
            }
            exchange.burst -= 1;
            if let Some(reply) = exchange.replies.pop_front() {
                return Poll::Ready(Some(Ok(reply)));
            }
            if let Poll::Ready(response) = exchange.poll_entries(context) {
                return Poll::Ready(Some(Ok(response)));
            }
            exchange.burst = 0; // nothing is ready: whoever wakes this has brought something
            if looked {
                let closing = exchange.closing.by_router || exchange.closing.by_drain;
                return if closing && exchange.starting.is_empty() && exchange.readers.is_empty() {
                    Poll::Ready(None)
                } else {
                    Poll::Pending
                };
            }
        }
    }
}
