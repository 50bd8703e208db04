//! A gateway in the test's own process.

use std::net::SocketAddr;

use chassis::{drain::Drain, listen::listen};
use clap::Parser;
use tokio::task::JoinHandle;

use crate::{client, router::Router};

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: gateway::Settings,
}

/// A running gateway.
pub(crate) struct Gateway {
    pub(crate) address: SocketAddr,
    pub(crate) drain: Drain,
    pub(crate) served: JoinHandle<()>,
}

impl Gateway {
    /// One before these routers, ready to answer.
    pub(crate) async fn before(routers: &[&Router]) -> Self {
        Self::with(routers, &[]).await
    }

    /// One with these settings.
    pub(crate) async fn with(routers: &[&Router], settings: &[&str]) -> Self {
        let addresses: Vec<String> = routers.iter().map(|router| router.address.to_string()).collect();
        let addresses = if addresses.is_empty() {
            "127.0.0.1:1".to_owned()
        } else {
            addresses.join(",")
        };
        let arguments = ["gateway", "--routers", &addresses].into_iter().chain(settings.iter().copied());
        let settings = Command::parse_from(arguments).settings;
        let listener = listen("127.0.0.1:0", "UNBROKEN_HTTP").unwrap();
        let address = listener.local_addr().unwrap();
        let drain = Drain::new();
        let served = tokio::spawn({
            let drain = drain.clone();
            async move { ::gateway::run(settings, listener, drain).await.unwrap() }
        });
        let gateway = Self { address, drain, served };
        for router in routers {
            router.connected().await;
        }
        while !routers.is_empty() && gateway.connected_routers().await < routers.len() {
            tokio::task::yield_now().await;
        }
        gateway
    }

    async fn connected_routers(&self) -> usize {
        let health = client::get(self.address, "/health").await.json();
        let routers = health["routers"].as_array().unwrap().iter();
        routers
            .filter(|router| router["connected"] == true && router["workers"].is_array())
            .count()
    }
}
