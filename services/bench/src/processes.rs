//! The processes that are measured. Each is stopped when its guard goes.

use std::{
    fs::File,
    net::{SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::Context as _;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;
use tokio::time::{Instant, sleep};

use crate::usage;

/// How long a process may take to answer its first request.
const START: Duration = Duration::from_secs(30);

/// A process and what it forked.
pub(crate) struct Process {
    pub(crate) name: &'static str,
    child: Child,
}

impl Process {
    fn start(name: &'static str, command: &mut Command, folder: &Path) -> anyhow::Result<Self> {
        let log = File::create(folder.join(format!("{name}.log")))?;
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| format!("cannot start {name} ({})", command.get_program().display()))?;
        Ok(Self { name, child })
    }

    /// CPU time used so far, children included.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        usage::family(self.child.id()).into_iter().map(usage::cpu).sum()
    }

    /// Memory held now, children included.
    pub(crate) fn memory(&self) -> anyhow::Result<u64> {
        usage::family(self.child.id()).into_iter().map(usage::memory).sum()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_)) | Err(_)) {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The four processes of the mesh.
pub(crate) struct Mesh {
    pub(crate) http: SocketAddr,
    pub(crate) worker: SocketAddr,
    pub(crate) processes: Vec<Process>,
    _folder: TempDir,
}

impl Mesh {
    /// Starts store, worker (scripted engine), router and gateway, and waits until a chat would be answered.
    pub(crate) async fn start(bin: &Path) -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let [http, grpc, worker, store] = free_ports()?;
        let run = |name: &'static str, file: &str, settings: &[(&str, String)]| {
            let mut command = Command::new(bin.join(file));
            command
                .envs(settings.iter().map(|(key, value)| (*key, value)))
                .env("UNBROKEN_LOG", "warn");
            Process::start(name, &mut command, folder.path())
        };
        let data = folder.path().join("data").display().to_string();
        let processes = vec![
            run(
                "store",
                "unbroken-store",
                &[("UNBROKEN_STORE_LISTEN", store.to_string()), ("UNBROKEN_DATA_DIR", data)],
            )?,
            run(
                "worker",
                "unbroken-worker",
                &[
                    ("UNBROKEN_WORKER_LISTEN", worker.to_string()),
                    ("UNBROKEN_ENGINE", "scripted".to_owned()),
                    ("UNBROKEN_SCRIPT_SEATS", "8192".to_owned()),
                ],
            )?,
            run(
                "router",
                "unbroken-router",
                &[
                    ("UNBROKEN_GRPC", grpc.to_string()),
                    ("UNBROKEN_WORKERS", worker.to_string()),
                    ("UNBROKEN_STORE", store.to_string()),
                ],
            )?,
            run(
                "gateway",
                "unbroken-gateway",
                &[
                    ("UNBROKEN_HTTP", http.to_string()),
                    ("UNBROKEN_ROUTERS", grpc.to_string()),
                    ("UNBROKEN_STORE", store.to_string()),
                ],
            )?,
        ];
        let mesh = Self {
            http,
            worker,
            processes,
            _folder: folder,
        };
        wait_for(mesh.http, "/ready").await.context("the mesh did not become ready")?;
        Ok(mesh)
    }
}

/// nginx in front of the plain upstream.
pub(crate) struct Nginx {
    pub(crate) http: SocketAddr,
    pub(crate) upstream: SocketAddr,
    pub(crate) proxy: Vec<Process>,
    _upstream: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts both, and waits until they answer.
    pub(crate) async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let [http, upstream] = free_ports()?;
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("upstream").arg("--listen").arg(upstream.to_string());
        let plain = Process::start("upstream", &mut command, folder.path())?;
        let settings = folder.path().join("nginx.conf");
        std::fs::write(&settings, nginx_settings(http, upstream, folder.path()))?;
        let mut command = Command::new(find_nginx());
        command.arg("-p").arg(folder.path()).arg("-c").arg(&settings);
        let proxy = Process::start("nginx", &mut command, folder.path()).context("nginx is missing: `make bench` installs it")?;
        let nginx = Self {
            http,
            upstream,
            proxy: vec![proxy],
            _upstream: plain,
            _folder: folder,
        };
        wait_for(nginx.http, "/").await.context("nginx did not come up")?;
        Ok(nginx)
    }
}

fn find_nginx() -> PathBuf {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .unwrap_or_else(|| "nginx".into())
}

fn nginx_settings(http: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
    let folder = folder.display();
    format!(
        "daemon off; worker_processes 2; pid {folder}/nginx.pid; error_log {folder}/error.log; worker_rlimit_nofile 32768;
events {{ worker_connections 16384; }}
http {{ access_log off; client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy; fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi; scgi_temp_path {folder}/scgi; keepalive_requests 1000000; keepalive_timeout 60s;
  upstream engine {{ server {upstream}; keepalive 4096; keepalive_requests 1000000; }}
  server {{ listen {http} backlog=4096; location / {{ proxy_pass http://engine; proxy_http_version 1.1; proxy_set_header Connection \"\"; proxy_buffering off; proxy_read_timeout 600s; }} }} }}
"
    )
}

/// Ports that are free now.
fn free_ports<const N: usize>() -> anyhow::Result<[SocketAddr; N]> {
    let listeners: Vec<_> = (0..N).map(|_| TcpListener::bind("127.0.0.1:0")).collect::<Result<_, _>>()?;
    let addresses: Vec<_> = listeners.iter().map(TcpListener::local_addr).collect::<Result<_, _>>()?;
    addresses.try_into().map_err(|_| anyhow::anyhow!("as many as asked for"))
}

/// Waits until `path` answers with 200.
async fn wait_for(address: SocketAddr, path: &str) -> anyhow::Result<()> {
    let deadline = Instant::now() + START;
    loop {
        match crate::load::get(address, path).await {
            Ok(200) => return Ok(()),
            answer if Instant::now() > deadline => anyhow::bail!("{address}{path}: {answer:?}"),
            _ => sleep(Duration::from_millis(50)).await,
        }
    }
}
