//! A caller's leave to have one answer: a guard, kept by the request's account. It says once what the answer took.

use std::sync::Arc;

use proto::v1::Principal;

use super::{
    Limits,
    terms::{Ask, Settlement},
};

/// The leave. Dropped, it closes what it reserved: with nothing, unless something else was said.
pub(crate) struct Grant {
    limits: Limits,
    principal: Principal,
    who: Arc<str>,
    stream_id: String,
    /// It is reserved in this gateway's own books.
    own: bool,
    /// Whether the answer may be asked for again.
    repeatable: bool,
    state: State,
}

/// What there is to close.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// A reservation, of an answer that has not begun.
    Reserved,
    /// Whatever another request has reserved.
    Reading,
    /// Nothing any more.
    Closed,
}

impl Grant {
    /// One that is being asked for.
    pub(super) fn asked(limits: &Limits, principal: &Principal, ask: &Ask, repeatable: bool) -> Self {
        Self {
            limits: limits.clone(),
            principal: principal.clone(),
            who: Arc::clone(&ask.who),
            stream_id: ask.stream_id.clone(),
            own: false,
            repeatable,
            // What was asked for before is not this request's to close if its client goes now.
            state: if repeatable { State::Closed } else { State::Reserved },
        }
    }

    /// That of a further reader.
    pub(super) fn reading(limits: &Limits, principal: &Principal, who: Arc<str>, stream_id: &str) -> Self {
        Self {
            limits: limits.clone(),
            principal: principal.clone(),
            who,
            stream_id: stream_id.to_owned(),
            own: false,
            repeatable: true,
            state: State::Reading,
        }
    }

    pub(super) fn is_own(&mut self) {
        self.own = true;
    }

    pub(super) fn reserved(&mut self) {
        self.state = State::Reserved;
    }

    pub(super) fn again(&mut self) {
        self.state = State::Reading;
    }

    pub(super) fn refused(mut self) {
        self.state = State::Closed;
    }

    /// The answer has ended, and took this many tokens in all.
    pub(crate) fn settle(mut self, tokens: u64) {
        self.close(tokens);
    }

    /// Whoever goes on with the answer says what it took.
    pub(crate) fn leave(mut self) {
        self.state = State::Closed;
    }

    /// The answer's end was not seen. The request log will know what it took; should it not, it was `seen`, if it could not go on alone.
    pub(crate) fn look_up(mut self, seen: Option<u64>) {
        if std::mem::replace(&mut self.state, State::Closed) == State::Reserved {
            let end = self.settlement(0);
            self.limits.0.settler.later(self.principal.clone(), end, self.own, seen);
        }
    }

    fn close(&mut self, tokens: u64) {
        if std::mem::replace(&mut self.state, State::Closed) != State::Closed {
            self.limits.close(self.settlement(tokens), self.own);
        }
    }

    fn settlement(&self, tokens: u64) -> Settlement {
        Settlement {
            who: Arc::clone(&self.who),
            stream_id: self.stream_id.clone(),
            tokens,
            keep_ms: if self.repeatable { self.limits.0.keep_ms } else { 0 },
            owed: None,
        }
    }
}

impl Drop for Grant {
    fn drop(&mut self) {
        // Nothing was paid for, so who asks again, with the same key, asks anew.
        self.repeatable = false;
        if self.state == State::Reserved {
            self.close(0);
        }
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant")
            .field("stream_id", &self.stream_id)
            .field("state", &self.state)
            .finish_non_exhaustive()
    }
}
