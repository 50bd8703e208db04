//! Who reads an answer at this router, and what becomes of it when the last reader has gone.

use std::{sync::Arc, time::Duration};

use proto::v1::{ChatRequest, DisconnectPolicy};
use tokio::time::Instant;

use super::{Answer, Phase};
use crate::mailbox::Mailbox;

/// How long a slow client may take to read on: longer than a gateway keeps one that reads nothing at all.
const LAG: Duration = Duration::from_mins(1);

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
    /// The client is slow, and reads on when it has room.
    Lagging,
}

impl Answer {
    /// A reader comes. Its mailbox is told once the head is known.
    pub(crate) fn enter(&self, mailbox: &Arc<Mailbox>, call: u32) {
        let mut state = self.state.lock();
        state.readers += 1;
        state.orphaned = None;
        state.mailboxes.add(mailbox, call);
        if state.head.is_some() || matches!(state.phase, Phase::Ended) {
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
            (Policy::Detach(grace), Left::Lagging) => grace.max(LAG),
            (Policy::Detach(grace), _) => grace,
            (Policy::Cancel, Left::Lagging) => LAG,
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

    /// Whether somebody reads it here.
    pub(crate) fn is_read(&self) -> bool {
        self.state.lock().readers > 0
    }
}
