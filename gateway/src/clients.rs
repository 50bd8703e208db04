//! Who the gateway calls: the routers, by exchanges, and the conversation store. [`crate::turn`] and the doors use it.
//!
//! Each router also tells its state all the time (`WatchStatus`), so that models, health and readiness are known without a call.

mod bearer;
mod discovery;
pub(crate) mod exchange;
mod rank;
mod router;
pub(crate) mod slot;

use std::{collections::HashSet, sync::Arc};

use chassis::{channel, drain::Drain};
use proto::{
    MAX_DECODED_MESSAGE, MAX_ENCODED_MESSAGE,
    v1::{Failure, Model, RouterStatus, conversation_service_client::ConversationServiceClient},
};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use self::discovery::Routers;
pub(crate) use self::{bearer::Bearer, rank::rank, router::Router};
use crate::Settings;

/// All that the gateway calls. Cloning shares; when the last clone goes, the connections are closed.
#[derive(Clone, Debug)]
pub(crate) struct Clients(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    routers: Arc<Routers>,
    store: ConversationServiceClient<Channel>,
    _stop: DropGuard,
}

impl Clients {
    /// Begins to connect. Nothing has to be there yet.
    ///
    /// # Errors
    /// An address is not one.
    pub(crate) fn new(settings: &Settings, drain: &Drain) -> Result<Self, channel::Error> {
        let stop = CancellationToken::new();
        let routers = Routers::start(settings, drain, &stop)?;
        let store = ConversationServiceClient::new(channel::lazy(&settings.gateway_store)?)
            .max_decoding_message_size(MAX_DECODED_MESSAGE)
            .max_encoding_message_size(MAX_ENCODED_MESSAGE);
        Ok(Self(Arc::new(Inner {
            routers,
            store,
            _stop: stop.drop_guard(),
        })))
    }

    /// All routers, reachable or not.
    pub(crate) fn routers(&self) -> Arc<[Arc<Router>]> {
        self.0.routers.all()
    }

    /// The routers that take answers now, the home of `stream_id` first, draining ones last.
    pub(crate) fn ranked(&self, stream_id: &str) -> Vec<Arc<Router>> {
        let mut live: Vec<_> = self.routers().iter().filter(|router| router.is_live()).cloned().collect();
        live.sort_by_cached_key(|router| (router.is_draining(), std::cmp::Reverse(rank(stream_id, router.address()))));
        live
    }

    /// The keys with which answers are read now.
    pub(crate) fn keys(&self) -> HashSet<Arc<str>> {
        let mut keys = HashSet::new();
        self.routers().iter().for_each(|router| router.keys(&mut keys));
        keys
    }

    /// Ends what is read with these keys: with `failure` at the reader, and for good if the key has started it. Looks at every answer that
    /// is read now.
    pub(crate) fn cut(&self, keys: &HashSet<&str>, failure: &Failure) {
        let cut: usize = self.routers().iter().map(|router| router.cut(keys, failure)).sum();
        if cut > 0 {
            tracing::info!(answers = cut, "answers end with the right of their readers");
        }
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

    /// The context of `model` in tokens, or that of the first model where none is named. 0: not known.
    pub(crate) fn context_of(&self, model: &str) -> u32 {
        let statuses = self.statuses();
        let mut models = statuses.iter().flat_map(|status| &status.models);
        let found = models.find(|known| model.is_empty() || known.id == model);
        found.map_or(0, |model| model.context_length)
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
