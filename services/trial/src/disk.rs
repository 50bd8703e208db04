//! A disk of its own for one process, which can be full from one moment to the next: a tmpfs in a mount namespace. A sleeping process holds
//! it, so that it outlives who writes to it, and no privileges are needed where users may have namespaces.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use tokio::time::{Instant, sleep};

use crate::process::{Plan, Process};

/// How large it is while it is not full: more than any run writes. Only what is written takes memory.
const SIZE: &str = "size=4g";
/// How often it is tried to fill it.
const ATTEMPTS: u32 = 100;
/// How long the mount may take.
const MOUNT: Duration = Duration::from_secs(10);

/// A disk.
#[derive(Debug)]
pub struct Disk {
    holder: Process,
    path: PathBuf,
}

impl Disk {
    /// Mounts one over the folder `path`, for the processes that [`Disk::within`] starts; `log` gets what goes wrong.
    ///
    /// # Errors
    /// This machine does not let users have namespaces of their own.
    pub async fn mount(path: &Path, log: PathBuf) -> anyhow::Result<Self> {
        std::fs::create_dir_all(path)?;
        // setpriv comes last: who enters a new user namespace forgets with whom it is to die.
        let script = format!("mount -t tmpfs -o {SIZE} tmpfs \"$0\" && echo mounted && exec setpriv --pdeathsig KILL -- sleep infinity");
        let mut holder = Process::start(Plan {
            name: "disk".to_owned(),
            program: "unshare".into(),
            arguments: [
                "--user",
                "--map-root-user",
                "--mount",
                "--",
                "sh",
                "-c",
                &script,
                &path.display().to_string(),
            ]
            .map(str::to_owned)
            .to_vec(),
            settings: Vec::new(),
            log,
        })?;
        let deadline = Instant::now() + MOUNT;
        while !holder.output().contains("mounted") {
            let over = holder.is_dead()? || Instant::now() > deadline;
            anyhow::ensure!(!over, "no tmpfs can be mounted: {}", holder.output());
            sleep(Duration::from_millis(5)).await;
        }
        Ok(Self {
            holder,
            path: path.to_owned(),
        })
    }

    /// The same process, with this disk before its eyes.
    #[must_use]
    pub fn within(&self, plan: Plan) -> Plan {
        let mut arguments = self.enter();
        arguments.extend(["setpriv", "--pdeathsig", "KILL", "--"].map(str::to_owned));
        arguments.push(plan.program.display().to_string());
        arguments.extend(plan.arguments);
        Plan {
            program: "nsenter".into(),
            arguments,
            ..plan
        }
    }

    /// It has not a byte left.
    ///
    /// # Errors
    /// It could not be mounted anew.
    pub fn fill(&self) -> anyhow::Result<()> {
        // Whoever writes may be quicker than the look at what is used: then it is smaller than that, and not taken.
        (0..ATTEMPTS)
            .map(|_| self.remount("size=$(df -k --output=used \"$0\" | tail -n 1 | tr -d ' ')k"))
            .find(Result::is_ok)
            .context("the disk could not be filled")?
    }

    /// It has room again.
    ///
    /// # Errors
    /// It could not be mounted anew.
    pub fn empty(&self) -> anyhow::Result<()> {
        self.remount(SIZE)
    }

    fn remount(&self, size: &str) -> anyhow::Result<()> {
        let output = Command::new("nsenter")
            .args(self.enter())
            .args(["sh", "-c", &format!("mount -o remount,{size} tmpfs \"$0\"")])
            .arg(&self.path)
            .stdin(Stdio::null())
            .output()
            .context("nsenter")?;
        anyhow::ensure!(output.status.success(), "remount: {}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    fn enter(&self) -> Vec<String> {
        let pid = self.holder.pid().to_string();
        ["--target", &pid, "--user", "--mount", "--preserve-credentials", "--"]
            .map(str::to_owned)
            .to_vec()
    }
}
