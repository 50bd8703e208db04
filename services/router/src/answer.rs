//! One answer: its journal, and all that the router must know to serve, move, end and log it.
//!
//! It has one *leg* at a time: the call on the worker that makes it, and the epoch in which that may append. What happens when is
//! decided in [`crate::router`]; here is only state, and what must be true of it: entries of an old leg are not taken, token ids
//! are counted once, and the end comes once.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use journal::{Journal, Kept, Limits, Writer};
use parking_lot::Mutex;
use proto::v1::{
    AnswerSummary, ChatRequest, ChoiceEnd, DisconnectPolicy, Entry, Failure, FinishReason, Head, Principal, Reason, ResumePoint, Usage,
    entry::Event,
};
use tokio::time::Instant;
use tracing::Span;

use crate::{
    admission::Claim,
    mailbox::{Mailbox, Mailboxes},
    pick,
    worker::Call,
};

/// An answer.
pub(crate) struct Answer {
    pub(crate) id: Arc<str>,
    pub(crate) principal: Principal,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) conversation_id: String,
    pub(crate) request_id: String,
    pub(crate) policy: Policy,
    pub(crate) claim: Claim,
    /// One for each choice.
    pub(crate) seats: u32,
    /// What leads it to the worker that holds its prefix.
    pub(crate) affinity: Option<u64>,
    pub(crate) journal: Journal<Entry>,
    pub(crate) started: Instant,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// When the last entry came, in milliseconds since it was started.
    last_ms: AtomicU32,
    tokens: Mutex<Tokens>,
    state: Mutex<State>,
}

/// What becomes of it when its last reader has gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    /// It stops.
    Cancel,
    /// It goes on for this time.
    Detach(Duration),
    /// It goes on to its end.
    Background,
}

impl Policy {
    pub(crate) fn of(request: &ChatRequest, grace: Duration) -> Self {
        match request.disconnect() {
            DisconnectPolicy::Unspecified | DisconnectPolicy::Cancel => Self::Cancel,
            DisconnectPolicy::Background => Self::Background,
            DisconnectPolicy::Detach if request.detach_grace_ms > 0 => Self::Detach(Duration::from_millis(request.detach_grace_ms.into())),
            DisconnectPolicy::Detach => Self::Detach(grace),
        }
    }
}

/// How a reader left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It said so, or its own call was dropped.
    Gone,
    /// The gateway that it read through is gone; the client may come back through another.
    Broken,
}

/// The ids of the generated tokens: what an engine needs to go on. Kept out of the journal, so that no reader's copy carries them.
#[derive(Debug, Default)]
struct Tokens {
    epoch: u32,
    /// The position of the next entry.
    next: u32,
    choices: Vec<Vec<u32>>,
}

struct State {
    phase: Phase,
    /// What was asked, until it has ended.
    request: Option<Arc<ChatRequest>>,
    writer: Arc<Writer<Entry>>,
    head: Option<Head>,
    mailboxes: Mailboxes,
    readers: u32,
    /// When it ends unless a reader comes.
    orphaned: Option<Instant>,
    /// Workers that it was given to before its first entry.
    attempts: u32,
    /// Workers that it was taken over from after that.
    migrations: u32,
    avoid: Option<u64>,
    worker: Arc<str>,
    turn: Turn,
    span: Span,
}

/// Where an answer stands with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// It belongs to no conversation.
    None,
    /// The store has been asked to open its turn.
    Opening,
    /// The store has its turn open.
    Open,
}

enum Phase {
    /// For the store, for a turn in the queue, or for another worker. Since when.
    Waiting(Instant),
    /// A worker makes it. Since when, and the call there.
    Running(Instant, Call),
    Ended,
}

/// What entries did to their answer.
#[derive(Debug)]
pub(crate) enum Fed {
    /// It goes on.
    More,
    /// Its terminal entry came.
    Ended,
    /// The leg is at fault; the answer could go on elsewhere.
    Broken(Failure),
    /// It is longer than a router keeps.
    Full,
    /// The leg is not the answer's any more.
    Stale,
}

