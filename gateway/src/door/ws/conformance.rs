//! The WebSocket stack of this door against Autobahn's cases for RFC 6455, as kosoku runs them (`.ci/requirements.txt`): an echo that
//! only these tests have, over the same listener, server and bounds.

use std::{path::Path, process::Stdio};

use axum::{
    Router,
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    response::Response,
    routing::get,
};
use chassis::{drain::Drain, http::Limits, listen::listen};
use tokio::process::Command;

use super::bounded;

/// The bound of a message by default, in bytes.
const MESSAGE: usize = 1024 * 1024;
/// Cases about compression, which is not offered: a token does not get shorter by it.
const COMPRESSION: [&str; 2] = ["12.*", "13.*"];
/// Cases with messages of 4 MiB and more, which this door refuses.
const TOO_LARGE: [&str; 8] = ["9.1.4", "9.1.5", "9.1.6", "9.2.4", "9.2.5", "9.2.6", "9.3.*", "9.4.*"];

async fn echo(mut socket: WebSocket) {
    while let Some(Ok(message)) = socket.recv().await {
        if matches!(message, Message::Text(_) | Message::Binary(_)) && socket.send(message).await.is_err() {
            return;
        }
    }
}

async fn within_bounds(upgrade: WebSocketUpgrade) -> Response {
    bounded(upgrade, MESSAGE).on_upgrade(echo)
}

async fn without_bounds(upgrade: WebSocketUpgrade) -> Response {
    let much = 16 * MESSAGE;
    upgrade.max_message_size(much).max_frame_size(much).on_upgrade(echo)
}

/// Runs kosoku with this choice of cases against one of both; fails if a case does.
async fn run(path: &str, choice: &[(&str, &str)]) {
    let listener = listen("127.0.0.1:0", "test").unwrap();
    let address = listener.local_addr().unwrap();
    let routes = Router::new()
        .route("/bounded", get(within_bounds))
        .route("/free", get(without_bounds));
    let serving = tokio::spawn(chassis::http::serve(
        listener,
        crate::service(routes),
        Limits::default(),
        Drain::new(),
    ));
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut kosoku = Command::new(root.join("target/tools/bin/kosoku"));
    kosoku.arg(format!("ws://{address}/{path}"));
    kosoku.arg("--outdir").arg(root.join("target/kosoku").join(path));
    kosoku.args(choice.iter().flat_map(|(flag, case)| [flag, case]));
    let ended = kosoku.stdin(Stdio::null()).kill_on_drop(true).output().await;
    let ended = ended.expect("kosoku cannot be started: make test installs it");
    serving.abort();
    let said = [ended.stdout, ended.stderr].concat();
    assert!(ended.status.success(), "{}", String::from_utf8_lossy(&said));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sockets_pass_autobahns_cases() {
    let left_out: Vec<(&str, &str)> = COMPRESSION.iter().chain(&TOO_LARGE).map(|case| ("--exclude", *case)).collect();
    run("bounded", &left_out).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_stack_passes_the_cases_that_this_door_finds_too_large() {
    let only: Vec<(&str, &str)> = TOO_LARGE.iter().map(|case| ("--include", *case)).collect();
    run("free", &only).await;
}
