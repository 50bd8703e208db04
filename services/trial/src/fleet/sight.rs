//! What a gateway sees of the fleet behind it.

use std::{net::SocketAddr, time::Duration};

use anyhow::Context as _;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use crate::load::Connection;

/// How long a router that runs may take to reach workers that run.
const SIGHT: Duration = Duration::from_secs(30);

/// Waits until a gateway knows that each of its routers is connected to all workers: it is ready as soon as one is, which may lack the
/// model that a test asks for.
pub(super) async fn sees_all_workers(gateway: SocketAddr) -> anyhow::Result<()> {
    let deadline = Instant::now() + SIGHT;
    loop {
        match every_worker_is_ready(gateway).await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > deadline => return Err(error),
            Err(_) => sleep(Duration::from_millis(20)).await,
        }
    }
}

async fn every_worker_is_ready(gateway: SocketAddr) -> anyhow::Result<()> {
    let mut connection = Connection::open(gateway).await?;
    connection.send(b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n").await?;
    let health: Value = serde_json::from_slice(connection.read_whole().await?)?;
    let mut routers = health["routers"].as_array().context("no routers")?.iter();
    let ready = routers.all(|router| {
        let workers = router["workers"].as_array();
        workers.is_some_and(|workers| workers.iter().all(|worker| worker["state"] == "ready"))
    });
    anyhow::ensure!(ready, "not every worker is ready: {health}");
    Ok(())
}