/// What is left to do for an answer that has ended.
pub(crate) struct Ending {
    /// The call that made it, if it had one then.
    pub(crate) call: Option<Call>,
    pub(crate) worker: Arc<str>,
    pub(crate) epoch: u32,
    pub(crate) span: Span,
    /// Whether a worker ever took it.
    pub(crate) began: bool,
    /// Whether the store is being asked to open its turn.
    pub(crate) turn_is_opening: bool,
    /// Whether the store has its turn open.
    pub(crate) turn_is_open: bool,
}

/// What is due of an answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Its readers have been gone for too long.
    Cancel,
    /// It took too long in all, or its first token did.
    Fail(&'static str),
    /// No token came for too long: its leg is broken.
    Silent,
    /// Nobody could take it over in time.
    Lost,
}

/// The clocks of a stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    pub(crate) first_token: Duration,
    pub(crate) between_tokens: Duration,
    pub(crate) failover: Duration,
}

/// What an answer is made of.
pub(crate) struct Origin {
    pub(crate) id: Arc<str>,
    pub(crate) model: Arc<str>,
    pub(crate) limit: Duration,
    pub(crate) detach_grace: Duration,
    pub(crate) created_ms: i64,
    /// Its writer's: 1, unless it was begun elsewhere.
    pub(crate) epoch: u32,
    pub(crate) span: Span,
}

impl Answer {
    /// A new answer to `request`.
    ///
    /// # Errors
    /// Never for a fresh journal; the type says it.
    pub(crate) fn new(origin: Origin, request: ChatRequest) -> Result<Self, journal::Error> {
        let journal = Journal::new(Limits::default());
        let writer = Arc::new(journal.claim(origin.epoch)?);
        let principal = request.principal.clone().unwrap_or_default();
        let turn = if request.conversation_id.is_empty() {
            Turn::None
        } else {
            Turn::Opening
        };
        let now = Instant::now();
        Ok(Self {
            id: origin.id,
            fingerprint: request.fingerprint.clone(),
            conversation_id: request.conversation_id.clone(),
            request_id: request.request_id.clone(),
            policy: Policy::of(&request, origin.detach_grace),
            claim: Claim {
                model: origin.model,
                tenant: principal.tenant.as_str().into(),
                priority: request.priority,
            },
            principal,
            seats: request.n.max(1),
            affinity: pick::affinity_of(&request),
            journal,
            started: now,
            created_ms: origin.created_ms,
            limit: origin.limit,
            last_ms: AtomicU32::new(0),
            tokens: Mutex::new(Tokens {
                epoch: origin.epoch,
                ..Tokens::default()
            }),
            state: Mutex::new(State {
                phase: Phase::Waiting(now),
                request: Some(Arc::new(request)),
                writer,
                head: None,
                mailboxes: Mailboxes::default(),
                readers: 0,
                orphaned: None,
                attempts: 0,
                migrations: 0,
                avoid: None,
                worker: "".into(),
                turn,
                span: origin.span,
            }),
        })
    }

    /// Takes entries of the leg that writes with `writer`, the first for `position`. Called for every token.
    pub(crate) fn feed(&self, writer: &Writer<Entry>, position: u32, mut entries: Vec<Entry>, now: Instant) -> Fed {
        let latency_ms = millis(now.saturating_duration_since(self.started));
        let broken = takes_over(&mut entries);
        let terminal = entries.last().is_some_and(Entry::is_terminal);
        let appended = {
            let mut tokens = self.tokens.lock();
            if tokens.epoch != writer.epoch() {
                return Fed::Stale;
            }
            tokens.take(position, &mut entries, latency_ms);
            writer.append_from(position, entries)
        };
        self.last_ms.store(latency_ms, Ordering::Relaxed);
        match appended {
            Ok(_) if terminal => Fed::Ended,
            Ok(_) => broken.map_or(Fed::More, Fed::Broken),
            Err(journal::Error::Full) => Fed::Full,
            Err(journal::Error::Gap { .. }) => Fed::Broken(Failure::new(Reason::WorkerLost, "the worker left entries out")),
            Err(journal::Error::Closed | journal::Error::Fenced(_)) => Fed::Stale,
        }
    }

    /// A worker has taken it. The first head stands.
    pub(crate) fn set_head(&self, head: Head) {
        let mut state = self.state.lock();
        if state.head.is_none() {
            state.head = Some(Head {
                stream_id: self.id.to_string(),
                model: self.claim.model.to_string(),
                created: self.created_ms / 1000,
                conversation_id: self.conversation_id.clone(),
                ..head
            });
            state.mailboxes.ring();
        }
    }

