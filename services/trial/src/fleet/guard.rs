//! What gateways are told of keys and limits, and the processes that it takes.

use std::{path::Path, process::Command};

use super::Layout;
use crate::process::{Plan, Process, Setting, free_ports, settings, sibling};

/// What gateways of a guarded mesh are told beside what all are.
const GUARDED: [(&str, &str); 4] = [
    ("UNBROKEN_AUTH", "on"),
    KEY_SECRET,
    ("UNBROKEN_LIMITS", "on"),
    ("UNBROKEN_TIERS", WIDE),
];
/// What keys are hashed with there.
const KEY_SECRET: (&str, &str) = ("UNBROKEN_KEY_SECRET", "a secret of a mesh that lives for a moment");
/// Limits that no run meets.
const WIDE: &str = "free=1000000/1000000000000/100000";

/// A Redis, if the layout says so and there is one to start, and what the gateways are told.
pub(super) fn of(layout: &Layout, folder: &Path) -> anyhow::Result<(Option<Process>, Vec<Setting>)> {
    let (redis, mut told) = if layout.redis { shared_limits(folder)? } else { (None, Vec::new()) };
    if layout.guarded {
        told.extend(settings(&GUARDED));
    }
    Ok((redis, told))
}

/// Makes a key, as an operator does.
pub(super) fn make_key(bin: Option<&Path>, store: &str) -> anyhow::Result<String> {
    let (name, secret) = KEY_SECRET;
    let made = Command::new(sibling(bin, "unbroken")?)
        .args(["keys", "create", "--quiet", "--user", "trial"])
        .env(name, secret)
        .env("UNBROKEN_STORE", store)
        .output()?;
    anyhow::ensure!(made.status.success(), "no key: {}", String::from_utf8_lossy(&made.stderr));
    Ok(String::from_utf8(made.stdout)?.trim().to_owned())
}

/// A Redis, and what gateways must be told to share limits through it: that everybody has some, and more than any run asks for. Nothing if
/// there is none to start.
fn shared_limits(folder: &Path) -> anyhow::Result<(Option<Process>, Vec<Setting>)> {
    let port = free_ports(1)?[0].port().to_string();
    let path = std::env::var_os("PATH").unwrap_or_default();
    if !std::env::split_paths(&path).any(|folder| folder.join("redis-server").exists()) {
        return Ok((None, Vec::new()));
    }
    let redis = Process::start(Plan {
        name: "redis".to_owned(),
        program: "redis-server".into(),
        arguments: [
            "--bind",
            "127.0.0.1",
            "--port",
            &port,
            "--save",
            "",
            "--appendonly",
            "no",
            "--dir",
            "/",
        ]
        .map(str::to_owned)
        .to_vec(),
        settings: Vec::new(),
        log: folder.join("redis.log"),
    })?;
    let url = format!("redis://127.0.0.1:{port}");
    let limits = settings(&[("UNBROKEN_REDIS", &url), ("UNBROKEN_LIMITS", "on"), ("UNBROKEN_TIERS", WIDE)]);
    Ok((Some(redis), limits))
}
