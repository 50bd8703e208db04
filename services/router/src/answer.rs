//! One answer: its journal, and all that the router must know to serve, move, end and log it.
//!
//! It has one *leg* at a time ([`leg`]): the call on the worker that makes it, and the epoch in which that may append. [`readers`] says who
//! reads it, [`owner`] whose it is, [`end`] how it ends, [`saved`] what the store has of it meanwhile. What happens when is decided in
//! [`crate::router`]; here is only state, and what must be true of it: entries of an old leg are not taken, token ids are counted once, and
//! the end comes once.

pub(crate) mod end;
pub(crate) mod leg;
mod owner;
mod readers;
mod saved;
mod tokens;

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use journal::{Journal, Kept, Limits, Writer};
use parking_lot::Mutex;
use proto::v1::{AnswerSummary, ChatRequest, Entry, Head, Principal};
use tokio::time::Instant;
use tracing::Span;

pub(crate) use self::readers::{Left, Policy};
use self::{saved::Saved, tokens::Progress};
use crate::{
    admission::Claim,
    mailbox::Mailboxes,
    pick,
    worker::{Call, Worker},
};

/// An answer.
pub(crate) struct Answer {
    pub(crate) id: Arc<str>,
    pub(crate) principal: Principal,
    pub(crate) fingerprint: Vec<u8>,
    pub(crate) conversation_id: String,
    pub(crate) request_id: String,
    /// The gateway's door, and the id of the key, for the request log.
    pub(crate) door: String,
    pub(crate) key_id: String,
    pub(crate) policy: Policy,
    /// Whether the store keeps it, entries and all, when it has ended.
    pub(crate) keep: bool,
    pub(crate) claim: Claim,
    /// One for each choice.
    pub(crate) seats: u32,
    /// What leads it to the worker that holds its prefix.
    pub(crate) affinity: Option<u64>,
    pub(crate) journal: Journal<Entry>,
    progress: Progress,
    /// Milliseconds since 1970.
    pub(crate) created_ms: i64,
    /// How long it may take.
    pub(crate) limit: Duration,
    /// Whether it is this router's.
    owned: AtomicBool,
    state: Mutex<State>,
}

struct State {
    phase: Phase,
    /// What was asked, until it has ended.
    request: Option<Arc<ChatRequest>>,
    writer: Writer<Entry>,
    head: Option<Head>,
    mailboxes: Mailboxes,
    readers: u32,
    /// When it ends unless a reader comes.
    orphaned: Option<Instant>,
    /// Workers that it was given to before its first entry.
    attempts: u32,
    /// Workers that it was taken over from after that.
    migrations: u32,
    /// Times that it lost its leg to another router's.
    contests: u32,
    avoid: Option<u64>,
    worker: Arc<str>,
    /// The last epoch that is this router's beyond doubt: its first one, or one that the store has given.
    given: u32,
    /// Another worker is being made ready for it.
    moving: bool,
    saved: Saved,
    turn: Turn,
    span: Span,
}

/// Where an answer stands with the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Turn {
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
        let writer = journal.claim(origin.epoch)?;
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
            door: request.door.clone(),
            key_id: request.key_id.clone(),
            policy: Policy::of(&request, origin.detach_grace),
            keep: request.keep,
            claim: Claim {
                model: origin.model,
                tenant: principal.tenant.as_str().into(),
                priority: request.priority,
            },
            principal,
            seats: request.n.max(1),
            affinity: pick::affinity_of(&request),
            journal,
            progress: Progress::new(now, origin.epoch),
            created_ms: origin.created_ms,
            limit: origin.limit,
            owned: AtomicBool::new(true),
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
                contests: 0,
                avoid: None,
                worker: "".into(),
                given: origin.epoch,
                moving: false,
                saved: Saved::default(),
                turn,
                span: origin.span,
            }),
        })
    }

    /// A worker has taken it. The first head stands.
    pub(crate) fn set_head(&self, head: &Head) {
        let mut state = self.state.lock();
        if state.head.is_none() {
            state.head = Some(Head {
                stream_id: self.id.to_string(),
                model: self.claim.model.to_string(),
                created: self.created_ms / 1000,
                prompt_tokens: head.prompt_tokens,
                cached_tokens: head.cached_tokens,
                epoch: head.epoch,
                conversation_id: self.conversation_id.clone(),
            });
            state.mailboxes.ring();
        }
    }

    /// What was known when a worker took it; `None` before that.
    pub(crate) fn head(&self) -> Option<Head> {
        self.state.lock().head.clone()
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
    pub(crate) fn writer(&self) -> Writer<Entry> {
        self.state.lock().writer.clone()
    }

    /// When it was admitted.
    pub(crate) fn started(&self) -> Instant {
        self.progress.started
    }

    /// The worker that makes it now.
    pub(crate) fn worker(&self) -> Option<Arc<Worker>> {
        match &self.state.lock().phase {
            Phase::Running(_, call) => call.worker().cloned(),
            Phase::Waiting(_) | Phase::Ended => None,
        }
    }

    /// The epoch of its writer.
    pub(crate) fn epoch(&self) -> u32 {
        self.state.lock().writer.epoch()
    }

    /// Whether it waits for a turn that was not given to it before.
    pub(crate) fn is_fresh(&self) -> bool {
        self.state.lock().attempts == 0 && self.journal.is_empty()
    }

    /// The model that answers.
    pub(crate) fn model(&self) -> &Arc<str> {
        &self.claim.model
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
            age_ms: u64::try_from(self.progress.started.elapsed().as_millis()).unwrap_or(u64::MAX),
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

/// Whole milliseconds, in the contract's type.
pub(crate) fn millis(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}
