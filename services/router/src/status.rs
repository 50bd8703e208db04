//! What operators and gateways see of this router: at once, then whenever it changes.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream};
use proto::v1::RouterStatus;
use tokio::{sync::watch, time::sleep};
use tonic::Status;

use crate::router::Router;

/// Changes are gathered for so long: one answer's start and end would else be two messages.
const GATHER: Duration = Duration::from_millis(100);

/// The state now.
pub(crate) fn of(router: &Router) -> RouterStatus {
    let (workers, models) = router.workers.status();
    let (carried, queue_depth) = router.counts();
    let slots: u32 = workers
        .iter()
        .filter(|worker| worker.state() == proto::v1::WorkerState::Ready)
        .filter_map(|worker| worker.load.as_ref())
        .map(|load| load.slots)
        .sum();
    RouterStatus {
        draining: router.drain.is_draining(),
        queue_depth,
        queue_limit: slots.saturating_mul(router.settings.queue_factor),
        running: u32::try_from(carried).unwrap_or(u32::MAX).saturating_sub(queue_depth),
        store_up: router.is_store_up(),
        workers,
        models,
    }
}

struct Watch {
    router: Arc<Router>,
    changes: watch::Receiver<()>,
    last: Option<RouterStatus>,
}

/// The state now, and each later one that differs, until the router stops.
pub(crate) fn watch(router: &Arc<Router>) -> impl Stream<Item = Result<RouterStatus, Status>> + Send + use<> {
    let watch = Watch {
        router: Arc::clone(router),
        changes: router.pulse.status(),
        last: None,
    };
    stream::unfold(watch, |mut watch| async move {
        let over = watch.router.over();
        loop {
            let status = of(&watch.router);
            if watch.last.as_ref() != Some(&status) {
                watch.last = Some(status.clone());
                return Some((Ok(status), watch));
            }
            tokio::select! {
                () = over.cancelled() => return None,
                () = sleep(GATHER) => {}
            }
            tokio::select! {
                () = over.cancelled() => return None,
                changed = watch.changes.changed() => changed.ok()?,
            }
        }
    })
}
