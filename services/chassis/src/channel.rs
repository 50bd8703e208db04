//! Calling another process of the mesh.

use std::{str::FromStr, time::Duration};

use tonic::transport::{Channel, Endpoint};

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
    endpoint(address).map(|endpoint| endpoint.connect_lazy())
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
