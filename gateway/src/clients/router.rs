//! One router: its exchanges, and its state as it tells it.

use std::{collections::HashSet, sync::Arc, time::Duration};

use chassis::{channel, drain::Drain};
use parking_lot::Mutex;
use proto::{
    MAX_DECODED_MESSAGE, MAX_ENCODED_MESSAGE,
    v1::{Failure, RouterStatus, WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient},
};
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

use super::{exchange::Exchange, rank::rank};

/// How long after a broken status stream it is opened again.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// One router.
#[derive(Debug)]
pub(crate) struct Router {
    address: String,
    channel: Channel,
    exchanges: Vec<Arc<Exchange>>,
    /// Its last word; `None` while it cannot be reached.
    status: Mutex<Option<Arc<RouterStatus>>>,
    stop: CancellationToken,
}

impl Router {
    /// Begins to connect, and keeps at it until `stop`.
    ///
    /// # Errors
    /// The address is not one.
    pub(super) fn start(address: &str, exchanges: usize, drain: &Drain, stop: CancellationToken) -> Result<Arc<Self>, channel::Error> {
        let channel = channel::lazy(address)?;
        let router = Arc::new(Self {
            address: address.to_owned(),
            channel: channel.clone(),
            exchanges: (0..exchanges.max(1)).map(|_| Arc::default()).collect(),
            status: Mutex::default(),
            stop: stop.clone(),
        });
        for exchange in &router.exchanges {
            let run = Arc::clone(exchange).run(address.to_owned(), client(channel.clone()));
            drain.spawn(until(stop.clone(), run));
        }
        drain.spawn(until(stop, Arc::clone(&router).watch()));
        Ok(router)
    }

    /// Closes the connections, answers or no answers.
    pub(super) fn stop(&self) {
        self.stop.cancel();
    }

    /// Where it is.
    pub(crate) fn address(&self) -> &str {
        &self.address
    }

    /// How many answers are read from it.
    pub(crate) fn answers(&self) -> usize {
        self.exchanges.iter().map(|exchange| exchange.calls()).sum()
    }

    /// Its last word, unless it cannot be reached.
    pub(crate) fn status(&self) -> Option<Arc<RouterStatus>> {
        self.status.lock().clone()
    }

    /// Whether all its exchanges are open.
    pub(crate) fn is_live(&self) -> bool {
        self.exchanges.iter().all(|exchange| exchange.is_live())
    }

    /// Whether it says that it takes nothing new.
    pub(crate) fn is_draining(&self) -> bool {
        self.status.lock().as_ref().is_some_and(|status| status.draining)
    }

    /// Sends all readers of begun answers elsewhere.
    pub(super) fn send_away(&self) {
        for exchange in &self.exchanges {
            exchange.send_away();
        }
    }

    /// Adds the keys with which its answers are read.
    pub(super) fn keys(&self, keys: &mut HashSet<Arc<str>>) {
        self.exchanges.iter().for_each(|exchange| exchange.keys(keys));
    }

    /// Ends what is read with these keys, and tells how much that was.
    pub(super) fn cut(&self, keys: &HashSet<&str>, failure: &Failure) -> usize {
        self.exchanges.iter().map(|exchange| exchange.cut(keys, failure)).sum()
    }

    /// Whether a first chat would be answered: a worker is ready, a model can chat, and the queue is below its mark.
    pub(crate) fn is_ready(&self, queue_percent: u32) -> bool {
        let Some(status) = self.status() else { return false };
        let below = u64::from(status.queue_depth) * 100 < u64::from(status.queue_limit) * u64::from(queue_percent);
        self.is_live()
            && !status.draining
            && (status.queue_limit == 0 || below)
            && status.models.iter().any(|model| model.chat)
            && status.workers.iter().any(|worker| worker.state() == WorkerState::Ready)
    }

    /// The exchange for one answer.
    pub(crate) fn exchange(&self, stream_id: &str) -> &Arc<Exchange> {
        let count = self.exchanges.len();
        let which = if count > 1 { rank(stream_id, "") % count as u64 } else { 0 };
        &self.exchanges[usize::try_from(which).unwrap_or(0)]
    }

    /// For calls beside the exchanges.
    pub(crate) fn client(&self) -> ChatServiceClient<Channel> {
        client(self.channel.clone())
    }

    /// Follows the router's state for ever.
    async fn watch(self: Arc<Self>) {
        loop {
            if let Ok(response) = self.client().watch_status(WatchStatusRequest {}).await {
                let mut states = response.into_inner();
                while let Ok(Some(state)) = states.message().await {
                    *self.status.lock() = Some(Arc::new(state));
                }
            }
            *self.status.lock() = None;
            sleep(WATCH_AGAIN).await;
        }
    }
}

fn client(channel: Channel) -> ChatServiceClient<Channel> {
    ChatServiceClient::new(channel)
        .max_decoding_message_size(MAX_DECODED_MESSAGE)
        .max_encoding_message_size(MAX_ENCODED_MESSAGE)
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    stop.run_until_cancelled(task).await;
}
