//! A mesh of separate processes.

mod guard;
mod sight;

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use chassis::channel;
use proto::v1::{ListAnswersRequest, chat_service_client::ChatServiceClient};
use tempfile::TempDir;
use tonic::transport::Channel;

use crate::{
    disk::Disk,
    process::{Plan, Process, Setting, free_ports, settings, sibling},
    proxy::Proxy,
};

/// How many of each there are, beside one store.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that is there or not")]
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder with the binaries; that of the running one if not given.
    pub bin: Option<PathBuf>,
    /// Gateways.
    pub gateways: usize,
    /// Routers.
    pub routers: usize,
    /// For each worker what it gets over [`Layout::settings`].
    pub workers: Vec<Vec<Setting>>,
    /// Settings that all of them get, over those that the fleet makes.
    pub settings: Vec<Setting>,
    /// Whether a [`Proxy`] stands between each gateway and each router, and between each router and each worker.
    pub proxied: bool,
    /// Whether the store has a [`Disk`] of its own, where this machine allows it.
    pub own_disk: bool,
    /// Whether the gateways share limits through a Redis, where there is one to start.
    pub redis: bool,
    /// Whether the gateways ask for a key, and hold its owner to limits: wide ones.
    pub guarded: bool,
}

impl Layout {
    /// So many of each, with the scripted engine.
    pub fn of(gateways: usize, routers: usize, workers: usize) -> Self {
        Self {
            bin: None,
            gateways,
            routers,
            workers: vec![Vec::new(); workers],
            settings: Vec::new(),
            proxied: false,
            own_disk: false,
            redis: false,
            guarded: false,
        }
    }
}

/// Running processes, by kind.
#[derive(Debug)]
pub struct Fleet {
    /// The store.
    pub store: Process,
    /// The workers.
    pub workers: Vec<Process>,
    /// The routers.
    pub routers: Vec<Process>,
    /// The gateways.
    pub gateways: Vec<Process>,
    /// Where the gateways listen.
    pub http: Vec<SocketAddr>,
    /// Where the routers listen.
    pub grpc: Vec<SocketAddr>,
    /// Where the workers listen.
    pub engine: Vec<SocketAddr>,
    /// Where the store listens.
    pub history: SocketAddr,
    /// By gateway and router, if the layout says so.
    pub to_routers: Vec<Vec<Proxy>>,
    /// By router and worker, if the layout says so.
    pub to_workers: Vec<Vec<Proxy>>,
    /// The store's disk, if the layout says so and this machine allows it.
    pub disk: Option<Disk>,
    /// What the gateways share their limits through, if the layout says so and this machine has one.
    pub redis: Option<Process>,
    /// The API key that opens the gateways, if the layout says so.
    pub key: Option<String>,
    /// Their data and logs, until the end.
    pub folder: TempDir,
}

