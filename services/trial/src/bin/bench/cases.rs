//! What is measured.

mod beside;
mod burst;
mod cancel;
mod first;
mod guarded;
mod idle;
pub(crate) mod llama;
mod pace;
mod small;
mod soak;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::Settings;
use trial::{
    fleet::{Fleet, Layout},
    nginx::Nginx,
    process::{self, Process},
    relaying,
    report::Report,
};

/// What every case needs.
pub(crate) struct Bench {
    mesh: Fleet,
    other: Other,
    bin: Option<PathBuf>,
    against: Option<PathBuf>,
    rounds: usize,
    only: Option<String>,
    guarded: bool,
}

/// What the mesh is measured beside.
enum Other {
    Nginx(Box<Nginx>),
    /// The mesh, as somebody else built it.
    Build(Box<Fleet>),
}

impl Bench {
    /// Starts all processes.
    pub(crate) async fn start(settings: &Settings) -> anyhow::Result<Self> {
        let (_, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?; // thousands of connections, here and in the processes
        let other = match &settings.against {
            None => Other::Nginx(Box::new(Nginx::start().await?)),
            Some(folder) => Other::Build(Box::new(Fleet::start(&layout(Some(folder), settings.guarded)).await?)),
        };
        Ok(Self {
            mesh: Fleet::start(&layout(settings.bin.as_deref(), settings.guarded)).await?,
            other,
            bin: settings.bin.clone(),
            against: settings.against.clone(),
            rounds: settings.rounds.max(1),
            only: settings.only.clone(),
            guarded: settings.guarded,
        })
    }

    /// Puts new processes in the place of those that a case has used: what they still do for its answers, which they keep for a while, is not
    /// what the next one costs.
    async fn renew(&mut self) -> anyhow::Result<()> {
        let layout = self.layout(self.guarded);
        self.mesh = Fleet::start(&layout).await?;
        if let Other::Build(other) = &mut self.other {
            let bin = self.against.clone();
            **other = Fleet::start(&Layout { bin, ..layout }).await?;
        }
        Ok(())
    }

    /// One of each, guarded or not.
    fn layout(&self, guarded: bool) -> Layout {
        layout(self.bin.as_deref(), guarded)
    }

    fn wants(&self, case: &str) -> bool {
        self.only.as_ref().is_none_or(|only| case.contains(only.as_str()))
    }

    /// The two that stand in front of an engine.
    fn fronts(&self) -> [Front<'_>; 2] {
        let other = match &self.other {
            Other::Nginx(nginx) => Front {
                name: "nginx",
                http: nginx.http,
                key: None,
                processes: vec![&nginx.proxy],
            },
            Other::Build(other) => Front {
                name: "other build",
                ..Front::of(other)
            },
        };
        [Front::of(&self.mesh), other]
    }

    /// nginx, if the mesh is measured beside that.
    fn nginx(&self) -> Option<&Nginx> {
        match &self.other {
            Other::Nginx(nginx) => Some(nginx),
            Other::Build(_) => None,
        }
    }

    /// What a report calls the second of [`Bench::fronts`].
    fn other(&self) -> &'static str {
        self.nginx().map_or("other build, all processes", |_| "nginx alone")
    }

    /// Says what the last figure should be. Two builds beside each other have no target.
    fn target(&self, report: &mut Report, at_most: f64) {
        if self.nginx().is_some() {
            report.at_most(at_most);
        }
    }
}

/// Something that stands in front of an engine, and its processes.
#[derive(Clone)]
struct Front<'a> {
    name: &'static str,
    http: SocketAddr,
    /// The key that it asks for.
    key: Option<String>,
    processes: Vec<&'a Process>,
}

fn layout(bin: Option<&Path>, guarded: bool) -> Layout {
    Layout {
        bin: bin.map(Path::to_owned),
        settings: process::settings(&[("UNBROKEN_LOG", "warn")]),
        guarded,
        ..Layout::of(1, 1, 1)
    }
}

impl<'a> Front<'a> {
    fn of(mesh: &'a Fleet) -> Self {
        Self {
            name: "mesh",
            http: mesh.http[0],
            key: mesh.key.clone(),
            processes: mesh.processes().collect(),
        }
    }

    /// CPU time of each process.
    fn cpu(&self) -> anyhow::Result<Vec<Duration>> {
        self.processes.iter().map(|process| process.cpu()).collect()
    }

    /// Memory of each process.
    fn memory(&self) -> anyhow::Result<Vec<u64>> {
        self.processes.iter().map(|process| process.memory()).collect()
    }

    /// CPU time since `before`, as microseconds for each of `count`, by process.
    #[allow(clippy::cast_precision_loss)]
    fn micros_since(&self, before: &[Duration], count: u64) -> anyhow::Result<Vec<f64>> {
        let spent = self.cpu()?.into_iter().zip(before).map(|(now, before)| now.saturating_sub(*before));
        Ok(spent.map(|spent| spent.as_secs_f64() * 1e6 / count.max(1) as f64).collect())
    }

    /// `store 0.1, worker 1.2, …`
    fn by_process(&self, values: &[f64]) -> String {
        let parts: Vec<_> = self
            .processes
            .iter()
            .zip(values)
            .map(|(process, value)| format!("{} {value:.1}", process.name()))
            .collect();
        parts.join(", ")
    }
}

/// Runs all cases, one after the other. Two builds are measured in those that two fronts take in turns.
pub(crate) async fn run(bench: &mut Bench, report: &mut Report) -> anyhow::Result<()> {
    if let Some(nginx) = bench.nginx()
        && bench.wants("first")
    {
        first::run(bench, nginx, report).await?;
    }
    if bench.wants("pace") {
        for aligned in [true, false] {
            bench.renew().await?;
            pace::run(bench, report, aligned).await?;
        }
    }
    if bench.wants("burst") {
        bench.renew().await?;
        burst::run(bench, report).await?;
    }
    if bench.wants("small") {
        bench.renew().await?;
        small::run(bench, report).await?;
    }
    if bench.nginx().is_none() {
        return Ok(());
    }
    if bench.wants("guarded") {
        guarded::run(bench, report).await?;
    }
    if bench.wants("cancel") {
        cancel::run(bench, report).await?;
    }
    if bench.wants("idle") {
        idle::run(bench, report).await?;
    }
    if bench.wants("hold") {
        pace::hold(bench, report).await?;
    }
    if bench.wants("journal") {
        relaying::measure(bench.rounds, report).await?;
    }
    if bench.wants("soak") {
        soak::run(bench, report).await?;
    }
    Ok(())
}
