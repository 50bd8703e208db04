//! Settling answers whose end no gateway saw: their clients have gone, or their gateway died. The request log has what they took, counted
//! from their journals, as soon as they have ended, also where they never began; it is asked soon at first, then ever more seldom.

use std::{cmp::Reverse, collections::BinaryHeap, collections::HashMap, sync::Arc, time::Duration};

use chassis::drain::Drain;
use futures_util::TryStreamExt as _;
use proto::v1::{ListRequestsRequest, LoggedRequest, Principal, conversation_service_client::ConversationServiceClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until, timeout},
};
use tonic::transport::Channel;

use super::{
    Limits, names,
    terms::{HOLD_MS, Settlement},
};
use crate::{idempotency, metrics::Metrics};

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

/// What was left, for [`run`].
pub(super) struct Receiver(mpsc::Receiver<Pending>);

/// Where answers are left to be settled.
pub(super) struct Settler {
    pending: mpsc::Sender<Pending>,
    metrics: Arc<Metrics>,
}

/// A reservation to settle.
struct Pending {
    principal: Principal,
    /// The id of the request that reserved it. Empty: not known.
    request_id: String,
    /// What those of its answers took that are known of.
    end: Settlement,
    own: bool,
    /// The others.
    unseen: Vec<Unseen>,
    until: Instant,
    wait: Duration,
}

/// An answer whose end was not seen.
pub(super) struct Unseen {
    pub(super) stream_id: String,
    /// What it took as far as it was seen, where that is about all.
    pub(super) seen: Option<u64>,
}

/// What the log says of an answer.
struct Logged {
    request_id: String,
    tokens: u64,
}

impl Settler {
    /// One, and what [`run`] takes.
    pub(super) fn new(metrics: &Arc<Metrics>) -> (Self, Receiver) {
        let (pending, taken) = mpsc::channel(PENDING);
        let metrics = Arc::clone(metrics);
        (Self { pending, metrics }, Receiver(taken))
    }

    /// Settles these answers of a principal's request when the log knows of all of them.
    pub(super) fn later(&self, (principal, request_id): (Principal, String), end: Settlement, own: bool, unseen: Vec<Unseen>) {
        let can_last = unseen.iter().any(|answer| answer.seen.is_none());
        let patience = if can_last { Duration::from_millis(HOLD_MS) } else { PATIENCE };
        self.leave(Pending {
            principal,
            request_id,
            end,
            own,
            unseen,
            until: Instant::now() + patience,
            wait: FIRST,
        });
    }

    /// Looks once whether the answers of this reservation, which has been open for a while, have ended.
    pub(super) fn look_up(&self, principal: &Principal, end: Settlement, own: bool) {
        let answers = names::answers(&end.name).into_iter();
        self.leave(Pending {
            principal: principal.clone(),
            request_id: String::new(),
            end,
            own,
            unseen: answers.map(|stream_id| Unseen { stream_id, seen: None }).collect(),
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

/// Settles until nothing else of the gateway runs, and then once more what it can. The rest is looked up by others.
pub(super) async fn run(limits: &Limits, store: ConversationServiceClient<Channel>, drain: &Drain, Receiver(mut pending): Receiver) {
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
                let due = take(&mut waiting, |due| due.at <= now);
                for again in settle(limits, &store, due).await {
                    waiting.push(Reverse(Due { at: Instant::now() + again.wait, pending: again }));
                }
            }
            () = drain.over() => break,
        }
    }
    let at = Instant::now();
    waiting.extend(std::iter::from_fn(|| pending.try_recv().ok()).map(|pending| Reverse(Due { at, pending })));
    while !waiting.is_empty() {
        let due = take(&mut waiting, |_| true);
        settle(limits, &store, due).await;
    }
}

/// The next that are so, as many as fit into one question.
fn take(waiting: &mut BinaryHeap<Reverse<Due>>, so: impl Fn(&Due) -> bool) -> Vec<Pending> {
    let (mut taken, mut answers) = (Vec::new(), 0);
    while let Some(Reverse(due)) = waiting.peek()
        && so(due)
        && (taken.is_empty() || answers + due.pending.unseen.len() <= TOGETHER)
    {
        answers += due.pending.unseen.len();
        taken.extend(waiting.pop().map(|Reverse(due)| due.pending));
    }
    taken
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
            stream_ids: theirs
                .iter()
                .flat_map(|pending| &pending.unseen)
                .map(|answer| answer.stream_id.clone())
                .collect(),
            ..ListRequestsRequest::default()
        };
        let logged = ask(store, request).await;
        for mut pending in theirs {
            pending.learn(&logged);
            let over = Instant::now() >= pending.until;
            if over {
                pending.believe_what_was_seen();
            }
            if let Some(end) = pending.ended() {
                limits.close(end, pending.own);
            } else if !over {
                pending.wait = (pending.wait * 2).min(LONGEST);
                again.push(pending);
            }
        }
    }
    again
}

impl Pending {
    /// What the log says.
    fn learn(&mut self, logged: &HashMap<String, Logged>) {
        let Self {
            end, unseen, request_id, ..
        } = self;
        unseen.retain(|answer| {
            let logged = logged.get(&answer.stream_id);
            // An earlier request with the same key may never have had its answer, while this one's is being made.
            let logged = logged.filter(|logged| {
                let mine = logged.request_id == *request_id || !idempotency::is_of_key(&answer.stream_id);
                mine || logged.tokens > 0
            });
            end.tokens += logged.map_or(0, |logged| logged.tokens);
            logged.is_none()
        });
    }

    /// The log has not heard of these.
    fn believe_what_was_seen(&mut self) {
        let end = &mut self.end;
        self.unseen.retain(|answer| {
            end.tokens += answer.seen.unwrap_or(0);
            answer.seen.is_none()
        });
    }

    /// The settlement, once all answers are known of. Where nothing was paid for, who asks again with the same key asks anew.
    fn ended(&self) -> Option<Settlement> {
        let end = self.unseen.is_empty().then(|| self.end.clone())?;
        Some(Settlement {
            keep_ms: if end.tokens > 0 { end.keep_ms } else { 0 },
            ..end
        })
    }
}

/// What these answers took, of those that have ended. Nothing while the store is away.
async fn ask(store: &ConversationServiceClient<Channel>, request: ListRequestsRequest) -> HashMap<String, Logged> {
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
        let logged = Logged {
            request_id: turn.request_id,
            tokens: u64::from(usage.prompt_tokens) + u64::from(usage.completion_tokens),
        };
        Some((turn.stream_id, logged))
    });
    took.collect()
}

/// A reservation and when its answers are looked up.
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

#[cfg(test)]
mod tests;
