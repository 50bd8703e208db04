//! Serving HTTP/1.1 to strangers. `axum::serve` sets no timers and no `TCP_NODELAY`; here every wait is bounded.

use std::{any::Any, convert::Infallible, net::IpAddr, sync::Arc, time::Duration};

use http::{HeaderValue, Request, Response, StatusCode, header};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::sync::Semaphore;
use tonic::transport::server::{Connected, TcpConnectInfo};
use tower::Service;

use crate::{drain::Drain, listen::Listener, notice::Event, stall::WriteStall};

/// The bounds of a connection.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// From the opening of a connection, or from the last answer on it, to the end of the next request's head.
    pub head: Duration,
    /// How long a write may make no progress.
    pub write_stall: Duration,
    /// The most connections at once. More wait to be accepted.
    pub connections: usize,
    /// After draining has begun, how long connections are still accepted: whoever sends them may not know yet.
    pub settle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Duration::from_secs(5),
            write_stall: Duration::from_secs(30),
            connections: 16 * 1024,
            settle: Duration::ZERO,
        }
    }
}

/// Who is at the other end of a request's connection, as the requests' extensions say. Nobody that can be told, where it has no address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer(pub Option<IpAddr>);

/// The most bytes of a request's head; hyper's smallest bound.
const HEAD_BYTES: usize = 16 * 1024;

/// Serves until draining begins. Then every answer says that its connection closes; when that has settled, no connection is accepted,
/// idle ones are closed, and busy ones after their answer.
pub async fn serve<S, B>(listener: impl Listener, service: S, limits: Limits, drain: Drain)
where
    S: Service<Request<Incoming>, Response = Response<B>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send + 'static,
    B: hyper::body::Body + Send + 'static,
    B::Data: Send,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let service = tower::util::MapResponse::new(service, {
        let drain = drain.clone();
        move |mut response: Response<B>| {
            if drain.is_draining() && response.status() != StatusCode::SWITCHING_PROTOCOLS {
                response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            response
        }
    });
    let settled = Event::default();
    let places = Arc::new(Semaphore::new(limits.connections));
    let mut builder = http1::Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(limits.head)
        // An event is small: copying it behind its chunk's head costs less than telling the kernel where each part lies.
        .writev(false)
        // Never `pipeline_flush`: with it hyper buffers without bound for a client that does not read.
        .max_buf_size(HEAD_BYTES);
    let mut leave = std::pin::pin!(settle(&drain, limits.settle));
    loop {
        let accepted = async {
            let place = Arc::clone(&places).acquire_owned().await.ok();
            (place, listener.connection().await)
        };
        let (place, stream) = tokio::select! {
            () = leave.as_mut() => break,
            accepted = accepted => accepted,
        };
        let peer = peer_of(&stream);
        let service = tower::util::MapRequest::new(service.clone(), move |mut request: Request<Incoming>| {
            request.extensions_mut().insert(peer);
            request
        });
        let stream = TokioIo::new(WriteStall::new(stream, limits.write_stall));
        // In a box: what a task is made of would otherwise have it twice, before and after it is pinned.
        let mut connection = Box::pin(builder.serve_connection(stream, TowerToHyperService::new(service)).with_upgrades());
        let settled = settled.notice();
        drain.spawn(async move {
            let _place = place;
            let ended = tokio::select! {
                biased;
                ended = connection.as_mut() => ended,
                () = settled => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection broke");
            }
        });
    }
    settled.happen();
}

fn peer_of(connection: &impl Connected) -> Peer {
    let info = connection.connect_info();
    let info = (&info as &dyn Any).downcast_ref::<TcpConnectInfo>();
    Peer(info.and_then(TcpConnectInfo::remote_addr).map(|address| address.ip()))
}

/// Waits until draining has begun and has settled.
async fn settle(drain: &Drain, time: Duration) {
    drain.draining().await;
    let _ = tokio::time::timeout(time, drain.last_call()).await;
}