    /// What was known when a worker took it; `None` before that.
    pub(crate) fn head(&self) -> Option<Head> {
        self.state.lock().head.clone()
    }

    /// A reader comes. Its mailbox is told once the head is known.
    pub(crate) fn enter(&self, mailbox: &Arc<Mailbox>, call: u32) {
        let mut state = self.state.lock();
        state.readers += 1;
        state.orphaned = None;
        state.mailboxes.add(mailbox, call);
        if state.head.is_some() {
            state.mailboxes.ring();
        }
    }

    /// A reader goes. Says whether the answer must end now: it was the last one, and the policy is so.
    pub(crate) fn leave(&self, mailbox: &Arc<Mailbox>, call: u32, left: Left, gateway_grace: Duration) -> bool {
        let mut state = self.state.lock();
        state.mailboxes.remove(mailbox, call);
        state.readers = state.readers.saturating_sub(1);
        if state.readers > 0 || matches!(state.phase, Phase::Ended) {
            return false;
        }
        let grace = match (self.policy, left) {
            (Policy::Background, _) => return false,
            (Policy::Detach(grace), _) => grace,
            (Policy::Cancel, Left::Broken) => gateway_grace,
            (Policy::Cancel, Left::Gone) => return true,
        };
        state.orphaned = Some(Instant::now() + grace);
        false
    }

    /// It has no reader yet, and ends unless one comes within this time.
    pub(crate) fn orphan(&self, grace: Duration) {
        let mut state = self.state.lock();
        if state.readers == 0 {
            state.orphaned = Some(Instant::now() + grace);
        }
    }

    /// What was asked. `None` once it has ended.
    pub(crate) fn request(&self) -> Option<Arc<ChatRequest>> {
        self.state.lock().request.clone()
    }

    /// The store's history has come.
    pub(crate) fn set_request(&self, request: ChatRequest) {
        let mut state = self.state.lock();
        if state.request.is_some() {
            state.request = Some(Arc::new(request));
        }
    }

    /// Another router has opened its turn; this one closes it.
    pub(crate) fn inherit_turn(&self) {
        let mut state = self.state.lock();
        if state.turn == Turn::Opening {
            state.turn = Turn::Open;
        }
    }

    /// The store has been asked to open the turn, and has said yes or no. Says whether there is a turn to close already.
    pub(crate) fn turn_opened(&self, opened: bool) -> bool {
        let mut state = self.state.lock();
        state.turn = if opened { Turn::Open } else { Turn::None };
        opened && matches!(state.phase, Phase::Ended)
    }

    /// The writer of the current epoch.
    pub(crate) fn writer(&self) -> Arc<Writer<Entry>> {
        Arc::clone(&self.state.lock().writer)
    }

    /// The worker to avoid, as it has just failed there.
    pub(crate) fn avoids(&self) -> Option<u64> {
        self.state.lock().avoid
    }

    /// Takes over writing in this epoch: what the leg before still sends is not taken.
    ///
    /// # Errors
    /// The answer has ended, or the epoch is not a later one.
    pub(crate) fn claim(&self, epoch: u32) -> Result<(), journal::Error> {
        let mut state = self.state.lock();
        let mut tokens = self.tokens.lock();
        state.writer = Arc::new(self.journal.claim(epoch)?);
        tokens.epoch = epoch;
        Ok(())
    }

    /// Opens a leg: `call` makes the call on the worker and must not block. Says whether the answer runs now; it does not if it
    /// has ended, or if the worker was gone.
    pub(crate) fn run(&self, worker: &Arc<str>, call: impl FnOnce(&Arc<ChatRequest>, &Arc<Writer<Entry>>) -> Option<Call>) -> Ran {
        let mut state = self.state.lock();
        let Phase::Waiting(_) = state.phase else { return Ran::Over };
        let Some(request) = state.request.clone() else { return Ran::Over };
        let Some(call) = call(&request, &state.writer) else {
            return Ran::NoWorker;
        };
        state.phase = Phase::Running(Instant::now(), call);
        state.worker = Arc::clone(worker);
        Ran::Runs
    }

