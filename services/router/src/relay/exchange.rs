//! Many answers on one call: a gateway's commands come down, the entries of all its answers go up.
//!
//! One stream polls both, so an answer costs no task. tonic asks until nothing is ready and then writes: all that one decode step
//! has made leaves together.

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
};

use chassis::pace::{Pace, RELAYED};
use foldhash::{HashMap, HashMapExt as _};
use futures_util::{Stream, StreamExt as _, future::BoxFuture, stream::FuturesUnordered};
use journal::Readers;
use proto::v1::{ChatCommand, ChatRequest, ChatResponse, Entry, Failure, ResumeChatRequest, chat_command::Command};
use tokio_util::sync::WaitForCancellationFutureOwned;
use tonic::{Status, Streaming};

use super::solo::refusal;
use crate::{
    answer::{Answer, Left},
    mailbox::Mailbox,
    reading::Reading,
    router::Router,
};

/// Entries of one answer in one message: a reader that catches up leaves the others their turns.
const BATCH: usize = 256;
/// Commands that are done at once: entries have their turns too.
const COMMANDS: usize = 256;
/// Messages that may go up before commands are looked at again.
const TURN: u32 = 64;
/// Answers that one exchange reads at once.
const CALLS: usize = 16 * 1024;

/// A gateway's exchange.
pub(crate) struct Exchange {
    router: Arc<Router>,
    commands: Option<Streaming<ChatCommand>>,
    readers: Readers<Entry, Reader>,
    pace: Pace,
    mailbox: Arc<Mailbox>,
    outgoing: VecDeque<ChatResponse>,
    /// Answers that this router does not hold, and asks the workers for: to read them, or before they are started.
    adoptions: FuturesUnordered<Adoption>,
    /// The calls that wait for these.
    adopting: HashMap<u32, Arc<Asked>>,
    /// Messages until commands are looked at again.
    until_commands: u32,
    over: Pin<Box<WaitForCancellationFutureOwned>>,
}

/// For whom an answer is looked for, and what came of it.
type Adoption = BoxFuture<'static, (Arc<Asked>, Result<Arc<Answer>, Failure>)>;

/// A call that waits for its answer.
struct Asked {
    call: u32,
    /// The position that it wants.
    position: u32,
    /// Whether the answer is to end as soon as it is there: also when the call has gone meanwhile, as it does when its key is revoked.
    cancelled: AtomicBool,
}

struct Reader {
    reading: Reading,
    head_sent: bool,
}

impl Exchange {
    pub(crate) fn new(router: &Arc<Router>, commands: Streaming<ChatCommand>) -> Self {
        Self {
            router: Arc::clone(router),
            commands: Some(commands),
            readers: Readers::default(),
            pace: Pace::new(RELAYED),
            mailbox: Arc::default(),
            outgoing: VecDeque::new(),
            adoptions: FuturesUnordered::new(),
            adopting: HashMap::new(),
            until_commands: 0,
            over: Box::pin(router.over().cancelled_owned()),
        }
    }

    /// Does the commands that have come.
    fn poll_commands(&mut self, context: &mut Context<'_>) {
        for _ in 0..COMMANDS {
            let Some(commands) = &mut self.commands else { return };
            match commands.poll_next_unpin(context) {
                Poll::Pending => return,
                Poll::Ready(Some(Ok(command))) => self.obey(command),
                Poll::Ready(Some(Err(_)) | None) => self.commands = None,
            }
        }
        context.waker().wake_by_ref(); // there may be more
    }

    fn obey(&mut self, ChatCommand { call, command }: ChatCommand) {
        match command {
            Some(Command::Start(request)) => match self.is_free(call) {
                Ok(()) => self.start(call, *request),
                Err(failure) => self.refuse(call, failure),
            },
            Some(Command::Attach(request)) => match self.is_free(call) {
                Ok(()) => self.attach(call, request),
                Err(failure) => self.refuse(call, failure),
            },
            Some(Command::Detach(detach)) => self.detach(call, detach.lagging),
            Some(Command::Cancel(_)) => {
                if let Some(asked) = self.adopting.get(&call) {
                    asked.cancelled.store(true, Ordering::Relaxed);
                } else if let Some(reader) = self.readers.get(call) {
                    self.router.cancel(reader.reading.answer());
                }
            }
            None => self.refuse(call, Failure::invalid("command", "the command is missing")),
        }
    }

    fn start(&mut self, call: u32, request: ChatRequest) {
        if !self.router.may_be_elsewhere(&request) {
            match self.router.start(request) {
                Ok(answer) => self.read(call, answer, 0),
                Err(failure) => self.refuse(call, failure),
            }
            return;
        }
        let (router, asked) = (Arc::clone(&self.router), self.await_answer(call, 0));
        self.adoptions
            .push(Box::pin(async move { (asked, router.find_or_start(request).await) }));
    }

    fn attach(&mut self, call: u32, request: ResumeChatRequest) {
        let ResumeChatRequest {
            stream_id,
            position,
            principal,
        } = request;
        if self.router.holds(&stream_id) {
            match self.router.find(&stream_id, principal.as_ref()) {
                Ok(answer) => self.read(call, answer, position),
                Err(failure) => self.refuse(call, failure),
            }
            return;
        }
        let (router, asked) = (Arc::clone(&self.router), self.await_answer(call, position));
        self.adoptions.push(Box::pin(async move {
            let found = router.find_or_adopt(&stream_id, principal.as_ref()).await;
            (asked, found)
        }));
    }

