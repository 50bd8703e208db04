//! The whole mesh in one process, as a newcomer starts it; and where the binaries of this workspace are.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use trial::process::{Plan, Process, free_ports, settings, sibling};

/// The folder with the binaries of this workspace.
pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_unbroken")).parent().unwrap().to_owned()
}

/// The path of a binary of this workspace.
pub(crate) fn executable(name: &str) -> PathBuf {
    sibling(Some(&folder()), name).unwrap()
}

/// An address that nobody listens on now.
pub(crate) fn free_address() -> String {
    free_ports(1).unwrap()[0].to_string()
}

/// Starts the mesh in one process with these settings.
pub(crate) fn start(folder: &Path, pairs: &[(&str, &str)]) -> Process {
    let plan = Plan {
        name: "unbroken".to_owned(),
        program: executable("unbroken"),
        arguments: Vec::new(),
        settings: [settings(pairs), settings(&[("UNBROKEN_LOG_FORMAT", "json")])].concat(),
        log: folder.join("unbroken.log"),
    };
    Process::start(plan).unwrap()
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
        let mut process = start(folder.path(), &all);
        process.ready(http.parse().unwrap(), "/ready").await.unwrap();
        Self {
            process,
            http,
            grpc,
            folder,
        }
    }
}