    /// The leg of this epoch is broken: the answer waits for another one. `None` if it was not the current one. The call, if any is left, is the caller's to end.
    pub(crate) fn unrun(&self, epoch: u32) -> Option<Unrun> {
        let mut state = self.state.lock();
        if state.writer.epoch() != epoch || !matches!(state.phase, Phase::Running(..)) {
            return None;
        }
        let Phase::Running(_, call) = std::mem::replace(&mut state.phase, Phase::Waiting(Instant::now())) else {
            return None;
        };
        state.avoid = call.worker().map(|worker| worker.name());
        let begun = !self.journal.is_empty();
        let again = if begun { &mut state.migrations } else { &mut state.attempts };
        *again += 1;
        let times = *again;
        Some(Unrun { call, begun, times, epoch })
    }

    /// Closes the journal with this entry, unless it is closed.
    pub(crate) fn close(&self, entry: Entry) {
        let latency_ms = millis(self.started.elapsed());
        let _ = self.writer().append(Entry { latency_ms, ..entry }); // fails only if another terminal came first, and that stands
    }

    /// Says once that it has ended, and what is left to do. The journal must be closed.
    pub(crate) fn end(&self) -> Option<Ending> {
        let mut state = self.state.lock();
        let call = match std::mem::replace(&mut state.phase, Phase::Ended) {
            Phase::Ended => return None,
            Phase::Waiting(_) => None,
            Phase::Running(_, call) => Some(call),
        };
        state.request = None;
        state.mailboxes.ring();
        *self.tokens.lock() = Tokens::default();
        Some(Ending {
            call,
            worker: Arc::clone(&state.worker),
            epoch: state.writer.epoch(),
            span: std::mem::replace(&mut state.span, Span::none()),
            began: state.head.is_some(),
            turn_is_opening: state.turn == Turn::Opening,
            turn_is_open: state.turn == Turn::Open,
        })
    }

    /// What is due now.
    pub(crate) fn due(&self, now: Instant, clocks: &Clocks) -> Due {
        let state = self.state.lock();
        let begun = !self.journal.is_empty();
        let last = self.started + Duration::from_millis(self.last_ms.load(Ordering::Relaxed).into());
        match &state.phase {
            Phase::Ended => Due::Nothing,
            _ if state.orphaned.is_some_and(|until| now >= until) => Due::Cancel,
            _ if now >= self.started + self.limit => Due::Fail("the answer took longer than it may"),
            Phase::Waiting(since) if state.attempts + state.migrations > 0 && now >= *since + clocks.failover => Due::Lost,
            Phase::Running(since, _) if !begun && now >= *since + clocks.first_token => Due::Fail("no token came in time"),
            Phase::Running(since, _) if begun && now >= last.max(*since) + clocks.between_tokens => Due::Silent,
            _ => Due::Nothing,
        }
    }

    /// The epoch of its writer.
    pub(crate) fn epoch(&self) -> u32 {
        self.state.lock().writer.epoch()
    }

    /// Whether it waits for a turn that was not given to it before.
    pub(crate) fn is_fresh(&self) -> bool {
        let state = self.state.lock();
        state.attempts == 0 && state.migrations == 0
    }

    /// What it took so far, counted from the journal.
    pub(crate) fn usage(&self) -> Usage {
        let head = self.head().unwrap_or_default();
        let mut usage = Usage {
            prompt_tokens: head.prompt_tokens,
            cached_tokens: head.cached_tokens,
            ..Usage::default()
        };
        self.journal.with_entries(|entries| {
            for entry in entries {
                usage.completion_tokens += entry.tokens;
                if matches!(entry.event, Some(Event::Reasoning(_))) {
                    usage.reasoning_tokens += entry.tokens;
                }
            }
        });
        usage
    }

    /// Where each choice stands, for an engine that goes on.
    pub(crate) fn resume_points(&self) -> Vec<ResumePoint> {
        let mut points: Vec<ResumePoint> = (0..self.seats)
            .map(|choice| ResumePoint {
                choice,
                ..ResumePoint::default()
            })
            .collect();
        let tokens = self.tokens.lock();
        for (point, ids) in points.iter_mut().zip(&tokens.choices) {
            point.token_ids.clone_from(ids);
        }
        self.journal.with_entries(|entries| {
            for entry in entries {
                if let Some(point) = points.get_mut(entry.choice as usize) {
                    point.text.push_str(&entry.token);
                }
            }
        });
        points
    }

