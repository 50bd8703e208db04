//! What an operator gets wrong is said in one clear line, with an exit code.

use std::{process::Command, time::Duration};

use tempfile::TempDir;

use crate::processes::{AllInOne, executable, free_address, start};

async fn run(settings: &[(&str, &str)]) -> (Option<i32>, String) {
    let folder = TempDir::new().unwrap();
    let data = folder.path().display().to_string();
    let (http, grpc) = (free_address(), free_address());
    let mut all = vec![
        ("UNBROKEN_HTTP", http.as_str()),
        ("UNBROKEN_GRPC", grpc.as_str()),
        ("UNBROKEN_WORKER_LISTEN", "127.0.0.1:0"),
        ("UNBROKEN_STORE_LISTEN", "127.0.0.1:0"),
        ("UNBROKEN_DATA_DIR", &data),
        ("UNBROKEN_ENGINE", "scripted"),
    ];
    all.extend(settings);
    let mut process = start(folder.path(), &all);
    let status = process.ended(Duration::from_mins(1)).await.unwrap();
    (status.code(), process.output())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_with_its_setting() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, output) = run(&[("UNBROKEN_HTTP", &address)]).await;
    assert_eq!(code, Some(1), "{output}");
    assert!(
        output.contains("UNBROKEN_HTTP") && output.contains(&address) && output.contains("in use"),
        "{output}"
    );
}

#[tokio::test]
async fn a_wrong_setting_exits_with_64_and_says_which() {
    for (name, value) in [
        ("UNBROKEN_GRACE", "soon"),
        ("UNBROKEN_ENGINE", "steam"),
        ("UNBROKEN_THREADS", "many"),
        ("UNBROKEN_DATABASE", "mysql://x"),
        ("UNBROKEN_REDIS", "http://x"),
        ("UNBROKEN_TIERS", "pro=1/2/3"),
        ("UNBROKEN_FRONTS", "everywhere"),
        ("UNBROKEN_HOSTS", "http://gateway:8080"),
    ] {
        let (code, output) = run(&[(name, value)]).await;
        assert_eq!(code, Some(64), "{name}={value}: {output}");
        assert!(output.contains(value) || output.contains(name), "{output}");
    }
}

#[tokio::test]
async fn a_model_that_is_not_one_is_refused_with_its_path() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("notes.gguf");
    std::fs::write(&path, "this is no model").unwrap();
    let (code, output) = run(&[("UNBROKEN_ENGINE", "llama"), ("UNBROKEN_MODEL", path.to_str().unwrap())]).await;
    assert!(matches!(code, Some(1 | 64)), "{code:?} {output}");
    assert!(output.contains("notes.gguf") && output.to_lowercase().contains("gguf"), "{output}");
}

#[test]
fn every_binary_explains_its_settings() {
    for binary in [
        "unbroken",
        "unbroken-gateway",
        "unbroken-router",
        "unbroken-worker",
        "unbroken-store",
    ] {
        let output = Command::new(executable(binary)).arg("--help").output().unwrap();
        let help = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && help.contains("UNBROKEN_GRACE"), "{binary}: {help}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_that_is_asked_for_is_a_success_and_leaves_the_data() {
    let mut mesh = AllInOne::scripted().await;
    mesh.process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let end = mesh.process.ended(Duration::from_secs(10)).await.unwrap();
    assert!(end.success(), "{}", mesh.process.output());
    assert!(mesh.folder.path().join("data/unbroken.db").exists());
}
