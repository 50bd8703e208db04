//! Requests that were turned away, for the request log: routers log answers, and these never became any. Gathered for a second, and
//! bounded: whoever sends more is counted, not stored.

use std::{sync::Arc, time::Duration};

use proto::v1::{FinishTurnsRequest, FinishedTurn, conversation_service_client::ConversationServiceClient};
use tokio::{
    sync::mpsc,
    time::{sleep, timeout},
};
use tonic::transport::Channel;

use crate::metrics::Metrics;

/// Lines that wait, and that are stored at once: the most that the store takes.
const LINES: usize = 512;
/// How often they are.
const EVERY: Duration = Duration::from_secs(1);
/// How long the store may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// Where they are told. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct Refusals {
    lines: mpsc::Sender<FinishedTurn>,
    metrics: Arc<Metrics>,
}

impl Refusals {
    /// One, and what [`run`] takes.
    pub(crate) fn new(metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<FinishedTurn>) {
        let (lines, told) = mpsc::channel(LINES);
        let metrics = Arc::clone(metrics);
        (Self { lines, metrics }, told)
    }

    /// Logs one. It gets a name of its own: the answer that it was to be may yet be made under its own.
    pub(crate) fn log(&self, line: FinishedTurn) {
        let line = FinishedTurn {
            state: "refused".to_owned(),
            stream_id: uuid::Uuid::now_v7().simple().to_string(),
            ..line
        };
        if self.lines.try_send(line).is_err() {
            self.metrics.refusals_unlogged.inc();
        }
    }
}

/// Stores them for ever.
pub(crate) async fn run(store: ConversationServiceClient<Channel>, metrics: Arc<Metrics>, mut told: mpsc::Receiver<FinishedTurn>) {
    let mut lines = Vec::new();
    while told.recv_many(&mut lines, LINES).await > 0 {
        sleep(EVERY).await;
        if lines.len() < LINES {
            let room = LINES - lines.len();
            lines.extend(std::iter::from_fn(|| told.try_recv().ok()).take(room));
        }
        let count = lines.len() as u64;
        let request = FinishTurnsRequest {
            turns: std::mem::take(&mut lines),
        };
        let mut store = store.clone();
        let stored = timeout(PATIENCE, store.finish_turns(request)).await;
        if !matches!(stored, Ok(Ok(_))) {
            tracing::debug!(count, "refused requests could not be logged");
            metrics.refusals_unlogged.inc_by(count);
        }
    }
}
