//! What `.ci/lay-out` runs the mesh under, to learn which of its code runs: the loads that matter and every door, over separate processes that ask
//! for keys, and over all in one process. At the end all are stopped, gracefully, so that they write what they have counted.

mod lessons;

use std::{path::PathBuf, time::Duration};

use clap::Parser;
use tempfile::TempDir;
use trial::{
    fleet::{Fleet, Layout},
    process::{Plan, Process, free_ports, settings, sibling},
};

use lessons::Mesh;

/// How long a process may take to stop and to write what it has counted.
const END: Duration = Duration::from_mins(1);

/// Lets the mesh do what it does most, for a build that is laid out by it.
#[derive(Parser)]
struct Settings {
    /// The folder with the binaries to train; that of this one if not given
    #[arg(long)]
    bin: Option<PathBuf>,
}

fn main() -> anyhow::Result<()> {
    let settings = Settings::parse();
    tokio::runtime::Runtime::new()?.block_on(async {
        separate(&settings).await?;
        in_one(&settings).await
    })
}

/// A process of each kind.
async fn separate(own: &Settings) -> anyhow::Result<()> {
    let layout = Layout {
        bin: own.bin.clone(),
        settings: settings(&[("UNBROKEN_LOG", "warn")]),
        guarded: true,
        ..Layout::of(1, 1, 1)
    };
    let mut fleet = Fleet::start(&layout).await?;
    let mesh = Mesh {
        http: fleet.http[0],
        grpc: fleet.grpc[0],
        key: fleet.key.clone(),
    };
    lessons::all(&mesh).await?;
    for process in fleet.gateways.iter_mut().chain(&mut fleet.routers).chain(&mut fleet.workers) {
        process.stop(END).await?;
    }
    fleet.store.stop(END).await
}

/// All in one process.
async fn in_one(own: &Settings) -> anyhow::Result<()> {
    let folder = TempDir::new()?;
    let ports = free_ports(2)?;
    let (http, grpc) = (ports[0], ports[1]);
    let mut process = Process::start(Plan {
        name: "unbroken".to_owned(),
        program: sibling(own.bin.as_deref(), "unbroken")?,
        arguments: Vec::new(),
        settings: settings(&[
            ("UNBROKEN_LOG", "warn"),
            ("UNBROKEN_ENGINE", "scripted"),
            ("UNBROKEN_SCRIPT_SEATS", "8192"),
            ("UNBROKEN_HTTP", &http.to_string()),
            ("UNBROKEN_GRPC", &grpc.to_string()),
            ("UNBROKEN_DATA_DIR", &folder.path().display().to_string()),
        ]),
        log: folder.path().join("log"),
    })?;
    process.ready(http, "/ready").await?;
    lessons::all(&Mesh { http, grpc, key: None }).await?;
    process.stop(END).await
}
