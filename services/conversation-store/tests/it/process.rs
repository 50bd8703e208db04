//! The process: its settings, its one clear line, its exit codes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use tempfile::TempDir;

fn store(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_unbroken-store"));
    command.args(["--store-listen", "127.0.0.1:0"]).args(arguments);
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("UNBROKEN_") || name.starts_with("OTEL_")) {
        command.env_remove(name);
    }
    command
}

/// The one line that it says when it cannot start.
fn line(output: &Output) -> String {
    let text = String::from_utf8(output.stderr.clone()).unwrap();
    let lines: Vec<&str> = text.lines().filter(|line| line.starts_with("error: ")).collect();
    assert_eq!(lines.len(), 1, "{text}");
    lines[0].to_owned()
}

#[test]
fn a_wrong_database_is_one_clear_line_and_exit_64() {
    for wrong in ["mysql://u:hunter2@db/chat", "hunter2", "postgres://u:hunter2@h:port/x", "sqlite://"] {
        let output = store(&[]).env("UNBROKEN_DATABASE", wrong).output().unwrap();
        let line = line(&output);
        assert_eq!(output.status.code(), Some(64), "{line}");
        assert!(line.contains("UNBROKEN_DATABASE") && !line.contains("hunter2"), "{line}");
    }
}

#[test]
fn a_data_directory_that_cannot_be_is_named() {
    let output = store(&["--data-dir", "/dev/null/chat"]).output().unwrap();
    let line = line(&output);
    assert_eq!(output.status.code(), Some(64), "{line}");
    assert!(line.contains("/dev/null/chat") && line.contains("UNBROKEN_DATA_DIR"), "{line}");
}

#[test]
fn a_postgres_that_is_not_there_is_exit_1_after_the_wait() {
    let output = store(&["--database", "postgres://u@127.0.0.1:1/chat", "--database-wait", "200ms"])
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(line(&output).contains("UNBROKEN_DATABASE_WAIT"));
    assert!(String::from_utf8(output.stderr).unwrap().contains("cannot be reached yet"));
}

#[test]
fn sigterm_stops_it_with_exit_0() {
    let folder = TempDir::new().unwrap();
    let mut child = store(&["--data-dir", folder.path().to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let listening = lines.find(|line| line.as_ref().unwrap().contains("listens")).unwrap().unwrap();
    assert!(listening.contains("127.0.0.1:"), "{listening}");
    kill(Pid::from_raw(child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    let rest: Vec<String> = lines.map(Result::unwrap).collect();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{rest:?}");
}
