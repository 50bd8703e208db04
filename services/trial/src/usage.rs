//! CPU time and memory of processes, as the kernel counts them.

use std::{fs, time::Duration};

use nix::{time::clock_getcpuclockid, unistd::Pid};

/// CPU time that a process has used, in user and system mode, over all its threads.
pub fn cpu(pid: u32) -> anyhow::Result<Duration> {
    let clock = clock_getcpuclockid(Pid::from_raw(i32::try_from(pid)?))?;
    Ok(Duration::from(clock.now()?))
}

/// Bytes of a process that are in memory and its own: anonymous memory, without the program text that processes share.
pub fn memory(pid: u32) -> anyhow::Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status
        .lines()
        .find(|line| line.starts_with("RssAnon:"))
        .ok_or_else(|| anyhow::anyhow!("no RssAnon for {pid}"))?;
    let kib: u64 = line.split_whitespace().nth(1).unwrap_or_default().parse()?;
    Ok(kib * 1024)
}

/// The process and all that it has forked.
pub fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let mut family = vec![pid];
    family.extend(
        children
            .split_whitespace()
            .filter_map(|child| child.parse::<u32>().ok())
            .flat_map(family_of),
    );
    family
}

fn family_of(pid: u32) -> Vec<u32> {
    family(pid)
}
