//! Two of each that may die: gateways and routers, before one worker or two and one store, as processes of their own.

use nix::sys::signal::Signal;
use proto::v1::{AnswerSummary, ListAnswersRequest, chat_service_client::ChatServiceClient};
use trial::{
    fleet::{Fleet, Layout},
    process::settings,
};

use crate::processes::folder;

/// The cluster.
pub(crate) struct Cluster(pub(crate) Fleet);

impl Cluster {
    /// Starts it, with the scripted engine, and waits until both gateways are connected to both routers.
    pub(crate) async fn start() -> Self {
        Self::with_workers(1).await
    }

    /// The same with so many workers, all of which both routers know.
    pub(crate) async fn with_workers(workers: usize) -> Self {
        let layout = Layout {
            bin: Some(folder()),
            settings: settings(&[("UNBROKEN_GATEWAY_HANDOVER", "500ms"), ("UNBROKEN_LOG_FORMAT", "json")]),
            ..Layout::of(2, 2, workers)
        };
        let cluster = Self(Fleet::start(&layout).await.unwrap());
        for number in 0..2 {
            until_connected(&cluster.url(number, "/health"), workers).await;
        }
        cluster
    }

    /// Where a door of a gateway is.
    pub(crate) fn url(&self, gateway: usize, path: &str) -> String {
        format!("http://{}{path}", self.0.http[gateway])
    }

    /// Starts a gateway anew that was killed, at the same address.
    pub(crate) async fn restart_gateway(&mut self, number: usize) {
        self.0.gateways[number].restart().unwrap();
        self.0.gateways[number].ready(self.0.http[number], "/ready").await.unwrap();
    }

    pub(crate) fn stop_gateway(&self, number: usize) {
        self.0.gateways[number].signal(Signal::SIGTERM).unwrap();
    }

    /// What the routers that live carry.
    pub(crate) async fn answers(&self) -> Vec<AnswerSummary> {
        let mut all = Vec::new();
        for router in &self.0.grpc {
            let Ok(mut client) = ChatServiceClient::connect(format!("http://{router}")).await else {
                continue;
            };
            let mut answers = client.list_answers(ListAnswersRequest {}).await.unwrap().into_inner();
            while let Some(answer) = answers.message().await.unwrap() {
                all.push(answer);
            }
        }
        all
    }

    /// The router that carries the answer of that name.
    pub(crate) async fn home(&self, stream_id: &str) -> usize {
        for (number, router) in self.0.grpc.iter().enumerate() {
            let mut client = ChatServiceClient::connect(format!("http://{router}")).await.unwrap();
            let mut answers = client.list_answers(ListAnswersRequest {}).await.unwrap().into_inner();
            while let Some(answer) = answers.message().await.unwrap() {
                if answer.stream_id == stream_id {
                    return number;
                }
            }
        }
        panic!("nobody carries {stream_id}");
    }
}

/// Waits until a gateway is connected to both routers.
async fn until_connected(health: &str, workers: usize) {
    crate::stream::eventually("both routers are connected and have their workers", async || {
        let health: serde_json::Value = reqwest::get(health).await.unwrap().json().await.unwrap();
        let routers = health["routers"].as_array().unwrap();
        let ready = |router: &serde_json::Value| {
            let known = router["workers"].as_array().unwrap();
            router["connected"] == true && known.len() == workers && known.iter().all(|worker| worker["state"] == "ready")
        };
        routers.len() == 2 && routers.iter().all(ready)
    })
    .await;
}
