//! One process. It is gone when its guard goes, and when this process dies, however it dies.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tokio::time::{Instant, sleep};

use crate::{load, usage};

/// How long a process may take to answer its first request: a debug build on a busy machine, and the real model.
const START: Duration = Duration::from_mins(2);

/// A variable of the environment, and its value.
pub type Setting = (String, String);

/// The same, as settings are written down.
pub fn settings(pairs: &[(&str, &str)]) -> Vec<Setting> {
    pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

/// How a process is started: also once more.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the figures call it.
    pub name: String,
    /// The program.
    pub program: PathBuf,
    /// Its arguments.
    pub arguments: Vec<String>,
    /// Its environment, beside what is inherited.
    pub settings: Vec<Setting>,
    /// Where its output goes, at the end of what is there.
    pub log: PathBuf,
}

/// A process that runs, or has been killed.
#[derive(Debug)]
pub struct Process {
    plan: Plan,
    child: Child,
}

impl Process {
    /// Starts it.
    pub fn start(plan: Plan) -> anyhow::Result<Self> {
        let child = spawn(&plan)?;
        Ok(Self { plan, child })
    }

    /// What the figures call it.
    pub fn name(&self) -> &str {
        &self.plan.name
    }

    /// Its number.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// CPU time used so far, children included.
    pub fn cpu(&self) -> anyhow::Result<Duration> {
        usage::family(self.child.id()).into_iter().map(usage::cpu).sum()
    }

    /// Memory held now, children included.
    pub fn memory(&self) -> anyhow::Result<u64> {
        usage::family(self.child.id()).into_iter().map(usage::memory).sum()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        Ok(kill(Pid::from_raw(i32::try_from(self.child.id())?), signal)?)
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// Stops it gracefully, and sees that it ends well within `limit`.
    pub async fn stop(&mut self, limit: Duration) -> anyhow::Result<()> {
        self.signal(Signal::SIGTERM)?;
        let status = self.ended(limit).await?;
        anyhow::ensure!(status.success(), "{} ended with {status}:\n{}", self.plan.name, self.output());
        Ok(())
    }

    /// Whether it has ended, by whatever cause.
    pub fn is_dead(&mut self) -> anyhow::Result<bool> {
        Ok(self.child.try_wait()?.is_some())
    }

    /// Waits for its own end.
    pub async fn ended(&mut self, limit: Duration) -> anyhow::Result<ExitStatus> {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            anyhow::ensure!(Instant::now() < deadline, "{} does not end:\n{}", self.plan.name, self.output());
            sleep(Duration::from_millis(2)).await;
        }
    }

    /// Waits until it answers `path` at `address` with 200.
    pub async fn ready(&mut self, address: SocketAddr, path: &str) -> anyhow::Result<()> {
        tokio::select! {
            ready = answers(address, path) => ready.with_context(|| format!("{} is not ready:\n{}", self.plan.name, read(&self.plan.log))),
            () = async {
                while !matches!(self.child.try_wait(), Ok(Some(_))) {
                    sleep(Duration::from_millis(20)).await;
                }
            } => anyhow::bail!("{} has ended:\n{}", self.plan.name, self.output()),
        }
    }

    /// What it has printed and logged.
    pub fn output(&self) -> String {
        read(&self.plan.log)
    }

    /// Starts it once more, with the same settings.
    pub fn restart(&mut self) -> anyhow::Result<()> {
        let _ = self.kill(); // it may be gone already
        self.child = spawn(&self.plan)?;
        Ok(())
    }
}

fn spawn(plan: &Plan) -> anyhow::Result<Child> {
    let log = File::options().create(true).append(true).open(&plan.log)?;
    // setpriv: the process gets a SIGKILL when this one dies.
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&plan.program)
        .args(&plan.arguments)
        .envs(plan.settings.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .with_context(|| format!("cannot start {} ({})", plan.name, plan.program.display()))
}

/// All of a log.
fn read(log: &Path) -> String {
    std::fs::read_to_string(log).unwrap_or_default()
}

impl Drop for Process {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // What it has forked too: nginx's workers outlive their master's violent death.
            for pid in usage::family(self.child.id()).into_iter().filter_map(|pid| i32::try_from(pid).ok()) {
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
            let _ = self.child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.plan.name, self.output());
        }
    }
}

/// Ports that are free now.
pub fn free_ports(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let listeners: Vec<_> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    Ok(listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?)
}

/// Waits until `path` answers with 200.
pub async fn answers(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        match load::get(address, path).await {
            Ok(200) => return Ok(()),
            answer if Instant::now() > deadline => anyhow::bail!("{address}{path}: {answer:?}"),
            _ => sleep(Duration::from_millis(20)).await,
        }
    }
}

/// A program of this workspace, which lies beside this one.
pub fn sibling(bin: Option<&Path>, name: &str) -> anyhow::Result<PathBuf> {
    let folder = match bin {
        Some(bin) => bin.to_owned(),
        None => std::env::current_exe()?.parent().map(Path::to_owned).unwrap_or_default(),
    };
    let path = folder.join(name);
    anyhow::ensure!(path.exists(), "{} is missing: build the whole workspace first", path.display());
    Ok(path)
}
