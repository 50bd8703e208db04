//! `WatchLoad`: how busy the worker is, at once, then whenever it changes, and at least as often as asked.

use std::{sync::Arc, time::Duration};

use futures_util::{Stream, stream::unfold};
use proto::v1::Load;
use tokio::{
    sync::watch::Receiver,
    time::{sleep, timeout},
};
use tonic::Status;

use super::answers::Answers;

/// The longest silence where the watcher does not say.
const INTERVAL: Duration = Duration::from_millis(400);
/// Two messages are at least this far apart: under load everything changes all the time.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest silence that can be asked for.
const INTERVAL_MOST: Duration = Duration::from_mins(1);

struct Watch {
    answers: Arc<Answers>,
    changes: Receiver<()>,
    interval: Duration,
    sent: Option<Load>,
}

/// The loads for one watcher. They end when the worker has drained.
pub(super) fn watch(answers: Arc<Answers>, interval_ms: u32) -> impl Stream<Item = Result<Load, Status>> + Send {
    let interval = match interval_ms {
        0 => INTERVAL,
        asked => Duration::from_millis(asked.into()).clamp(PAUSE, INTERVAL_MOST),
    };
    let changes = answers.watch();
    let watch = Watch {
        answers,
        changes,
        interval,
        sent: None,
    };
    unfold(watch, |mut watch| async {
        let load = watch.next().await?;
        watch.sent = Some(load.clone());
        Some((Ok(load), watch))
    })
}

impl Watch {
    async fn next(&mut self) -> Option<Load> {
        let Some(sent) = &self.sent else {
            return Some(self.look());
        };
        if sent.draining && self.answers.is_idle() {
            return None;
        }
        let announced = sent.draining;
        let waiting = async {
            sleep(PAUSE).await;
            loop {
                tokio::select! {
                    changed = self.changes.changed() => if changed.is_err() { return },
                    () = self.answers.drain().draining(), if !announced => {}
                }
                // What came and went within the pause is no change.
                if self.sent.as_ref() != Some(&self.answers.load()) {
                    return;
                }
                if announced && self.answers.is_idle() {
                    return;
                }
            }
        };
        let _ = timeout(self.interval, waiting).await;
        Some(self.look())
    }

    fn look(&mut self) -> Load {
        self.changes.mark_unchanged();
        self.answers.load()
    }
}
