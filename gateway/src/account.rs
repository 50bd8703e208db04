//! The account of one request for an answer: how long, how many tokens, how it ended. Given once, to the log, the metrics and the limits,
//! when it is dropped, whichever way the request went. Every door that starts an answer holds one.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proto::v1::{ChatRequest, DisconnectPolicy, Entry, FinishedTurn, Head, Usage, entry::Event};
use tokio::time::Instant;
use tracing::Span;

use crate::{
    app::App,
    failure::Refusal,
    identity::Caller,
    limits::Grant,
    metrics::{ByError, ByModel, ByStatus, ByType, Metrics, TokenCounter, UNKNOWN},
    refusals::Refusals,
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
    refusals: Refusals,
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
            refusals: app.refusals().clone(),
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

    /// Asks whether the caller's limits let this request pass. It may leave with a bound of its output.
    ///
    /// # Errors
    /// A limit is met.
    pub(crate) async fn ask_leave(&mut self, app: &App, request: &mut ChatRequest) -> Result<(), Refusal> {
        let context = if request.max_tokens.is_none() {
            app.clients().context_of(&request.model)
        } else {
            0
        };
        self.grant = app.limits().admit((&self.caller, &self.arrival.quota), request, context).await?;
        Ok(())
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

impl Account {
    /// Says what the answer took; if its end was not seen, the request log will know.
    fn settle(&mut self) {
        let Some(grant) = self.grant.take() else { return };
        let usage = self.answer.as_ref().and_then(|running| running.usage);
        match (usage, self.outcome) {
            (Some(usage), _) => grant.settle(u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens)),
            (None, Outcome::Moved) => grant.leave(),
            (None, Outcome::Refused(..)) if self.answer.is_none() => drop(grant), // it never began, and costs nothing
            (None, _) => {
                let seen = self
                    .answer
                    .as_ref()
                    .map_or(0, |running| u64::from(running.prompt_tokens) + running.tokens);
                grant.look_up((!self.lasting).then_some(seen));
            }
        }
    }

    /// Tells the request log of a request that never became an answer.
    fn log_refusal(&self, duration: Duration) {
        let (Outcome::Refused(code, status), None) = (self.outcome, &self.answer) else {
            return;
        };
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.refusals.log(FinishedTurn {
            principal: Some(self.caller.principal().clone()),
            request_id: self.arrival.request_id.to_string(),
            door: self.door.to_owned(),
            key_id: self.caller.key().unwrap_or_default().to_owned(),
            finish_reason: code.to_owned(),
            status: status.into(),
            started_ms: i64::try_from(since_1970.saturating_sub(duration).as_millis()).unwrap_or(i64::MAX),
            duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
            ..FinishedTurn::default()
        });
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        self.settle();
        let duration = self.arrival.at.elapsed();
        self.log_refusal(duration);
        let by_model = ByModel { model: self.model.clone() };
        let (model, status, error) = (self.model.as_str(), self.outcome.status(), self.outcome.error());
        let series = ByStatus {
            model: model.to_owned(),
            status,
        };
        self.metrics.requests.get_or_create(&series).inc();
        self.metrics
            .request_duration
            .get_or_create(&by_model)
            .observe(duration.as_secs_f64());
        if !error.is_empty() {
            let series = ByError {
                model: model.to_owned(),
                error_type: error,
            };
            self.metrics.errors.get_or_create(&series).inc();
        }
        if self.outcome == Outcome::Open {
            self.metrics.drops.inc();
        }
        let mut ttft = None;
        if let Some(running) = &self.answer {
            running.close(&self.metrics, &by_model);
            ttft = running.first_token.map(|first| first - self.arrival.at);
            if let Some(ttft) = ttft {
                self.metrics.ttft.get_or_create(&by_model).observe(ttft.as_secs_f64());
            }
        }
        let tokens = self.answer.as_ref().map_or(0, |running| running.tokens);
        self.arrival.span.in_scope(|| {
            tracing::info!(
                request_id = &*self.arrival.request_id,
                stream_id = self.stream_id,
                door = self.door,
                model,
                tokens,
                ttft_ms = ttft.map(millis),
                duration_ms = millis(duration),
                status,
                error,
                trace_id = chassis::trace::id_of(&Span::current()),
                "answer"
            );
        });
    }
}

impl Running {
    fn close(&self, metrics: &Metrics, by_model: &ByModel) {
        metrics.streams.dec();
        metrics
            .stream_duration
            .get_or_create(by_model)
            .observe(self.admitted.elapsed().as_secs_f64());
        if let Some(usage) = self.usage {
            let series = ByType {
                model: by_model.model.clone(),
                r#type: "input",
            };
            metrics.tokens.get_or_create(&series).inc_by(u64::from(usage.prompt_tokens));
        }
        if let (Some(first), Some(last)) = (self.first_token, self.last_token)
            && self.tokens > 1
        {
            #[expect(clippy::cast_precision_loss, reason = "an answer has far fewer than 2^52 tokens")]
            let gaps = (self.tokens - 1) as f64;
            metrics.tpot.get_or_create(by_model).observe((last - first).as_secs_f64() / gaps);
        }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
