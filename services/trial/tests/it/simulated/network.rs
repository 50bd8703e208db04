//! A network in memory: hosts by name, pipes between them, and a [`Link`] for each pair.
//!
//! Who dials is part of the address (`r0.w1:1` is worker 1 as router 0 sees it), so that the way between any two can be disturbed.

use std::{
    collections::BTreeMap,
    io,
    sync::{Arc, Mutex},
};

use chassis::channel::Dialer;
use tokio::{
    io::{DuplexStream, duplex},
    sync::mpsc,
};
use trial::{client::Dial, link::Link};

/// Whoever stands outside of the mesh.
const CLIENT: &str = "c";

/// Bytes that wait in a pipe before its writer must: those of a socket's buffers.
const PIPE: usize = 64 * 1024;
/// Connections that may wait to be accepted.
const BACKLOG: usize = 64;

/// The network.
#[derive(Debug, Default)]
pub(crate) struct Network {
    hosts: Mutex<BTreeMap<String, mpsc::Sender<DuplexStream>>>,
    links: Mutex<BTreeMap<(String, String), Arc<Link>>>,
}

/// A host's listening side.
#[derive(Debug)]
pub(crate) struct Host {
    name: String,
    connections: tokio::sync::Mutex<mpsc::Receiver<DuplexStream>>,
}

impl chassis::listen::Listener for Host {
    type Connection = DuplexStream;

    fn address(&self) -> String {
        self.name.clone()
    }

    fn is_local(&self) -> bool {
        true
    }

    async fn connection(&self) -> DuplexStream {
        match self.connections.lock().await.recv().await {
            Some(connection) => connection,
            None => std::future::pending().await,
        }
    }
}

impl Network {
    /// The host of this name listens, instead of the one before.
    pub(crate) fn host(&self, name: &str) -> Host {
        let (sender, connections) = mpsc::channel(BACKLOG);
        self.hosts.lock().unwrap().insert(name.to_owned(), sender);
        Host {
            name: name.to_owned(),
            connections: tokio::sync::Mutex::new(connections),
        }
    }

    /// The host is gone, and with it all its connections.
    pub(crate) fn kill(&self, name: &str) {
        self.hosts.lock().unwrap().remove(name);
        self.links_of(name).iter().for_each(|link| link.reset());
    }

    /// The way from one to another.
    pub(crate) fn link(&self, from: &str, to: &str) -> Arc<Link> {
        Arc::clone(self.links.lock().unwrap().entry((from.to_owned(), to.to_owned())).or_default())
    }

    /// All ways to a host and from it.
    pub(crate) fn links_of(&self, host: &str) -> Vec<Arc<Link>> {
        let links = self.links.lock().unwrap();
        let own = links.iter().filter(|((from, to), _)| from == host || to == host);
        own.map(|(_, link)| Arc::clone(link)).collect()
    }

    /// The ways between a host and all of these kinds.
    pub(crate) fn links_between(&self, host: &str, kinds: &[&str]) -> Vec<Arc<Link>> {
        let links = self.links.lock().unwrap();
        let is_one = |other: &String| kinds.iter().any(|kind| other.starts_with(kind));
        let own = links
            .iter()
            .filter(|((from, to), _)| (from == host && is_one(to)) || (to == host && is_one(from)));
        own.map(|(_, link)| Arc::clone(link)).collect()
    }

    /// Connects to `from.to:port`.
    pub(crate) async fn dial(&self, address: &str) -> io::Result<DuplexStream> {
        let name = address.split(':').next().unwrap_or_default();
        let (from, to) = name.split_once('.').ok_or(io::ErrorKind::InvalidInput)?;
        let link = self.link(from, to);
        link.open().await?;
        let (lives, host) = {
            let hosts = self.hosts.lock().unwrap();
            (from == CLIENT || hosts.contains_key(from), hosts.get(to).cloned())
        };
        if !lives {
            return Err(io::ErrorKind::ConnectionAborted.into()); // the last breath of a process that was killed
        }
        let host = host.ok_or(io::ErrorKind::ConnectionRefused)?;
        let (near, near_end) = duplex(PIPE);
        let (far_end, far) = duplex(PIPE);
        host.try_send(far).map_err(|_| io::ErrorKind::ConnectionRefused)?;
        tokio::spawn(async move { link.carry(near_end, far_end).await });
        Ok(near)
    }

    /// How the services of the mesh dial.
    pub(crate) fn dialer(self: &Arc<Self>) -> Dialer {
        let network = Arc::clone(self);
        Arc::new(move |address| {
            let network = Arc::clone(&network);
            Box::pin(async move { network.dial(&address).await })
        })
    }
}

/// The gateways, as a client outside sees them.
#[derive(Clone, Debug)]
pub(crate) struct Gateways {
    pub(crate) network: Arc<Network>,
    pub(crate) count: usize,
}

impl Dial for Gateways {
    type Connection = DuplexStream;

    fn gateways(&self) -> usize {
        self.count
    }

    async fn dial(&self, gateway: usize) -> io::Result<DuplexStream> {
        self.network.dial(&format!("{CLIENT}.g{gateway}:1")).await
    }
}
