//! nginx in front of a plain SSE upstream: what the mesh is measured beside.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use tempfile::TempDir;

use crate::process::{Plan, Process, answers, free_ports};

/// Both processes.
#[derive(Debug)]
pub struct Nginx {
    /// Where nginx listens.
    pub http: SocketAddr,
    /// Where the upstream listens.
    pub upstream: SocketAddr,
    /// nginx.
    pub proxy: Process,
    _upstream: Process,
    _folder: TempDir,
}

impl Nginx {
    /// Starts both, and waits until they answer. The upstream is this program's subcommand `upstream`.
    pub async fn start() -> anyhow::Result<Self> {
        let folder = TempDir::new()?;
        let ports = free_ports(2)?;
        let (http, upstream) = (ports[0], ports[1]);
        let start = |name: &str, program: PathBuf, arguments: Vec<String>| {
            Process::start(Plan {
                name: name.to_owned(),
                program,
                arguments,
                settings: Vec::new(),
                log: folder.path().join(format!("{name}.log")),
            })
        };
        let arguments = ["upstream", "--listen", &upstream.to_string()].map(str::to_owned).to_vec();
        let plain = start("upstream", std::env::current_exe()?, arguments)?;
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, settings(http, upstream, folder.path()))?;
        let arguments = vec![
            "-p".to_owned(),
            folder.path().display().to_string(),
            "-c".to_owned(),
            file.display().to_string(),
        ];
        let proxy = start("nginx", find(), arguments).context("nginx is missing: `make bench` installs it")?;
        let nginx = Self {
            http,
            upstream,
            proxy,
            _upstream: plain,
            _folder: folder,
        };
        answers(nginx.http, "/").await.context("nginx did not come up")?;
        Ok(nginx)
    }
}

fn find() -> PathBuf {
    ["/usr/sbin/nginx", "/usr/local/sbin/nginx"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .unwrap_or_else(|| "nginx".into())
}

fn settings(http: SocketAddr, upstream: SocketAddr, folder: &Path) -> String {
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
