//! The account of one request for an answer: how long, how many tokens, how it ended. Given once, to the log, the metrics and the limits,
//! when it is dropped ([`close`]), whichever way the request went. Every door that starts an answer holds one.

mod close;

use std::sync::Arc;

use proto::v1::{ChatRequest, DisconnectPolicy, Entry, Head, Usage, entry::Event};
use tokio::time::Instant;

use crate::{
    app::App,
    failure::Refusal,
    identity::Caller,
    limits::Grant,
    metrics::{ByType, Metrics, TokenCounter, UNKNOWN},
    request_log::RequestLog,
    stack::Arrival,
};

/// What is known of a request so far.
#[derive(Debug)]
pub(crate) struct Account {
    metrics: Arc<Metrics>,
    arrival: Arrival,
    caller: Caller,
    door: &'static str,
    model: String,
    stream_id: String,
    answer: Option<Running>,
    outcome: Outcome,
    /// Where limits hold: what is to be settled. It goes with the account, so it is on every way.
    grant: Option<Grant>,
    /// Whether the answer may go on without its client.
    lasting: bool,
    /// Whether a router may have been asked for it.
    out: bool,
    request_log: RequestLog,
}

/// What is known once the answer was admitted.
#[derive(Debug)]
struct Running {
    admitted: Instant,
    first_token: Option<Instant>,
    last_token: Option<Instant>,
    tokens: u64,
    counter: TokenCounter,
    prompt_tokens: u32,
    usage: Option<Usage>,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It has not: the client has gone, if it stays so.
    Open,
    /// The answer is whole.
    Finished,
    /// Somebody ended it.
    Cancelled,
    /// The request was refused: why, and with which HTTP status.
    Refused(&'static str, u16),
    /// The answer broke off.
    Failed(&'static str),
    /// The gateway stops, and its client was sent to another.
    Moved,
}

impl Account {
    /// The account of `caller`'s request, which has arrived at `door`.
    pub(crate) fn open(app: &App, arrival: Arrival, caller: Caller, door: &'static str) -> Self {
        Self {
            metrics: Arc::clone(app.metrics()),
            arrival,
            caller,
            door,
            model: UNKNOWN.to_owned(),
            stream_id: String::new(),
            answer: None,
            outcome: Outcome::Open,
            grant: None,
            lasting: false,
            out: false,
            request_log: app.request_log().clone(),
        }
    }

    /// Who asks.
    pub(crate) fn caller(&self) -> &Caller {
        &self.caller
    }

    /// Writes into `request` what the router must know of this one: whose it is, a name for the answer unless it has one, the ids to find it by,
    /// and the policy of plain API requests where it has none.
    pub(crate) fn sign(&mut self, request: &mut ChatRequest) {
        if request.stream_id.is_empty() {
            request.stream_id = uuid::Uuid::now_v7().simple().to_string();
        }
        self.stream_id.clone_from(&request.stream_id);
        request.principal = Some(self.caller.principal().clone());
        request.request_id = self.arrival.request_id.to_string();
        request.traceparent = chassis::trace::context_of(&self.arrival.span);
        if request.disconnect() == DisconnectPolicy::Unspecified {
            request.disconnect = DisconnectPolicy::Cancel.into();
        }
        request.door = self.door.to_owned();
        request.key_id = self.caller.key().unwrap_or_default().to_owned();
        self.lasting = request.disconnect() != DisconnectPolicy::Cancel;
    }

    /// Asks whether the caller's limits let this request pass, which may ask for several answers. They may leave with a bound of their output.
    ///
    /// # Errors
    /// A limit is met.
    pub(crate) async fn ask_leave(&mut self, app: &App, requests: &mut [ChatRequest]) -> Result<(), Refusal> {
        let unbounded = requests.first().filter(|request| request.max_tokens.is_none());
        let context = unbounded.map_or(0, |request| app.clients().context_of(&request.model));
        self.grant = app.limits().admit((&self.caller, &self.arrival.quota), requests, context).await?;
        Ok(())
    }

    /// This answer belongs to the request of another's account, and has its leave from there.
    pub(crate) fn has_leave_with(&mut self, first: &Self) {
        self.grant.clone_from(&first.grant);
    }

    /// What was asked for has been answered, and paid for, before.
    pub(crate) fn was_answered_before(&mut self) {
        self.grant = None;
        self.nothing_left();
    }

    /// A router is asked for the answer: from here on it may be made.
    pub(crate) fn goes_out(&mut self) {
        self.out = true;
    }

    /// The client reads on an answer that was admitted before.
    pub(crate) fn reads_on(&mut self, app: &App, stream_id: &str) {
        self.grant = app.limits().reading(&self.caller, stream_id);
    }

    /// The answer was admitted.
    pub(crate) fn admitted(&mut self, head: &Head) {
        self.model.clone_from(&head.model);
        self.stream_id.clone_from(&head.stream_id);
        self.metrics.streams.inc();
        let counter = self.metrics.tokens.get_or_create_owned(&ByType {
            model: self.model.clone(),
            r#type: "output",
        });
        self.answer = Some(Running {
            admitted: Instant::now(),
            first_token: None,
            last_token: None,
            tokens: 0,
            counter,
            prompt_tokens: head.prompt_tokens,
            usage: None,
        });
    }

    /// These entries go to the client, now.
    pub(crate) fn note(&mut self, entries: &[Entry], now: Instant) {
        let Some(running) = &mut self.answer else { return };
        let tokens: u64 = entries.iter().map(|entry| u64::from(entry.tokens)).sum();
        if tokens > 0 {
            running.tokens += tokens;
            running.counter.inc_by(tokens);
            running.first_token.get_or_insert(now);
            running.last_token = Some(now);
        }
        if let Some(last) = entries.last() {
            self.outcome = match &last.event {
                Some(Event::Finished(_)) => Outcome::Finished,
                Some(Event::Cancelled(_)) => Outcome::Cancelled,
                Some(Event::Failed(failure)) => Outcome::Failed(failure.reason().as_word()),
                _ => return,
            };
            running.usage = last.usage();
        }
    }

    /// The answer that was asked for again has been read to its end.
    pub(crate) fn nothing_left(&mut self) {
        self.outcome = Outcome::Finished;
    }

    /// The client goes on at another gateway.
    pub(crate) fn moved(&mut self) {
        self.outcome = Outcome::Moved;
    }

    /// The request is refused, or its whole answer failed. Returns `refusal` for the client.
    pub(crate) fn refuse(&mut self, refusal: Refusal) -> Refusal {
        self.outcome = Outcome::Refused(refusal.code(), refusal.status().as_u16());
        refusal
    }
}

impl Outcome {
    fn status(self) -> &'static str {
        match self {
            Self::Open => "disconnected",
            Self::Finished => "finished",
            Self::Cancelled => "cancelled",
            Self::Refused(..) => "refused",
            Self::Failed(_) => "failed",
            Self::Moved => "moved",
        }
    }

    fn error(self) -> &'static str {
        match self {
            Self::Refused(code, _) | Self::Failed(code) => code,
            _ => "",
        }
    }
}
