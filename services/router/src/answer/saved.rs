//! What the store has of an answer that still runs: when it is time to save it again, and what to save then.
//!
//! Only answers that somebody could miss are saved: those of a conversation, those that are to be kept, and those that go on without a
//! reader. Of the last everything is saved that another router needs to go on.

use std::time::Duration;

use proto::v1::{CheckpointRequest, CheckpointResponse, Entry};
use tokio::time::Instant;

use super::{Answer, Phase, Policy, Turn};
use crate::store::turn;

/// Tokens that are worth a checkpoint of their own. Fewer wait until the lease has to be renewed.
const TOKENS: u32 = 64;
/// The longest time between two checkpoints, before the store has said how long its leases are.
const RENEW: Duration = Duration::from_secs(3);
/// Leases are renewed so often within their time that two checkpoints may fail.
const RENEWALS: u32 = 3;
/// Checkpoints in a row that the store refuses in favour of another router, before that is believed: one or two may have been on their
/// way while this router itself took the next epoch.
const REFUSALS: u32 = 3;
/// Entries in one checkpoint: what an answer that was taken over brings at once comes in several.
const ENTRIES: usize = 4096;

/// What was saved.
#[derive(Debug, Default)]
pub(super) struct Saved {
    /// Entries that the store has, or that it need not have.
    position: u32,
    when: Option<Instant>,
    renew: Option<Duration>,
    /// Whether the store knows what was asked.
    asked: bool,
    refusals: u32,
    /// When its beginning was claimed last, beside the first time; and how often that is to be.
    claimed: Option<Instant>,
    claim_again: Option<Duration>,
}

impl Answer {
    /// Whether its beginning is to be claimed again: its name is one that a client chose, so somebody else could begin it too.
    pub(crate) fn is_claim_due(&self, now: Instant) -> bool {
        if self.fingerprint.is_empty() {
            return false;
        }
        let state = self.state.lock();
        let since = state.saved.claimed.unwrap_or(self.progress.started);
        !matches!(state.phase, Phase::Ended) && now >= since + state.saved.claim_again.unwrap_or(RENEW)
    }

    /// Its beginning is this router's for so long.
    pub(crate) fn claim_kept(&self, lease_ms: u32, now: Instant) {
        let mut state = self.state.lock();
        state.saved.claimed = Some(now);
        if lease_ms > 0 {
            state.saved.claim_again = Some(Duration::from_millis(lease_ms.into()) / RENEWALS);
        }
    }

    /// Whether it is to be saved now.
    pub(crate) fn is_unsaved(&self, now: Instant) -> bool {
        let state = self.state.lock();
        let kept = match state.turn {
            Turn::Opening => false,
            Turn::Open => true,
            Turn::None => (self.policy == Policy::Background || self.keep) && self.conversation_id.is_empty(),
        };
        let saved = &state.saved;
        let due = saved.when.is_none_or(|when| now >= when + saved.renew.unwrap_or(RENEW));
        kept && !matches!(state.phase, Phase::Ended) && (due || self.journal.len() >= saved.position.saturating_add(TOKENS))
    }

    /// The next checkpoint. `None` if it has ended.
    pub(crate) fn checkpoint(&self, release: bool, now: Instant) -> Option<CheckpointRequest> {
        let (position, given, asked) = {
            let mut state = self.state.lock();
            state.saved.when = Some(now);
            (state.saved.position, state.given, state.saved.asked)
        };
        let message = self.journal.with_entries(|entries| turn::message(entries));
        let mut made = if self.policy == Policy::Background {
            self.made()
        } else {
            Vec::new()
        };
        let entries: Vec<Entry> = made.drain(made.len().min(position as usize)..).take(ENTRIES).collect();
        let position = match self.policy {
            Policy::Background => position + u32::try_from(entries.len()).unwrap_or(u32::MAX),
            Policy::Cancel | Policy::Detach(_) => self.journal.len(),
        };
        let request = self.request()?;
        if entries.last().is_some_and(Entry::is_terminal) {
            return None;
        }
        Some(CheckpointRequest {
            principal: Some(self.principal.clone()),
            stream_id: self.id.to_string(),
            epoch: given,
            position,
            message: Some(message),
            resume: Vec::new(),
            request: (self.policy == Policy::Background && !asked).then(|| (*request).clone()),
            entries,
            release,
        })
    }

    /// The store has taken a checkpoint.
    pub(crate) fn saved(&self, response: CheckpointResponse) {
        let mut state = self.state.lock();
        state.saved.position = response.position;
        state.saved.asked = true;
        state.saved.refusals = 0;
        if response.lease_ms > 0 {
            state.saved.renew = Some(Duration::from_millis(response.lease_ms.into()) / RENEWALS);
        }
    }

    /// The store has refused a checkpoint, because another router has the answer. Says whether that is so.
    pub(crate) fn not_saved(&self) -> bool {
        let mut state = self.state.lock();
        state.saved.refusals += 1;
        state.saved.refusals >= REFUSALS
    }
}
