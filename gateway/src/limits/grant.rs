//! A caller's leave to have the answers to one request: a guard, kept by the accounts of these. Each says once what its answer took, and
//! the last to go closes the reservation with all of it.

use std::sync::Arc;

use parking_lot::Mutex;
use proto::v1::Principal;

use super::{Limits, settler::Unseen, terms::Settlement};

/// The leave of one answer, to be cloned for each further one. Dropped without a word, its answer took nothing.
#[derive(Clone)]
pub(crate) struct Grant(Arc<Lease>);

/// What all the answers have together.
struct Lease {
    limits: Limits,
    of: Reservation,
    said: Mutex<Said>,
}

/// What a request has reserved, or reads on.
pub(super) struct Reservation {
    pub(super) principal: Principal,
    pub(super) who: Arc<str>,
    pub(super) name: String,
    /// The id of the request, by which its lines in the log are told from those of an earlier one with the same key.
    pub(super) request_id: String,
    /// It is in this gateway's own books.
    pub(super) own: bool,
    /// Whether the answers may be asked for again.
    pub(super) repeatable: bool,
    /// Whether this request has reserved it, or another one.
    pub(super) reserved: bool,
}

/// What was said of the answers.
#[derive(Default)]
struct Said {
    /// What those took that have ended.
    tokens: u64,
    /// Whether any has.
    ended: bool,
    /// Those whose end was not seen.
    unseen: Vec<Unseen>,
    /// Somebody else goes on with them.
    left: bool,
}

impl Grant {
    pub(super) fn new(limits: &Limits, of: Reservation) -> Self {
        Self(Arc::new(Lease {
            limits: limits.clone(),
            of,
            said: Mutex::default(),
        }))
    }

    /// The answer has ended, and took this many tokens in all.
    pub(crate) fn settle(self, tokens: u64) {
        let mut said = self.0.said.lock();
        said.tokens += tokens;
        said.ended = true;
    }

    /// Whoever goes on with the answer says what it took.
    pub(crate) fn leave(self) {
        self.0.said.lock().left = true;
    }

    /// The answer's end was not seen. The request log will know what it took; should it not, it was `seen`, if it could not go on alone.
    pub(crate) fn look_up(self, stream_id: &str, seen: Option<u64>) {
        self.0.said.lock().unseen.push(Unseen {
            stream_id: stream_id.to_owned(),
            seen,
        });
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        let (of, said) = (&mut self.of, std::mem::take(self.said.get_mut()));
        // What another request has reserved is settled by whoever sees the end of all of it.
        let is_known = said.ended && said.unseen.is_empty();
        if said.left || !(of.reserved || is_known) {
            return;
        }
        // Where nothing was paid for, who asks again with the same key asks anew.
        let paid = said.ended || !said.unseen.is_empty();
        let end = Settlement {
            who: Arc::clone(&of.who),
            name: std::mem::take(&mut of.name),
            tokens: said.tokens,
            keep_ms: if paid && of.repeatable { self.limits.0.keep_ms } else { 0 },
            owed: None,
        };
        if said.unseen.is_empty() {
            self.limits.close(end, of.own);
        } else {
            let whose = (std::mem::take(&mut of.principal), std::mem::take(&mut of.request_id));
            self.limits.0.settler.later(whose, end, of.own, said.unseen);
        }
    }
}

impl std::fmt::Debug for Grant {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Grant")
            .field("name", &self.0.of.name)
            .field("reserved", &self.0.of.reserved)
            .finish_non_exhaustive()
    }
}
