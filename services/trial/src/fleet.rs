//! A mesh of separate processes with the scripted engine.

use std::{fmt::Write as _, net::SocketAddr, path::PathBuf};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::process::{Plan, Process, answers, free_ports, sibling};

/// How many of each there are, beside one store.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The folder with the binaries; that of the running one if not given.
    pub bin: Option<PathBuf>,
    /// Gateways.
    pub gateways: usize,
    /// Routers.
    pub routers: usize,
    /// Workers.
    pub workers: usize,
    /// Settings that all of them get, over those that the fleet makes.
    pub settings: Vec<(String, String)>,
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
    /// Their data and logs, until the end.
    pub folder: TempDir,
}

impl Fleet {
    /// Starts all, and waits until each gateway would answer a chat.
    pub async fn start(layout: &Layout) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let (http, grpc, engine) = (
            free_ports(layout.gateways)?,
            free_ports(layout.routers)?,
            free_ports(layout.workers)?,
        );
        let store = free_ports(1)?[0].to_string();
        let start = |kind: &str, number: usize, settings: &[(&str, &str)]| {
            let own = settings.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
            Process::start(Plan {
                name: if number == 0 {
                    kind.to_owned()
                } else {
                    format!("{kind} {}", number + 1)
                },
                program: sibling(layout.bin.as_deref(), &format!("unbroken-{kind}"))?,
                arguments: Vec::new(),
                settings: own.chain(layout.settings.iter().cloned()).collect(),
                log: folder.path().join(format!("{kind}-{number}.log")),
            })
        };
        let many = |addresses: &[SocketAddr], kind: &str, settings: &dyn Fn(&str) -> Vec<(&'static str, String)>| {
            let started = addresses.iter().enumerate().map(|(number, address)| {
                let settings = settings(&address.to_string());
                let borrowed: Vec<_> = settings.iter().map(|(key, value)| (*key, value.as_str())).collect();
                start(kind, number, &borrowed)
            });
            started.collect::<anyhow::Result<Vec<_>>>()
        };
        let data = folder.path().join("data").display().to_string();
        let fleet = Self {
            store: start("store", 0, &[("UNBROKEN_STORE_LISTEN", &store), ("UNBROKEN_DATA_DIR", &data)])?,
            workers: many(&engine, "worker", &|address| {
                vec![
                    ("UNBROKEN_WORKER_LISTEN", address.to_owned()),
                    ("UNBROKEN_ENGINE", "scripted".to_owned()),
                    ("UNBROKEN_SCRIPT_SEATS", "8192".to_owned()),
                ]
            })?,
            routers: many(&grpc, "router", &|address| {
                vec![
                    ("UNBROKEN_GRPC", address.to_owned()),
                    ("UNBROKEN_WORKERS", list(&engine)),
                    ("UNBROKEN_STORE", store.clone()),
                ]
            })?,
            gateways: many(&http, "gateway", &|address| {
                vec![
                    ("UNBROKEN_HTTP", address.to_owned()),
                    ("UNBROKEN_ROUTERS", list(&grpc)),
                    ("UNBROKEN_STORE", store.clone()),
                ]
            })?,
            http,
            grpc,
            engine,
            folder,
        };
        for address in &fleet.http {
            answers(*address, "/ready")
                .await
                .with_context(|| format!("the mesh did not become ready; {}", fleet.logs()))?;
        }
        Ok(fleet)
    }

    /// All processes, in the order in which a request passes them, from the store backwards.
    pub fn processes(&self) -> impl Iterator<Item = &Process> {
        std::iter::once(&self.store)
            .chain(&self.workers)
            .chain(&self.routers)
            .chain(&self.gateways)
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

fn list(addresses: &[SocketAddr]) -> String {
    addresses.iter().map(SocketAddr::to_string).collect::<Vec<_>>().join(",")
}
