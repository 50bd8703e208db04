//! The short form of `make chaos` and of `make bench`: that they run, and that the promise holds in them.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod simulated;

use std::{path::Path, process::Command};

/// Runs a program of this crate on the binaries that lie beside it.
fn run(program: &str, arguments: &[&str]) {
    let output = Command::new(program).args(arguments).output().unwrap();
    let text = format!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(output.status.success(), "{text}");
}

fn temporary(name: &str) -> String {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name).display().to_string()
}

#[test]
fn no_token_is_lost_or_doubled_whichever_process_dies() {
    let (histories, json) = (temporary("chaos.jsonl"), temporary("chaos.json"));
    run(
        env!("CARGO_BIN_EXE_chaos"),
        &[
            "--rounds",
            "1",
            "--answers",
            "30",
            "--strikes",
            "60",
            "--histories",
            &histories,
            "--json",
            &json,
        ],
    );
    assert!(std::fs::read_to_string(histories).unwrap().lines().count() >= 16 * 30);
}

#[test]
fn what_binaries_are_laid_out_by_runs_at_every_door_and_stops_well() {
    run(env!("CARGO_BIN_EXE_train"), &[]);
}
