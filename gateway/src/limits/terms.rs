//! What is asked of a ledger, and what it says. Pure.

use std::sync::Arc;

/// Milliseconds of a day. Days begin at midnight UTC.
pub(crate) const DAY_MS: u64 = 86_400_000;
/// How long a reservation stands if nobody closes it: past this the answer cannot run any more, whatever became of its gateway.
pub(super) const HOLD_MS: u64 = 3_600_000;
/// How often the answer of an open reservation may be looked up: a gateway that died never closes its own.
pub(super) const CHECK_MS: u64 = 30_000;

/// What a caller may do. 0 is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bounds {
    /// Requests in any 60 seconds.
    pub(crate) requests: u32,
    /// Tokens of a day, of input and output together.
    pub(crate) tokens: u64,
    /// Answers that are made at the same time.
    pub(crate) streams: u32,
}

impl Bounds {
    /// One gateway's share of them, where they cannot be shared: of each at least 1.
    pub(crate) fn share(self, gateways: u32) -> Self {
        let part = |limit: u64| {
            if limit == 0 {
                0
            } else {
                (limit / u64::from(gateways.max(1))).max(1)
            }
        };
        let small = |limit: u32| u32::try_from(part(limit.into())).unwrap_or(limit);
        Self {
            requests: small(self.requests),
            tokens: part(self.tokens),
            streams: small(self.streams),
        }
    }
}

/// A request for an answer, as a ledger sees it.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Whose limits.
    pub(crate) who: Arc<str>,
    /// The name of the reservation: that of the answer, or of the [answers](super::names) to one request.
    pub(crate) name: String,
    /// What its input may take, in tokens.
    pub(crate) prompt: u64,
    /// What its output may take.
    pub(crate) output: u64,
    /// The least output that will do.
    pub(crate) least: u64,
    /// The limits.
    pub(crate) bounds: Bounds,
}

/// What a ledger says to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Whether it may be.
    pub(crate) outcome: Result<Granted, Over>,
    /// How the caller stands after it.
    pub(crate) standing: Standing,
    /// Reservations of the caller that have been open for a while: whether their answers still run is to be looked up.
    pub(crate) stale: Vec<String>,
}

/// It may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Granted {
    /// Its tokens are reserved: this many of output.
    Reserved(u64),
    /// The answer was asked for before, and is paid for already.
    Again,
}

/// It may not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Over {
    /// Which limit is met.
    pub(crate) limit: Limit,
    /// After how many milliseconds it is worth trying again.
    pub(crate) retry_ms: u64,
}

/// The limits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    /// Requests per minute.
    Requests,
    /// Streams at once.
    Streams,
    /// Tokens per day.
    Tokens,
}

impl Limit {
    /// It as a label.
    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Streams => "streams",
            Self::Tokens => "tokens",
        }
    }
}

/// How a caller stands.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Standing {
    /// Requests that are left now.
    pub(crate) requests: u32,
    /// After how many milliseconds all of them are, if none comes.
    pub(crate) requests_reset_ms: u64,
    /// Tokens that are left, without those that running answers have reserved.
    pub(crate) tokens: u64,
    /// After how many milliseconds a new day begins.
    pub(crate) tokens_reset_ms: u64,
}

/// The end of a reservation.
#[derive(Clone, Debug)]
pub(crate) struct Settlement {
    /// Whose.
    pub(crate) who: Arc<str>,
    /// The name of the reservation.
    pub(crate) name: String,
    /// What it took in all.
    pub(crate) tokens: u64,
    /// For how long the answer may be asked for again, and is paid for then. 0: it cannot.
    pub(crate) keep_ms: u64,
    /// It was reserved elsewhere, on that day: what it took is owed here, if it was not charged here before.
    pub(crate) owed: Option<u64>,
}
