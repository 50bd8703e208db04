//! The process: its settings, its one clear line, its exit codes.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Output, Stdio},
};

use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use proto::v1::Reason;
use tempfile::TempDir;

use crate::stage::{Client, ann, begin, conversation, failure, texts, turn};

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
    let child = store(&["--data-dir", folder.path().to_str().unwrap()])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut store = Running::wait_for(child);
    assert!(store.address.starts_with("127.0.0.1:"), "{}", store.address);
    kill(Pid::from_raw(store.child.id().try_into().unwrap()), Signal::SIGTERM).unwrap();
    assert_eq!(store.child.wait().unwrap().code(), Some(0));
}

/// A limit on the size of files stands for the disk: writes past it fail, and it can be lifted again.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_a_typed_failure_and_passes() {
    let folder = TempDir::new().unwrap();
    let store = store(&["--data-dir", folder.path().to_str().unwrap()]);
    let mut limited = Command::new("sh");
    // An ignored signal stays ignored: the process sees failing writes instead of dying of them.
    limited.args(["-c", "trap '' XFSZ; exec prlimit --fsize=524288:unlimited \"$@\"", "sh"]);
    limited.arg(store.get_program()).args(store.get_args()).stderr(Stdio::piped());
    let store = Running::wait_for(limited.spawn().unwrap());
    let mut client = Client::new(chassis::channel::lazy(&store.address).unwrap());
    let id = conversation(&mut client, ann()).await.id;

    let text = "x".repeat(20_000);
    let mut stored = 0;
    let refused = loop {
        match client.begin_turn(turn(&id, &format!("s{stored}"), &text)).await {
            Ok(_) => stored += 1,
            Err(status) => break failure(&status),
        }
        assert!(stored < 1_000, "the disk is never full");
    };
    assert_eq!(refused.reason(), Reason::StoreUnavailable);
    assert!(stored > 0);
    assert_eq!(
        texts(&mut client, &id).await.len(),
        2 * stored,
        "nothing is half written, and reading goes on"
    );

    let pid = store.child.id().to_string();
    let lifted = Command::new("prlimit")
        .args(["--pid", &pid, "--fsize=unlimited:unlimited"])
        .status()
        .unwrap();
    assert!(lifted.success());
    begin(&mut client, turn(&id, &format!("s{stored}"), &text)).await;
    assert_eq!(texts(&mut client, &id).await.len(), 2 * stored + 2);
}

/// A process that serves. Dropping it kills it.
struct Running {
    child: Child,
    address: String,
}

impl Running {
    /// Waits until it says where it listens, and then reads what else it says, so that it never waits for a reader.
    fn wait_for(mut child: Child) -> Self {
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let said = lines.find(|line| line.as_ref().unwrap().contains("listens")).unwrap().unwrap();
        let (_, address) = said.split_once("\"address\":\"").expect("its log is JSON");
        let address = address[..address.find('"').unwrap()].to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
