//! Processes of the mesh, started as an operator would and gone when their guard goes: also if the test is killed.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

/// How long anything may take to start: a debug build on a busy machine, and the real model.
const START: Duration = Duration::from_mins(2);

/// One running process.
pub(crate) struct Process {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Process {
    /// Starts `binary` of this workspace with these settings.
    pub(crate) fn start(binary: &str, folder: &Path, settings: &[(&str, &str)]) -> Self {
        let name = format!("{binary}-{}", std::fs::read_dir(folder).unwrap().count());
        let log = folder.join(format!("{name}.log"));
        let file = std::fs::File::create(&log).unwrap();
        // setpriv: the process gets a SIGKILL when this test dies, however it dies.
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "--"])
            .arg(executable(binary))
            .envs(settings.iter().copied())
            .env("UNBROKEN_LOG_FORMAT", "json")
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        Self { name, child, log }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id().try_into().unwrap()), signal).unwrap();
    }

    /// `kill -9`, and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its own end.
    pub(crate) fn wait(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end:\n{}", self.name, self.output());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// What it has printed and logged.
    pub(crate) fn output(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            eprintln!("--- {} ---\n{}", self.name, self.output());
        }
    }
}

/// The path of a binary of this workspace.
pub(crate) fn executable(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_unbroken")).with_file_name(name);
    assert!(
        path.exists(),
        "{} is missing: run the tests of the whole workspace (cargo test --workspace)",
        path.display()
    );
    path
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// The whole mesh in one process.
pub(crate) struct AllInOne {
    pub(crate) process: Process,
    pub(crate) http: String,
    pub(crate) grpc: String,
    pub(crate) folder: TempDir,
}

impl AllInOne {
    /// Starts it with the scripted engine and waits until it is ready.
    pub(crate) async fn scripted() -> Self {
        Self::start(&[("UNBROKEN_ENGINE", "scripted")]).await
    }

    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let (http, grpc) = (free_address(), free_address());
        let data = folder.path().join("data").display().to_string();
        let mut all = vec![
            ("UNBROKEN_HTTP", http.as_str()),
            ("UNBROKEN_GRPC", grpc.as_str()),
            ("UNBROKEN_WORKER_LISTEN", "127.0.0.1:0"),
            ("UNBROKEN_STORE_LISTEN", "127.0.0.1:0"),
            ("UNBROKEN_DATA_DIR", data.as_str()),
        ];
        all.extend(settings);
        let mut process = Process::start("unbroken", folder.path(), &all);
        ready(&http, &mut process).await;
        Self {
            process,
            http,
            grpc,
            folder,
        }
    }
}

/// Waits until the gateway at `http` would answer a first chat.
pub(crate) async fn ready(http: &str, process: &mut Process) {
    let deadline = Instant::now() + START;
    let client = reqwest::Client::new();
    while !client
        .get(format!("http://{http}/ready"))
        .send()
        .await
        .is_ok_and(|answer| answer.status() == 200)
    {
        assert!(process.child.try_wait().unwrap().is_none(), "it has ended:\n{}", process.output());
        assert!(Instant::now() < deadline, "not ready:\n{}", process.output());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
