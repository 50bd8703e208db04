//! A Redis of the test's own, on a socket in a folder of its own. The contract tests of `src/limits` start it, too.

use std::{
    io::{BufRead as _, BufReader},
    path::Path,
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// A running server, or one that was killed.
pub(crate) struct Redis {
    folder: TempDir,
    process: Child,
}

impl Redis {
    /// One that is ready.
    pub(crate) fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let process = serve(folder.path());
        Self { folder, process }
    }

    /// Its address, as the setting takes it.
    pub(crate) fn address(&self) -> String {
        format!("redis+unix://{}", self.folder.path().join("redis.sock").display())
    }

    /// Dies at once; what it held is gone.
    pub(crate) fn die(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    /// Comes back at the same address, with nothing in it.
    pub(crate) fn come_back(&mut self) {
        self.process = serve(self.folder.path());
    }

    /// Answers nobody, and keeps its connections.
    pub(crate) fn freeze(&self) {
        self.signal("-STOP");
    }

    /// Goes on.
    pub(crate) fn thaw(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, signal: &str) {
        let pid = self.process.id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serve(folder: &Path) -> Child {
    let mut process = Command::new("redis-server")
        .args(["--port", "0", "--unixsocket"])
        .arg(folder.join("redis.sock"))
        .args(["--save", "", "--appendonly", "no", "--dir"])
        .arg(folder)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("redis-server must be installed: .ci/setup test");
    let mut log = BufReader::new(process.stdout.take().unwrap()).lines();
    let ready = log
        .by_ref()
        .map_while(Result::ok)
        .any(|line| line.contains("Ready to accept connections") || line.contains("ready to accept connections"));
    assert!(ready, "redis-server ended before it was ready");
    // Read on, so that it never waits for somebody to take its log.
    std::thread::spawn(move || log.map_while(Result::ok).for_each(drop));
    process
}
