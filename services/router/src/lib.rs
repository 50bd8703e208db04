//! The router: admits, picks a worker, relays. It carries the journals of the answers that it has started or adopted.
//!
//! In the order that a request travels:
//! - `service`: ChatService, as gRPC calls it. `relay`: what a reader is sent, one answer a call or many on an exchange.
//! - `router`: what happens to an answer from its start to its end. `request`: what a request must be.
//! - `admission`: who waits, and whose turn it is. `pick`: which worker. Both pure.
//! - `workers` and `worker`: the workers, their load, and the calls on them. `discovery`: where they are.
//! - `store`: the conversation store; history, turns and their outbox.
//! - `answer`: one answer and its legs. `expired`: those that are not kept any more. `mailbox`, `pulse`: how others hear of changes.

mod admission;
mod answer;
mod budget;
mod discovery;
mod expired;
mod mailbox;
mod pick;
mod pulse;
mod reading;
mod relay;
mod request;
mod router;
mod service;
mod settings;
mod status;
mod store;
mod worker;
mod workers;

use chassis::{drain::Drain, grpc::Services, listen::Listener};
use proto::v1::chat_service_server::ChatServiceServer;

pub use settings::Settings;

use crate::{discovery::Place, router::Router, service::Service};

/// Why a router cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A worker's address is not one.
    #[error("UNBROKEN_WORKERS: {address:?} is not the address of a worker: {reason}")]
    Worker {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The store's address is not one.
    #[error("UNBROKEN_STORE: {0}")]
    Store(chassis::channel::Error),
    /// The system's resolver cannot be used.
    #[error("UNBROKEN_WORKERS has names to resolve, but the resolver cannot be set up: {0}")]
    Resolver(String),
    /// gRPC cannot be served.
    #[error(transparent)]
    Grpc(#[from] chassis::grpc::Error),
}

impl chassis::process::Fault for Error {
    fn is_of_setting(&self) -> bool {
        !matches!(self, Self::Grpc(_))
    }
}

/// Serves until draining begins, then until every answer has ended and every reader has it.
///
/// # Errors
/// A setting is wrong, or gRPC cannot be served.
pub async fn run(settings: Settings, listener: impl Listener, drain: Drain) -> Result<(), Error> {
    let places = settings
        .workers
        .iter()
        .map(|text| Place::parse(text.trim()))
        .collect::<Result<Vec<_>, _>>()?;
    let interval = settings.dns_interval;
    let router = Router::new(settings, drain.clone())?;
    router.spawn_tasks();
    let known = router.clone();
    discovery::watch(places, interval, &drain, move |source, addresses| {
        known.know_workers(source, addresses);
    })?;
    let service = ChatServiceServer::new(Service::new(router.clone()))
        .max_decoding_message_size(proto::MAX_DECODED_MESSAGE)
        .max_encoding_message_size(proto::MAX_ENCODED_MESSAGE);
    Services::new(proto::FILE_DESCRIPTOR_SET)?
        .with(service)
        .serve(listener, drain)
        .await?;
    Ok(())
}
