//! The conversation store: conversations, turns and the log of requests, over SQLite or PostgreSQL. It calls nobody.
//!
//! A call comes in by `service`, which speaks gRPC; `check` judges its fields; `scope` says whose rows it may touch; `store`
//! holds the statements; `database` runs them, on either database.
//!
//! It does not know what a principal may do (the gateway has judged that), nor how an answer is made: it keeps what routers tell it.

mod check;
mod database;
mod error;
mod scope;
mod service;
mod settings;
mod store;

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use chassis::{drain::Drain, grpc};
use proto::v1::conversation_service_server::ConversationServiceServer;
use tokio::net::TcpListener;

pub use error::Error;
pub use settings::{Address, Settings, data_dir};

use crate::{service::Conversations, store::Store};

/// How often old things are let go.
const FORGET_EVERY: Duration = Duration::from_hours(1);

/// Opens the database and serves until draining begins and the last call has ended.
///
/// # Errors
/// See [`Error`]; with `is_of_setting` it is the operator's turn.
pub async fn run(settings: Settings, listener: TcpListener, drain: Drain) -> Result<(), Error> {
    let opened = tokio::select! {
        opened = database::open(&settings) => opened?,
        () = drain.draining() => return Ok(()),
    };
    let store = Store::new(opened, settings.lease);
    drain.spawn_until_draining(forget(store.clone(), settings.request_log_keep, settings.responses_keep));
    let service = ConversationServiceServer::new(Conversations::new(store.clone(), settings.store_timeout))
        .max_decoding_message_size(proto::MAX_DECODED_MESSAGE)
        .max_encoding_message_size(proto::MAX_ENCODED_MESSAGE);
    let services = grpc::Services::new(proto::FILE_DESCRIPTOR_SET)?.with(service);
    services.serve(listener, drain).await?;
    store.close().await;
    Ok(())
}

/// Lets go, for ever, of what is older than it is kept.
async fn forget(store: Store, log: Duration, records: Duration) {
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let before = |keep| i64::try_from(now.saturating_sub(keep).as_millis()).unwrap_or(i64::MAX);
        match store.forget(before(log), before(records)).await {
            Ok(0) => {}
            Ok(rows) => tracing::info!(rows, "old entries of the request log and old responses were let go"),
            Err(fault) => tracing::warn!(%fault, "old entries could not be let go; trying again later"),
        }
        tokio::time::sleep(FORGET_EVERY).await;
    }
}
