//! Calling another process of the mesh.
//!
//! Connections are made over TCP, unless the thread has its own [`Dialer`]: a whole mesh that is simulated on one thread.

use std::{cell::RefCell, future::Future, io, pin::Pin, str::FromStr, sync::Arc, time::Duration};

use http::Uri;
use hyper_util::rt::TokioIo;
use tokio::io::DuplexStream;
use tonic::transport::{Channel, Endpoint};
use tower::{Service, service_fn};

use crate::grpc::{CONNECTION_WINDOW, KEEPALIVE, KEEPALIVE_TIMEOUT, STREAM_WINDOW};

/// How long a connection may take to be made.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// An address that is not one.
#[derive(Debug, thiserror::Error)]
#[error("{address:?} is not the address of a service ({reason}); write it as host:port or http://host:port")]
pub struct Error {
    address: String,
    reason: String,
}

/// The endpoint at `address`, as `host:port` or `http://host:port`, with the mesh's flow control and keepalive. It has no
/// timeout of its own: whoever calls has clocks that know what is waited for.
///
/// # Errors
/// The address is not one.
pub fn endpoint(address: &str) -> Result<Endpoint, Error> {
    let refuse = |reason: String| Error {
        address: address.to_owned(),
        reason,
    };
    let uri = if address.contains("://") {
        address.to_owned()
    } else {
        format!("http://{address}")
    };
    let endpoint = Endpoint::from_str(&uri).map_err(|error| refuse(error.to_string()))?;
    if endpoint.uri().port().is_none() {
        return Err(refuse("the port is missing".to_owned()));
    }
    Ok(endpoint
        .connect_timeout(CONNECT_TIMEOUT)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .http2_adaptive_window(false)
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .tcp_nodelay(true))
}

/// A channel to `address` that connects when it is first used, and again whenever it must.
///
/// # Errors
/// The address is not one.
pub fn lazy(address: &str) -> Result<Channel, Error> {
    let endpoint = endpoint(address)?;
    Ok(match dialer() {
        None => endpoint.connect_lazy(),
        Some(dialer) => endpoint.connect_with_connector_lazy(connector(dialer)),
    })
}

/// A channel that is connected.
///
/// # Errors
/// Nobody is there.
pub async fn connect(endpoint: &Endpoint) -> Result<Channel, tonic::transport::Error> {
    match dialer() {
        None => endpoint.connect().await,
        Some(dialer) => endpoint.connect_with_connector(connector(dialer)).await,
    }
}

/// Connects to `host:port` in a simulation.
pub type Dialer = Arc<dyn Fn(String) -> Dialled + Send + Sync>;

/// A connection that is being made.
pub type Dialled = Pin<Box<dyn Future<Output = io::Result<DuplexStream>> + Send>>;

thread_local! {
    static DIALER: RefCell<Option<Dialer>> = const { RefCell::new(None) };
}

/// All channels that this thread makes from now on are dialled so; `None`: over TCP again. A thread, for the services of a mesh
/// that is simulated share one, and meshes that are simulated side by side do not.
pub fn dial_with(dialer: Option<Dialer>) {
    DIALER.set(dialer);
}

fn dialer() -> Option<Dialer> {
    DIALER.with_borrow(Clone::clone)
}

fn connector(
    dialer: Dialer,
) -> impl Service<Uri, Response = TokioIo<DuplexStream>, Error = io::Error, Future: Send> + Clone + Send + 'static {
    service_fn(move |uri: Uri| {
        let dialled = dialer(uri.authority().map(ToString::to_string).unwrap_or_default());
        async move { dialled.await.map(TokioIo::new) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_host_and_port() {
        assert!(endpoint("127.0.0.1:50051").is_ok());
        assert!(endpoint("http://router:50051").is_ok());
        assert!(endpoint("router").unwrap_err().to_string().contains("port is missing"));
        assert!(endpoint("not an address:1").is_err());
    }
}
