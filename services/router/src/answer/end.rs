//! How an answer ends: its clocks, its terminal entry, and what the journal says of it then.

use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use journal::Entries;
use proto::v1::{ChoiceEnd, Entry, FinishReason, Usage, entry::Event};
use tokio::time::Instant;
use tracing::Span;

use super::{Answer, Phase, Turn, millis, tokens::Tokens};
use crate::worker::Call;

/// What is left to do for an answer that has ended.
pub(crate) struct Ending {
    /// The call that made it, if it had one then.
    pub(crate) call: Option<Call>,
    pub(crate) worker: Arc<str>,
    pub(crate) epoch: u32,
    /// The last epoch that is this router's beyond doubt: in which its turn is stored.
    pub(crate) given: u32,
    pub(crate) span: Span,
    /// Whether a worker ever took it.
    pub(crate) began: bool,
    /// Whether somebody reads it, and so sees its end.
    pub(crate) read: bool,
    /// Where it stands with the store.
    pub(crate) turn: Turn,
}

/// What is due of an answer now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Nothing.
    Nothing,
    /// Its readers have been gone for too long.
    GiveUp,
    /// It took too long in all.
    TooLong,
    /// Its first token did not come in time: its worker is at fault.
    NoToken,
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

impl Answer {
    /// Closes the journal with this entry, unless it is closed.
    pub(crate) fn close(&self, entry: Entry) {
        let latency_ms = millis(self.progress.started.elapsed());
        let state = self.state.lock(); // so that no later epoch shuts this entry out
        let _ = state.writer.append(Entry { latency_ms, ..entry }); // fails only if another terminal came first, and that stands
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
        *self.progress.tokens.lock() = Tokens::default();
        Some(Ending {
            call,
            worker: Arc::clone(&state.worker),
            epoch: state.writer.epoch(),
            given: state.given,
            span: std::mem::replace(&mut state.span, Span::none()),
            began: state.head.is_some(),
            read: state.readers > 0,
            turn: state.turn,
        })
    }

    /// What is due now.
    pub(crate) fn due(&self, now: Instant, clocks: &Clocks) -> Due {
        let state = self.state.lock();
        let begun = !self.journal.is_empty();
        let last = self.progress.started + Duration::from_millis(self.progress.last_ms.load(Ordering::Relaxed).into());
        match &state.phase {
            Phase::Ended => Due::Nothing,
            _ if state.orphaned.is_some_and(|until| now >= until) => Due::GiveUp,
            _ if now >= self.progress.started + self.limit => Due::TooLong,
            Phase::Waiting(since) if (state.attempts > 0 || begun) && now >= *since + clocks.failover => Due::Lost,
            Phase::Running(since, _) if !begun && now >= *since + clocks.first_token => Due::NoToken,
            Phase::Running(since, _) if begun && now >= last.max(*since) + clocks.between_tokens => Due::Silent,
            _ => Due::Nothing,
        }
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
        let first = |entries: &Entries<Entry>| entries.iter().find(|entry| entry.tokens > 0).map_or(0, |entry| entry.latency_ms);
        self.journal.with_entries(first)
    }
}