impl Fleet {
    /// Starts all, and waits until each gateway would answer a chat at every worker.
    pub async fn start(layout: &Layout) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let (http, grpc, engine, history) = (
            free_ports(layout.gateways)?,
            free_ports(layout.routers)?,
            free_ports(layout.workers.len())?,
            free_ports(1)?[0],
        );
        let to_routers = ways(layout.proxied, http.len(), &grpc).await?;
        let to_workers = ways(layout.proxied, grpc.len(), &engine).await?;
        let (redis, limits) = guard::of(layout, folder.path())?;
        let data = folder.path().join("data");
        let disk = match layout.own_disk.then(|| Disk::mount(&data, folder.path().join("disk.log"))) {
            None => None,
            Some(mounted) => mounted
                .await
                .inspect_err(|error| eprintln!("the store has no disk of its own: {error:#}"))
                .ok(),
        };
        let plan = |kind: &str, number: usize, own: &[(&str, &str)], over: &[Setting]| -> anyhow::Result<Plan> {
            Ok(Plan {
                name: if number == 0 {
                    kind.to_owned()
                } else {
                    format!("{kind} {}", number + 1)
                },
                program: sibling(layout.bin.as_deref(), &format!("unbroken-{kind}"))?,
                arguments: Vec::new(),
                settings: [settings(own).as_slice(), &layout.settings, over].concat(),
                log: folder.path().join(format!("{kind}-{number}.log")),
            })
        };
        let start = |kind: &str, number: usize, own: &[(&str, &str)], over: &[Setting]| Process::start(plan(kind, number, own, over)?);
        let (data, store) = (data.display().to_string(), history.to_string());
        let own = [("UNBROKEN_STORE_LISTEN", store.as_str()), ("UNBROKEN_DATA_DIR", data.as_str())];
        let started = plan("store", 0, &own, &[])?;
        let started = Process::start(match &disk {
            Some(disk) => disk.within(started),
            None => started,
        })?;
        let workers = engine.iter().zip(&layout.workers).enumerate().map(|(number, (address, over))| {
            let address = address.to_string();
            let own = [
                ("UNBROKEN_WORKER_LISTEN", address.as_str()),
                ("UNBROKEN_ENGINE", "scripted"),
                ("UNBROKEN_SCRIPT_SEATS", "8192"),
            ];
            start("worker", number, &own, over)
        });
        let workers = workers.collect::<anyhow::Result<Vec<_>>>()?;
        let routers = grpc.iter().enumerate().map(|(number, address)| {
            let (address, workers) = (address.to_string(), list(&seen_by(&to_workers, number, &engine)));
            let own = [
                ("UNBROKEN_GRPC", address.as_str()),
                ("UNBROKEN_WORKERS", workers.as_str()),
                ("UNBROKEN_STORE", store.as_str()),
            ];
            start("router", number, &own, &[])
        });
        let routers = routers.collect::<anyhow::Result<Vec<_>>>()?;
        let gateways = http.iter().enumerate().map(|(number, address)| {
            let (address, routers) = (address.to_string(), list(&seen_by(&to_routers, number, &grpc)));
            let own = [
                ("UNBROKEN_HTTP", address.as_str()),
                ("UNBROKEN_ROUTERS", routers.as_str()),
                ("UNBROKEN_STORE", store.as_str()),
            ];
            start("gateway", number, &own, &limits)
        });
        let mut gateways = gateways.collect::<anyhow::Result<Vec<_>>>()?;
        for (gateway, address) in gateways.iter_mut().zip(&http) {
            gateway.ready(*address, "/ready").await?;
            sight::sees_all_workers(*address).await?;
        }
        let key = layout.guarded.then(|| guard::make_key(layout.bin.as_deref(), &store)).transpose()?;
        Ok(Self {
            store: started,
            workers,
            routers,
            gateways,
            http,
            grpc,
            engine,
            history,
            to_routers,
            to_workers,
            disk,
            redis,
            key,
            folder,
        })
    }

    /// All processes, in the order in which a request passes them, from the store backwards, and at last what the gateways share.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.store)
            .chain(&self.workers)
            .chain(&self.routers)
            .chain(&self.gateways)
            .chain(&self.redis)
    }

    /// The same, to do something to them.
    pub fn processes_mut(&mut self) -> impl Iterator<Item = &mut Process> {
        std::iter::once(&mut self.store)
            .chain(&mut self.workers)
            .chain(&mut self.routers)
            .chain(&mut self.gateways)
            .chain(&mut self.redis)
    }

    /// A channel to each router, past the proxies.
    pub fn router_channels(&self) -> anyhow::Result<Vec<Channel>> {
        self.grpc.iter().map(|address| Ok(channel::lazy(&address.to_string())?)).collect()
    }

    /// A channel to the store.
    pub fn store_channel(&self) -> anyhow::Result<Channel> {
        Ok(channel::lazy(&self.history.to_string())?)
    }

    /// The worker that writes the one answer that runs.
    pub async fn writer(&self) -> anyhow::Result<usize> {
        for router in self.router_channels()? {
            let mut answers = ChatServiceClient::new(router)
                .list_answers(ListAnswersRequest {})
                .await?
                .into_inner();
            while let Some(answer) = answers.message().await? {
                if answer.state == "running" && !answer.worker.is_empty() {
                    let at = |address: &SocketAddr| answer.worker.contains(&address.to_string());
                    let found = self.engine.iter().position(at);
                    return found.with_context(|| format!("no worker at {}", answer.worker));
                }
            }
        }
        anyhow::bail!("no answer runs")
    }

    /// The last lines of every log.
    pub fn logs(&self) -> String {
        let mut text = String::from("logs:\n");
        for entry in std::fs::read_dir(self.folder.path()).into_iter().flatten().flatten() {
            if let Ok(log) = std::fs::read_to_string(entry.path()) {
                let last: Vec<_> = log.lines().rev().take(5).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                let _ = writeln!(text, "{}: {}", entry.file_name().display(), last.join("\n  "));
            }
        }
        text
    }
}

/// A proxy from each of so many to each target.
async fn ways(wanted: bool, from: usize, targets: &[SocketAddr]) -> anyhow::Result<Vec<Vec<Proxy>>> {
    let mut ways = Vec::new();
    for _ in 0..if wanted { from } else { 0 } {
        let mut own = Vec::new();
        for target in targets {
            own.push(Proxy::start(*target).await?);
        }
        ways.push(own);
    }
    Ok(ways)
}

/// Where process `number` finds its targets: behind its own proxies, if there are any.
fn seen_by(ways: &[Vec<Proxy>], number: usize, targets: &[SocketAddr]) -> Vec<SocketAddr> {
    let proxies = ways.get(number).map(|own| own.iter().map(|proxy| proxy.address).collect());
    proxies.unwrap_or_else(|| targets.to_vec())
}

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}