    /// What operators see.
    pub(crate) fn summary(&self) -> AnswerSummary {
        let state = self.state.lock();
        AnswerSummary {
            stream_id: self.id.to_string(),
            model: self.claim.model.to_string(),
            worker: state.worker.to_string(),
            epoch: state.writer.epoch(),
            entries: self.journal.len(),
            readers: state.readers,
            state: self.state_word().to_owned(),
            age_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }
}

/// What the journal says of an answer.
impl Answer {
    /// The model that answers.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.claim.model
    }

    /// How it stands: `running`, `finished`, `failed` or `cancelled`.
    pub(crate) fn state_word(&self) -> &'static str {
        self.journal
            .with_entries(|entries| match entries.last().and_then(|entry| entry.event.as_ref()) {
                Some(Event::Finished(_)) => "finished",
                Some(Event::Failed(_)) => "failed",
                Some(Event::Cancelled(_)) => "cancelled",
                _ => "running",
            })
    }

    /// How it ended, in the request log's words.
    pub(crate) fn finish_word(&self) -> &'static str {
        self.journal
            .with_entries(|entries| match entries.last().and_then(|entry| entry.event.as_ref()) {
                Some(Event::Finished(finished)) => finished.choices.first().map_or(FinishReason::Stop, ChoiceEnd::reason).as_word(),
                Some(Event::Failed(failure)) => failure.reason().as_word(),
                Some(Event::Cancelled(_)) => "cancelled",
                _ => "running",
            })
    }

    /// What it took in the end: as its terminal entry says, which may know more than the entries do.
    pub(crate) fn final_usage(&self) -> Usage {
        let told = self.journal.with_entries(|entries| entries.last().and_then(Entry::usage));
        told.unwrap_or_else(|| self.usage())
    }

    /// Milliseconds to the first token. 0: none came.
    pub(crate) fn first_ms(&self) -> u32 {
        let first = |entries: &[Entry]| entries.iter().find(|entry| entry.tokens > 0).map_or(0, |entry| entry.latency_ms);
        self.journal.with_entries(first)
    }
}

/// A leg that is no more.
pub(crate) struct Unrun {
    /// The call that was its.
    pub(crate) call: Call,
    /// Whether there are entries: another worker must go on with it rather than begin.
    pub(crate) begun: bool,
    /// How often this has happened to the answer, this time included.
    pub(crate) times: u32,
    /// The leg's epoch.
    pub(crate) epoch: u32,
}

/// What became of an attempt to run an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ran {
    /// It runs.
    Runs,
    /// It has ended, or runs already.
    Over,
    /// The worker was gone.
    NoWorker,
}

impl Tokens {
    /// Moves the ids out of entries that are new, and stamps them with their time.
    fn take(&mut self, position: u32, entries: &mut [Entry], latency_ms: u32) {
        for (at, entry) in (position..).zip(entries) {
            entry.latency_ms = latency_ms;
            let ids = std::mem::take(&mut entry.token_ids);
            if at < self.next {
                continue;
            }
            self.next = at + 1;
            let choice = entry.choice as usize;
            if !ids.is_empty() && choice < crate::request::MAX_CHOICES as usize {
                if self.choices.len() <= choice {
                    self.choices.resize_with(choice + 1, Vec::new);
                }
                self.choices[choice].extend_from_slice(&ids);
            }
        }
    }
}

/// An answer as the shelf keeps it.
#[derive(Clone)]
pub(crate) struct Shelved(pub(crate) Arc<Answer>);

impl Kept for Shelved {
    fn weight(&self) -> usize {
        size_of::<Answer>() + self.0.journal.bytes()
    }
}

/// Takes a terminal entry off whose fault is the worker's, not the answer's: another worker may go on.
fn takes_over(entries: &mut Vec<Entry>) -> Option<Failure> {
    let Some(Event::Failed(failure)) = &entries.last()?.event else {
        return None;
    };
    if !matches!(
        failure.reason(),
        Reason::Upstream | Reason::WorkerLost | Reason::Draining | Reason::Unavailable
    ) {
        return None;
    }
    match entries.pop()?.event {
        Some(Event::Failed(failure)) => Some(*failure),
        _ => None,
    }
}

/// Whole milliseconds, in the contract's type.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
