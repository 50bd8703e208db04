//! Serving HTTP/1.1 to strangers. `axum::serve` sets no timers and no `TCP_NODELAY`; here every wait is bounded.

use std::{convert::Infallible, sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{net::TcpListener, sync::Semaphore};
use tower::Service;

use crate::{drain::Drain, listen, stall::WriteStall};

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the opening of a connection, or from the last answer on it, to the end of the next request's head.
    pub head: Duration,
    /// How long a write may make no progress.
    pub write_stall: Duration,
    /// The most connections at once. More wait to be accepted.
    pub connections: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(10),
            write_stall: Duration::from_secs(30),
            connections: 16 * 1024,
        }
    }
}

/// The most bytes of a request's head; hyper's smallest bound.
const HEAD_BYTES: usize = 16 * 1024;

/// Serves until draining begins: then no connection is accepted, idle ones are closed, and busy ones after their answer.
pub async fn serve<S, B>(listener: TcpListener, service: S, limits: Limits, drain: Drain)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // Never `pipeline_flush`: with it hyper buffers without bound for a client that does not read.
        .max_buf_size(HEAD_BYTES);
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listen::accept(&listener).await.0)
        };
        let (place, stream) = tokio::select! {
            () = drain.draining() => break,
            accepted = accepted => accepted,
        };
        let stream = TokioIo::new(WriteStall::new(stream, limits.write_stall));
        let connection = builder
            .serve_connection(stream, TowerToHyperService::new(service.clone()))
            .with_upgrades();
        let stop = drain.clone();
        drain.spawn(async move {
            let _place = place;
            let mut connection = std::pin::pin!(connection);
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stop.draining() => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
}
