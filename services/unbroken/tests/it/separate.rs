//! The same binaries as processes of their own.

use std::time::Duration;

use proto::v1::{ListAnswersRequest, WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient};
use trial::{
    fleet::{Fleet, Layout},
    process::settings,
};

use crate::{
    postgres,
    processes::{AllInOne, folder},
    stream::{Events, completion, eventually, oracle, script},
};

/// A mesh of separate processes.
struct Mesh(Fleet);

impl Mesh {
    /// Workers with these settings each, a store, a router and a gateway.
    async fn start(workers: &[&[(&str, &str)]]) -> Self {
        let layout = Layout {
            bin: Some(folder()),
            workers: workers.iter().map(|own| settings(own)).collect(),
            settings: settings(&[("UNBROKEN_LOG_FORMAT", "json")]),
            ..Layout::of(1, 1, 0)
        };
        Self(Fleet::start(&layout).await.unwrap())
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.0.http[0])
    }

    async fn models(&self) -> Vec<String> {
        let answer: serde_json::Value = reqwest::get(self.url("/v1/models")).await.unwrap().json().await.unwrap();
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
            .post(self.url("/v1/chat/completions"))
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
    let mut mesh = Mesh::start(&[&[], &[]]).await;
    for number in 0..6 {
        if number == 2 {
            mesh.0.workers[0].kill().unwrap();
        }
        let id = format!("k{number}");
        assert_eq!(mesh.chat("scripted", &script(&id, 30, GAP)).await, (oracle(&id, 0..30), true));
    }
    mesh.0.workers[1].kill().unwrap();
    eventually("no worker is left, and that is said at once", async || {
        let body = serde_json::json!({"model": "scripted", "messages": [{"role": "user", "content": "x"}]});
        let answer = reqwest::Client::new()
            .post(mesh.url("/v1/chat/completions"))
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
    let near: &[(&str, &str)] = &[("UNBROKEN_SCRIPT_MODEL", "near")];
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
    let mut mesh = Mesh::start(&[&[]]).await;
    let request = reqwest::Client::new()
        .get(mesh.url("/stream"))
        .query(&[("prompt", script("g", 100, GAP * 10))]);
    let mut events = Events::new(request.send().await.unwrap());
    events.next().await.unwrap();
    mesh.0.gateways[0].signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    let (text, done) = crate::stream::tokens(&events.rest().await);
    assert_eq!((text, done), (oracle("g", 1..100), true));
    assert!(mesh.0.gateways[0].ended(Duration::from_secs(10)).await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn conversations_in_postgresql_are_whole_though_a_worker_is_killed() {
    let database = postgres::shared().await.database().await;
    let layout = Layout {
        bin: Some(folder()),
        settings: settings(&[("UNBROKEN_DATABASE", &database)]),
        ..Layout::of(1, 1, 2)
    };
    let mut mesh = Mesh(Fleet::start(&layout).await.unwrap());
    let client = reqwest::Client::new();
    let (chat, conversations) = (mesh.url("/chat"), mesh.url("/conversations"));
    let say = async |number: u32| {
        let made = client
            .post(&conversations)
            .json(&serde_json::json!({"title": "t"}))
            .send()
            .await
            .unwrap();
        let id = made.json::<serde_json::Value>().await.unwrap()["id"].as_str().unwrap().to_owned();
        let body = serde_json::json!({"message": script(&format!("p{number}"), 100, GAP * 10), "conversation_id": id});
        let answer = client.post(&chat).json(&body).send().await.unwrap();
        (number, id, answer.json::<serde_json::Value>().await.unwrap())
    };
    let answers = futures_util::future::join_all((0..6).map(say));
    let kill = async {
        tokio::time::sleep(Duration::from_millis(400)).await;
        mesh.0.workers[0].kill().unwrap();
    };
    let (answers, ()) = tokio::join!(answers, kill);
    for (number, id, answer) in answers {
        let text = oracle(&format!("p{number}"), 0..100);
        assert_eq!(answer["message"]["content"], *text, "{answer}");
        let messages = format!("{conversations}/{id}/messages");
        eventually("the turn is stored, once", async || {
            let stored: serde_json::Value = client.get(&messages).send().await.unwrap().json().await.unwrap();
            let stored = stored["data"].as_array().unwrap();
            stored.len() == 2 && stored[1]["content"] == *text
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_is_told_to_stop_hands_its_answers_over_and_is_gone_before_they_end() {
    const ANSWERS: usize = 8;
    let mut mesh = Mesh::start(&[&[], &[]]).await;
    let mut router = ChatServiceClient::connect(format!("http://{}", mesh.0.grpc[0])).await.unwrap();
    let mut statuses = router.watch_status(WatchStatusRequest {}).await.unwrap().into_inner();
    loop {
        let status = statuses.message().await.unwrap().unwrap();
        if status.workers.iter().all(|worker| worker.state() == WorkerState::Ready) {
            break;
        }
    }
    let mut reading = Vec::new();
    for number in 0..ANSWERS {
        let request = reqwest::Client::new()
            .get(mesh.url("/stream"))
            .query(&[("prompt", script(&format!("h{number}"), 800, GAP * 10))]);
        let mut events = Events::new(request.send().await.unwrap());
        let first = events.next().await.unwrap();
        reading.push((first, events));
    }
    mesh.0.workers[0].signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(mesh.0.workers[0].ended(Duration::from_secs(20)).await.unwrap().success());
    let mut running = 0;
    let mut answers = router.list_answers(ListAnswersRequest {}).await.unwrap().into_inner();
    while let Some(answer) = answers.message().await.unwrap() {
        running += usize::from(answer.state == "running");
    }
    assert_eq!(running, ANSWERS, "it did not wait for their ends");
    for (number, (first, events)) in reading.into_iter().enumerate() {
        let mut all = vec![first];
        all.extend(events.rest().await);
        assert_eq!(crate::stream::tokens(&all), (oracle(&format!("h{number}"), 0..800), true));
    }
}
