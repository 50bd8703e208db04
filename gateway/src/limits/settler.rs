//! Settling answers whose end no gateway saw: their clients have gone, or their gateway died. The request log has what they took, counted
//! from their journals, as soon as they have ended; it is asked soon at first, then ever more seldom.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, sync::Arc, time::Duration};

use futures_util::TryStreamExt as _;
use proto::v1::{ListRequestsRequest, LoggedRequest, Principal, conversation_service_client::ConversationServiceClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tonic::transport::Channel;

use super::{
    Limits,
    terms::{HOLD_MS, Settlement},
};
use crate::metrics::Metrics;

/// Answers that wait to be looked up. Past that their reservations stay open, and are looked up when their caller comes again.
const PENDING: usize = 4096;
/// The first wait: an answer whose client has gone ends within one step, and routers gather what they store for 50 ms.
const FIRST: Duration = Duration::from_millis(100);
/// The longest.
const LONGEST: Duration = Duration::from_mins(1);
/// How long the log may take to hear of an answer that cannot go on without its client.
const PATIENCE: Duration = Duration::from_mins(2);
/// How long one question may take.
const QUESTION: Duration = Duration::from_secs(5);
/// Answers in one question: the most that the store takes.
const TOGETHER: usize = 512;

/// Where answers are left to be settled.
pub(super) struct Settler {
    pending: mpsc::Sender<Pending>,
    metrics: Arc<Metrics>,
}

/// An answer to settle.
pub(super) struct Pending {
    principal: Principal,
    end: Settlement,
    own: bool,
    /// What it took as far as it was seen, where that is about all.
    seen: Option<u64>,
    until: Instant,
    wait: Duration,
}

impl Settler {
    /// One, and what [`run`] takes.
    pub(super) fn new(metrics: &Arc<Metrics>) -> (Self, mpsc::Receiver<Pending>) {
        let (pending, taken) = mpsc::channel(PENDING);
        let metrics = Arc::clone(metrics);
        (Self { pending, metrics }, taken)
    }

    /// Settles the answer when the log knows of it.
    pub(super) fn later(&self, principal: Principal, end: Settlement, own: bool, seen: Option<u64>) {
        let patience = if seen.is_some() { PATIENCE } else { Duration::from_millis(HOLD_MS) };
        self.leave(Pending {
            principal,
            end,
            own,
            seen,
            until: Instant::now() + patience,
            wait: FIRST,
        });
    }

    /// Looks once whether this answer, whose reservation has been open for a while, has ended.
    pub(super) fn look_up(&self, principal: &Principal, who: Arc<str>, stream_id: String, own: bool) {
        self.leave(Pending {
            principal: principal.clone(),
            end: Settlement {
                who,
                stream_id,
                tokens: 0,
                keep_ms: 0,
                owed: None,
            },
            own,
            seen: None,
            until: Instant::now(),
            wait: Duration::ZERO,
        });
    }

    fn leave(&self, pending: Pending) {
        if self.pending.try_send(pending).is_err() {
            self.metrics.limits_unsettled.inc();
        }
    }
}

/// Settles until the gateway stops. What is left then is looked up by others.
pub(super) async fn run(limits: Limits, store: ConversationServiceClient<Channel>, mut pending: mpsc::Receiver<Pending>) {
    let mut waiting: BinaryHeap<Reverse<Due>> = BinaryHeap::new();
    loop {
        let next = waiting.peek().map(|Reverse(due)| due.at);
        tokio::select! {
            pending = pending.recv(), if waiting.len() < PENDING => {
                let Some(pending) = pending else { return };
                waiting.push(Reverse(Due { at: Instant::now() + pending.wait, pending }));
            }
            () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {
                let now = Instant::now();
                let mut due = Vec::new();
                while due.len() < TOGETHER && waiting.peek().is_some_and(|Reverse(due)| due.at <= now) {
                    due.extend(waiting.pop().map(|Reverse(due)| due.pending));
                }
                for again in settle(&limits, &store, due).await {
                    waiting.push(Reverse(Due { at: Instant::now() + again.wait, pending: again }));
                }
            }
        }
    }
}

/// Settles those that the log knows, and those that it should have known by now. The others are returned.
async fn settle(limits: &Limits, store: &ConversationServiceClient<Channel>, due: Vec<Pending>) -> Vec<Pending> {
    let mut by_principal: HashMap<(String, String), Vec<Pending>> = HashMap::new();
    for pending in due {
        let principal = (pending.principal.tenant.clone(), pending.principal.user_id.clone());
        by_principal.entry(principal).or_default().push(pending);
    }
    let mut again = Vec::new();
    for ((tenant, user_id), theirs) in by_principal {
        let request = ListRequestsRequest {
            principal: Some(Principal { tenant, user_id }),
            stream_ids: theirs.iter().map(|pending| pending.end.stream_id.clone()).collect(),
            ..ListRequestsRequest::default()
        };
        let logged = ask(store, request).await;
        for mut pending in theirs {
            let took = logged.get(&pending.end.stream_id).copied();
            let over = Instant::now() >= pending.until;
            if let Some(tokens) = took.or(pending.seen.filter(|_| over)) {
                pending.end.tokens = tokens;
                limits.close(pending.end, pending.own);
            } else if !over {
                pending.wait = (pending.wait * 2).min(LONGEST);
                again.push(pending);
            }
        }
    }
    again
}

/// What these answers took, of those that have ended. Nothing while the store is away.
async fn ask(store: &ConversationServiceClient<Channel>, request: ListRequestsRequest) -> HashMap<String, u64> {
    let mut store = store.clone();
    let list = async {
        store
            .list_requests(request)
            .await?
            .into_inner()
            .try_collect::<Vec<LoggedRequest>>()
            .await
    };
    let logged = match timeout(QUESTION, list).await {
        Ok(Ok(logged)) => logged,
        Ok(Err(status)) => {
            tracing::debug!(%status, "the request log cannot be asked what answers took");
            Vec::new()
        }
        Err(_) => Vec::new(),
    };
    let took = logged.into_iter().filter_map(|logged| {
        let turn = logged.turn?;
        let usage = turn.usage.unwrap_or_default();
        Some((turn.stream_id, u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens)))
    });
    took.collect()
}

/// An answer and when it is looked up.
struct Due {
    at: Instant,
    pending: Pending,
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.at.cmp(&other.at)
    }
}
