//! A listening socket, or a clear reason why not; and what a service asks of whatever brings it connections.

use std::{
    future::Future,
    io,
    net::{SocketAddr, ToSocketAddrs as _},
};

use socket2::{Domain, Protocol, Socket, Type};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
};
use tonic::transport::server::Connected;

/// Connections that may wait to be accepted.
const BACKLOG: i32 = 4096;

/// A port could not be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({setting}): {source}")]
pub struct Error {
    address: String,
    setting: &'static str,
    source: io::Error,
}

/// What brings connections: a listening socket or, where a whole mesh is simulated in one process, pipes in memory.
pub trait Listener: Send + Sync + 'static {
    /// One connection.
    type Connection: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static;

    /// Where it listens, for logs.
    fn address(&self) -> String;

    /// Whether only this machine can reach it.
    fn is_local(&self) -> bool;

    /// Waits for the next one.
    fn connection(&self) -> impl Future<Output = Self::Connection> + Send;
}

impl Listener for TcpListener {
    type Connection = TcpStream;

    fn address(&self) -> String {
        self.local_addr().map(|address| address.to_string()).unwrap_or_default()
    }

    fn is_local(&self) -> bool {
        self.local_addr().is_ok_and(|address| address.ip().is_loopback())
    }

    async fn connection(&self) -> TcpStream {
        accept(self).await.0
    }
}

/// Listens on `address`, as `host:port`. `setting` is what the operator calls it.
///
/// # Errors
/// The address is not one, or the port is taken.
pub fn listen(address: &str, setting: &'static str) -> Result<TcpListener, Error> {
    try_listen(address).map_err(|source| Error {
        address: address.to_owned(),
        setting,
        source,
    })
}

fn try_listen(address: &str) -> io::Result<TcpListener> {
    let address: SocketAddr = address
        .to_socket_addrs()?
        .next()
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "the name has no address"))?;
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

/// Accepts the next connection, with `TCP_NODELAY`: without it a token can wait 40 ms for the acknowledgement of the one before.
/// Errors that concern one connection, or that pass (no file descriptors left), are waited out.
async fn accept(listener: &TcpListener) -> (TcpStream, SocketAddr) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if stream.set_nodelay(true).is_ok() {
                    return (stream, peer);
                }
            }
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::warn!(%error, "cannot accept connections; trying again in a second");
                tokio::time::sleep(std::time::Duration::from_secs(1)).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionRefused
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_taken_port_is_named_with_its_setting() {
        let first = listen("127.0.0.1:0", "UNBROKEN_HTTP").unwrap();
        let address = first.local_addr().unwrap().to_string();
        let error = listen(&address, "UNBROKEN_HTTP").unwrap_err().to_string();
        assert!(
            error.contains(&address) && error.contains("UNBROKEN_HTTP") && error.contains("in use"),
            "{error}"
        );
    }
}
