//! The lines of the request log that are the gateway's to write: routers log answers, and these requests never became any. They were turned
//! away, or they asked for something else than an answer. Gathered for a second, and bounded: whoever sends more is counted, not stored.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::drain::Drain;
use proto::v1::{FinishReason, FinishTurnsRequest, FinishedTurn, Usage, conversation_service_client::ConversationServiceClient};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::{failure::Refusal, identity::Caller, metrics::Metrics, stack::Arrival};

/// Lines that wait, and that are stored at once: the most that the store takes.
const LINES: usize = 512;
/// How often they are.
const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where they are told. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct RequestLog {
    lines: mpsc::Sender<FinishedTurn>,
    metrics: Arc<Metrics>,
}

impl RequestLog {
    /// One, and what [`run`] takes.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<FinishedTurn>) {
        let (lines, told) = mpsc::channel(LINES);
        let metrics = Arc::clone(metrics);
        (Self { lines, metrics }, told)
    }

    /// Logs that a request was turned away: why, and with which status.
    pub(crate) fn refused(&self, caller: &Caller, arrival: &Arrival, door: &str, (code, status): (&str, u16)) {
        self.log(FinishedTurn {
            state: "refused".to_owned(),
            finish_reason: code.to_owned(),
            status: status.into(),
            ..line(caller, arrival, door)
        });
    }

    /// Logs a request that needs no answer, with what it took of which model.
    pub(crate) fn done(&self, (caller, arrival): (&Caller, &Arrival), door: &str, outcome: Result<(&str, Usage), &Refusal>) {
        match outcome {
            Ok((model, usage)) => self.log(FinishedTurn {
                state: "finished".to_owned(),
                finish_reason: FinishReason::Stop.as_word().to_owned(),
                model: model.to_owned(),
                usage: Some(usage),
                ..line(caller, arrival, door)
            }),
            Err(refusal) => self.refused(caller, arrival, door, (refusal.code(), refusal.status().as_u16())),
        }
    }

    fn log(&self, line: FinishedTurn) {
        if self.lines.try_send(line).is_err() {
            self.metrics.requests_unlogged.inc();
        }
    }
}

/// What is known of every request. It gets a name of its own: the answer that it was to be may yet be made under its own.
fn line(caller: &Caller, arrival: &Arrival, door: &str) -> FinishedTurn {
    let duration = arrival.at.elapsed();
    let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    FinishedTurn {
        principal: Some(caller.principal().clone()),
        stream_id: uuid::Uuid::now_v7().simple().to_string(),
        request_id: arrival.request_id.to_string(),
        door: door.to_owned(),
        key_id: caller.key().unwrap_or_default().to_owned(),
        started_ms: i64::try_from(since_1970.saturating_sub(duration).as_millis()).unwrap_or(i64::MAX),
        duration_ms: u32::try_from(duration.as_millis()).unwrap_or(u32::MAX),
        ..FinishedTurn::default()
    }
}

/// Stores them, until nothing else of the gateway runs and the last are stored.
pub(crate) async fn run(
    store: ConversationServiceClient<Channel>,
    metrics: Arc<Metrics>,
    drain: Drain,
    mut told: mpsc::Receiver<FinishedTurn>,
) {
    let mut lines = Vec::new();
    loop {
        let over = tokio::select! {
            () = gather(&mut told, &mut lines) => false,
            () = drain.over() => true,
        };
        let room = LINES - lines.len();
        lines.extend(std::iter::from_fn(|| told.try_recv().ok()).take(room));
        if (over || told.is_closed()) && lines.is_empty() {
            return;
        }
        let count = lines.len() as u64;
        let request = FinishTurnsRequest {
            turns: std::mem::take(&mut lines),
        };
        let mut store = store.clone();
        let stored = timeout(PATIENCE, store.finish_turns(request)).await;
        if !matches!(stored, Ok(Ok(_))) {
            tracing::debug!(count, "requests could not be logged");
            metrics.requests_unlogged.inc_by(count);
        }
    }
}

/// Waits for lines, and then for more of them.
async fn gather(told: &mut mpsc::Receiver<FinishedTurn>, lines: &mut Vec<FinishedTurn>) {
    told.recv_many(lines, LINES).await;
    sleep(EVERY).await;
}
