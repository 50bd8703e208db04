//! Who the gateway calls: the routers, by exchanges, and the conversation store. [`crate::turn`] and the doors use it.
//!
//! Each router also tells its state all the time (`WatchStatus`), so that models, health and readiness are known without a call.

pub(crate) mod exchange;
mod rank;
pub(crate) mod slot;

use std::{sync::Arc, time::Duration};

use chassis::{channel, drain::Drain};
use parking_lot::{Mutex, RwLock};
use proto::{
    MAX_DECODED_MESSAGE, MAX_ENCODED_MESSAGE,
    v1::{
        Model, RouterStatus, WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient,
        conversation_service_client::ConversationServiceClient,
    },
};
use tokio::time::sleep;
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use self::exchange::Exchange;
use crate::Settings;

/// How long after a broken status stream it is opened again.
const WATCH_AGAIN: Duration = Duration::from_millis(200);

/// All that the gateway calls. Cloning shares; when the last clone goes, the connections are closed.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routers: RwLock<Arc<[Arc<Router>]>>,
    store: ConversationServiceClient<Channel>,
    _stop: DropGuard,
}

/// One router.
#[derive(Debug)]
pub(crate) struct Router {
    address: String,
    channel: Channel,
    exchanges: Vec<Arc<Exchange>>,
    /// Its last word; `None` while it cannot be reached.
    status: Mutex<Option<Arc<RouterStatus>>>,
}

impl Clients {
    /// Begins to connect. Nothing has to be there yet.
    ///
    /// # Errors
    /// An address is not one.
    pub(crate) fn new(settings: &Settings, drain: &Drain) -> Result<Self, channel::Error> {
        let stop = CancellationToken::new();
        let routers = settings
            .routers
            .iter()
            .map(|address| Router::start(address, settings.gateway_exchanges, drain, &stop))
            .collect::<Result<Vec<_>, _>>()?;
        let store = ConversationServiceClient::new(channel::lazy(&settings.gateway_store)?)
            .max_decoding_message_size(MAX_DECODED_MESSAGE)
            .max_encoding_message_size(MAX_ENCODED_MESSAGE);
        Ok(Self(Arc::new(Inner {
            routers: RwLock::new(routers.into()),
            store,
            _stop: stop.drop_guard(),
        })))
    }

    /// All routers, reachable or not.
    pub(crate) fn routers(&self) -> Arc<[Arc<Router>]> {
        Arc::clone(&self.0.routers.read())
    }

    /// The routers that take answers now, the home of `stream_id` first, draining ones last.
    pub(crate) fn ranked(&self, stream_id: &str) -> Vec<Arc<Router>> {
        let mut live: Vec<_> = self.routers().iter().filter(|router| router.is_live()).cloned().collect();
        live.sort_by_cached_key(|router| (router.is_draining(), std::cmp::Reverse(rank::rank(stream_id, &router.address))));
        live
    }

    /// The models of all routers, each once.
    pub(crate) fn models(&self) -> Vec<Model> {
        let mut models: Vec<Model> = Vec::new();
        for status in self.statuses() {
            for model in &status.models {
                if models.iter().all(|known| known.id != model.id) {
                    models.push(model.clone());
                }
            }
        }
        models
    }

    /// What the reachable routers said last.
    pub(crate) fn statuses(&self) -> Vec<Arc<RouterStatus>> {
        self.routers().iter().filter_map(|router| router.status()).collect()
    }

    /// The conversation store.
    pub(crate) fn store(&self) -> ConversationServiceClient<Channel> {
        self.0.store.clone()
    }
}

impl Router {
    fn start(address: &str, exchanges: usize, drain: &Drain, stop: &CancellationToken) -> Result<Arc<Self>, channel::Error> {
        let channel = channel::lazy(address)?;
        let router = Arc::new(Self {
            address: address.to_owned(),
            channel: channel.clone(),
            exchanges: (0..exchanges.max(1)).map(|_| Arc::default()).collect(),
            status: Mutex::default(),
        });
        for exchange in &router.exchanges {
            let run = Arc::clone(exchange).run(address.to_owned(), channel.clone());
            drain.spawn(until(stop.clone(), run));
        }
        drain.spawn(until(stop.clone(), Arc::clone(&router).watch()));
        Ok(router)
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
        let which = if count > 1 { rank::rank(stream_id, "") % count as u64 } else { 0 };
        &self.exchanges[usize::try_from(which).unwrap_or(0)]
    }

    /// For calls beside the exchanges.
    pub(crate) fn client(&self) -> ChatServiceClient<Channel> {
        chat(self.channel.clone())
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

fn chat(channel: Channel) -> ChatServiceClient<Channel> {
    ChatServiceClient::new(channel)
        .max_decoding_message_size(MAX_DECODED_MESSAGE)
        .max_encoding_message_size(MAX_ENCODED_MESSAGE)
}

async fn until(stop: CancellationToken, task: impl Future<Output = ()>) {
    tokio::select! {
        () = stop.cancelled() => {}
        () = task => {}
    }
}
