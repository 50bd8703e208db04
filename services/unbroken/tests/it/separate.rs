//! The same binaries as processes of their own.

use std::time::Duration;

use tempfile::TempDir;

use crate::{
    processes::{AllInOne, Process, free_address, ready},
    stream::{Events, completion, eventually, oracle, script},
};

/// A mesh of separate processes.
struct Mesh {
    http: String,
    gateway: Process,
    workers: Vec<Process>,
    _others: Vec<Process>,
    _folder: TempDir,
}

impl Mesh {
    /// Workers with these settings each, a store, a router and a gateway.
    async fn start(workers: &[&[(&str, &str)]]) -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data").display().to_string();
        let (http, grpc, store) = (free_address(), free_address(), free_address());
        let addresses: Vec<_> = workers.iter().map(|_| free_address()).collect();
        let workers = workers.iter().zip(&addresses).map(|(settings, address)| {
            let mut all = vec![("UNBROKEN_WORKER_LISTEN", address.as_str())];
            all.extend(*settings);
            Process::start("unbroken-worker", folder.path(), &all)
        });
        let workers: Vec<_> = workers.collect();
        let others = vec![
            Process::start(
                "unbroken-store",
                folder.path(),
                &[("UNBROKEN_STORE_LISTEN", &store), ("UNBROKEN_DATA_DIR", &data)],
            ),
            Process::start(
                "unbroken-router",
                folder.path(),
                &[
                    ("UNBROKEN_GRPC", &grpc),
                    ("UNBROKEN_WORKERS", &addresses.join(",")),
                    ("UNBROKEN_STORE", &store),
                ],
            ),
        ];
        let mut gateway = Process::start(
            "unbroken-gateway",
            folder.path(),
            &[("UNBROKEN_HTTP", &http), ("UNBROKEN_ROUTERS", &grpc), ("UNBROKEN_STORE", &store)],
        );
        ready(&http, &mut gateway).await;
        Self {
            http,
            gateway,
            workers,
            _others: others,
            _folder: folder,
        }
    }

    async fn models(&self) -> Vec<String> {
        let answer: serde_json::Value = reqwest::get(format!("http://{}/v1/models", self.http))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|model| model["id"].as_str().unwrap().to_owned())
            .collect()
    }

    async fn chat(&self, model: &str, prompt: &str) -> (String, bool) {
        let body = serde_json::json!({"model": model, "stream": true, "messages": [{"role": "user", "content": prompt}]});
        let answer = reqwest::Client::new()
            .post(format!("http://{}/v1/chat/completions", self.http))
            .json(&body)
            .send()
            .await
            .unwrap();
        completion(&Events::new(answer).rest().await)
    }
}

const GAP: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread")]
async fn when_a_worker_is_killed_between_answers_the_next_comes_from_the_other() {
    let scripted: &[(&str, &str)] = &[("UNBROKEN_ENGINE", "scripted")];
    let mut mesh = Mesh::start(&[scripted, scripted]).await;
    for number in 0..6 {
        if number == 2 {
            mesh.workers[0].kill();
        }
        let id = format!("k{number}");
        assert_eq!(mesh.chat("scripted", &script(&id, 30, GAP)).await, (oracle(&id, 0..30), true));
    }
    mesh.workers[1].kill();
    eventually("no worker is left, and that is said at once", async || {
        let body = serde_json::json!({"model": "scripted", "messages": [{"role": "user", "content": "x"}]});
        let answer = reqwest::Client::new()
            .post(format!("http://{}/v1/chat/completions", mesh.http))
            .json(&body)
            .send()
            .await
            .unwrap();
        answer.status() == 503 && answer.json::<serde_json::Value>().await.unwrap()["error"]["code"] == "unavailable"
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_openai_server_is_a_worker_like_any_other_beside_another_model() {
    // The remote server is a mesh of its own: what it serves is OpenAI's API.
    let remote = AllInOne::scripted().await;
    let upstream = format!("http://{}/v1", remote.http);
    let near: &[(&str, &str)] = &[("UNBROKEN_ENGINE", "scripted"), ("UNBROKEN_SCRIPT_MODEL", "near")];
    let mesh = Mesh::start(&[near, &[("UNBROKEN_ENGINE", "openai"), ("UNBROKEN_UPSTREAM", &upstream)]]).await;
    eventually("both models are listed", async || {
        let models = mesh.models().await;
        models.contains(&"near".to_owned()) && models.contains(&"scripted".to_owned())
    })
    .await;
    assert_eq!(mesh.chat("scripted", &script("far", 30, GAP)).await, (oracle("far", 0..30), true));
    assert_eq!(mesh.chat("near", &script("near", 30, GAP)).await, (oracle("near", 0..30), true));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_stop_finishes_its_answers_first() {
    let mut mesh = Mesh::start(&[&[("UNBROKEN_ENGINE", "scripted")]]).await;
    let request = reqwest::Client::new()
        .get(format!("http://{}/stream", mesh.http))
        .query(&[("prompt", script("g", 100, GAP * 10))]);
    let mut events = Events::new(request.send().await.unwrap());
    events.next().await.unwrap();
    mesh.gateway.signal(nix::sys::signal::Signal::SIGTERM);
    let (text, done) = crate::stream::tokens(&events.rest().await);
    assert_eq!((text, done), (oracle("g", 1..100), true));
    assert!(mesh.gateway.wait(Duration::from_secs(10)).success());
}