    fn await_answer(&mut self, call: u32, position: u32) -> Arc<Asked> {
        let asked = Arc::new(Asked {
            call,
            position,
            cancelled: AtomicBool::new(false),
        });
        self.adopting.insert(call, Arc::clone(&asked));
        asked
    }

    fn detach(&mut self, call: u32, lagging: bool) {
        self.adopting.remove(&call);
        if let Some((_, reader)) = self.readers.remove(call) {
            reader.reading.leave(if lagging { Left::Lagging } else { Left::Gone });
        }
    }

    fn poll_adoptions(&mut self, context: &mut Context<'_>) {
        while let Poll::Ready(Some((asked, found))) = self.adoptions.poll_next_unpin(context) {
            let call = asked.call;
            // By now another may have the number of a call that has gone.
            let waits = self.adopting.get(&call).is_some_and(|waiting| Arc::ptr_eq(waiting, &asked));
            if waits {
                self.adopting.remove(&call);
            }
            if let Ok(answer) = &found
                && asked.cancelled.load(Ordering::Relaxed)
            {
                self.router.cancel(answer);
            }
            match found {
                Ok(answer) if waits => self.read(call, answer, asked.position),
                // The reader has gone meanwhile: an answer that was begun for it must know.
                Ok(answer) => Reading::new(&self.router, answer, &self.mailbox, call).leave(Left::Broken),
                Err(failure) if waits => self.refuse(call, failure),
                Err(_) => {}
            }
        }
    }

    /// # Errors
    /// The number is taken, or there are too many.
    fn is_free(&self, call: u32) -> Result<(), Failure> {
        if self.readers.get(call).is_some() || self.adopting.contains_key(&call) {
            return Err(Failure::invalid("call", format!("the call {call} is open already")));
        }
        if self.readers.len() + self.adoptions.len() >= CALLS {
            return Err(Failure::invalid("call", format!("an exchange reads {CALLS} answers at most")));
        }
        Ok(())
    }

    fn read(&mut self, call: u32, answer: Arc<Answer>, position: u32) {
        let reader = answer.journal.reader(position);
        let reading = Reading::new(&self.router, answer, &self.mailbox, call);
        self.readers.insert(call, reader, Reader { reading, head_sent: false });
    }

    fn refuse(&mut self, call: u32, failure: Failure) {
        self.outgoing.push_back(ChatResponse {
            call,
            refused: Some(Box::new(failure)),
            ..ChatResponse::default()
        });
    }

    /// The head of an answer whose reader has not had it, as a message of its own.
    fn poll_head(&mut self, context: &Context<'_>) -> Option<ChatResponse> {
        while let Some(call) = self.mailbox.poll(context) {
            if let Some(reader) = self.readers.get_mut(call)
                && !reader.head_sent
                && let Some(head) = reader.reading.answer().head()
            {
                reader.head_sent = true;
                self.pace.refill();
                return Some(ChatResponse {
                    call,
                    head: Some(Box::new(head)),
                    ..ChatResponse::default()
                });
            }
        }
        None
    }

    /// The entries that are ready for one of the calls.
    fn poll_entries(&mut self, context: &mut Context<'_>) -> Poll<ChatResponse> {
        ready!(self.pace.poll_send(context));
        let delivered = self.readers.poll_read(context, BATCH, |call, first, entries, reader| {
            let response = ChatResponse {
                call,
                position: Some(first),
                entries: entries.to_vec(),
                ..ChatResponse::default()
            };
            (response, reader.head_sent)
        });
        let Poll::Ready(mut delivered) = delivered else {
            self.pace.rest();
            return Poll::Pending;
        };
        self.pace.sent();
        let call = delivered.call;
        let (mut response, head_sent) = delivered.taken.unwrap_or_else(|| {
            // The reader began past the end: there is nothing but to say so.
            let response = ChatResponse {
                call,
                done: Some(true),
                ..ChatResponse::default()
            };
            (response, false)
        });
        let reader = if head_sent {
            None
        } else {
            delivered.done.as_mut().or_else(|| self.readers.get_mut(call))
        };
        if let Some(reader) = reader
            && !reader.head_sent
        {
            reader.head_sent = true;
            response.head = reader.reading.answer().head().map(Box::new);
            if let Some(failure) = refusal(reader.reading.answer()) {
                response.entries.clear();
                response.position = None;
                response.refused = Some(Box::new(failure));
            }
        }
        Poll::Ready(response)
    }
}

impl Stream for Exchange {
    type Item = Result<ChatResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        loop {
            // Commands are asked for first, then once in a while, and always before there is nothing to do: whatever wakes this
            // stream may be a command.
            let asked = this.until_commands == 0;
            if asked {
                this.poll_commands(context);
                this.poll_adoptions(context);
                this.until_commands = TURN;
            }
            this.until_commands -= 1;
            if let Some(response) = this.outgoing.pop_front() {
                return Poll::Ready(Some(Ok(response)));
            }
            if let Some(response) = this.poll_head(context) {
                return Poll::Ready(Some(Ok(response)));
            }
            if let Poll::Ready(response) = this.poll_entries(context) {
                return Poll::Ready(Some(Ok(response)));
            }
            this.until_commands = 0;
            if asked {
                break;
            }
        }
        let over = this.commands.is_none() || this.over.as_mut().poll(context).is_ready();
        if over && this.readers.is_empty() && this.adoptions.is_empty() {
            return Poll::Ready(None);
        }
        Poll::Pending
    }
}

impl Drop for Exchange {
    /// The gateway, or the way to it, is gone: its clients may come back through another one.
    fn drop(&mut self) {
        for (_, reader) in self.readers.drain() {
            reader.reading.leave(Left::Broken);
        }
    }
}
