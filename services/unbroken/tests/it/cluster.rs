//! Two of each that may die: gateways and routers before one worker and one store, as processes of their own.

use nix::sys::signal::Signal;
use proto::v1::{AnswerSummary, ListAnswersRequest, chat_service_client::ChatServiceClient};
use tempfile::TempDir;

use crate::processes::{Process, free_address, ready};

/// One process that serves at an address.
pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) process: Process,
}

/// The cluster.
pub(crate) struct Cluster {
    pub(crate) gateways: [Server; 2],
    pub(crate) routers: [Server; 2],
    routers_of_gateways: String,
    store: String,
    _others: [Process; 2],
    folder: TempDir,
}

impl Cluster {
    /// Starts it, with the scripted engine, and waits until both gateways are ready.
    pub(crate) async fn start() -> Self {
        let folder = TempDir::new().unwrap();
        let data = folder.path().join("data").display().to_string();
        let [worker, store] = [(); 2].map(|()| free_address());
        let others = [
            Process::start(
                "unbroken-worker",
                folder.path(),
                &[("UNBROKEN_WORKER_LISTEN", &worker), ("UNBROKEN_ENGINE", "scripted")],
            ),
            Process::start(
                "unbroken-store",
                folder.path(),
                &[("UNBROKEN_STORE_LISTEN", &store), ("UNBROKEN_DATA_DIR", &data)],
            ),
        ];
        let routers = [(); 2].map(|()| {
            let address = free_address();
            let settings = [
                ("UNBROKEN_GRPC", address.as_str()),
                ("UNBROKEN_WORKERS", &worker),
                ("UNBROKEN_STORE", &store),
            ];
            let process = Process::start("unbroken-router", folder.path(), &settings);
            Server { address, process }
        });
        let routers_of_gateways = format!("{},{}", routers[0].address, routers[1].address);
        let gateways = [(); 2].map(|()| gateway(free_address(), &routers_of_gateways, &store, &folder));
        let mut cluster = Self {
            gateways,
            routers,
            routers_of_gateways,
            store,
            _others: others,
            folder,
        };
        for gateway in &mut cluster.gateways {
            ready(&gateway.address, &mut gateway.process).await;
            until_connected(&gateway.address).await;
        }
        cluster
    }

    /// Where a door of a gateway is.
    pub(crate) fn url(&self, gateway: usize, path: &str) -> String {
        format!("http://{}{path}", self.gateways[gateway].address)
    }

    /// Starts a gateway anew that was killed, at the same address.
    pub(crate) async fn restart_gateway(&mut self, number: usize) {
        let address = self.gateways[number].address.clone();
        self.gateways[number] = gateway(address.clone(), &self.routers_of_gateways, &self.store, &self.folder);
        ready(&address, &mut self.gateways[number].process).await;
    }

    pub(crate) fn stop_gateway(&self, number: usize) {
        self.gateways[number].process.signal(Signal::SIGTERM);
    }

    /// What the routers that live carry.
    pub(crate) async fn answers(&self) -> Vec<AnswerSummary> {
        let mut all = Vec::new();
        for router in &self.routers {
            let Ok(mut client) = ChatServiceClient::connect(format!("http://{}", router.address)).await else {
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
        for (number, router) in self.routers.iter().enumerate() {
            let mut client = ChatServiceClient::connect(format!("http://{}", router.address)).await.unwrap();
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

fn gateway(address: String, routers: &str, store: &str, folder: &TempDir) -> Server {
    let settings = [
        ("UNBROKEN_HTTP", address.as_str()),
        ("UNBROKEN_ROUTERS", routers),
        ("UNBROKEN_STORE", store),
        ("UNBROKEN_GATEWAY_HANDOVER", "500ms"),
    ];
    let process = Process::start("unbroken-gateway", folder.path(), &settings);
    Server { address, process }
}

/// Waits until a gateway is connected to both routers.
async fn until_connected(address: &str) {
    crate::stream::eventually("both routers are connected and have their worker", async || {
        let health: serde_json::Value = reqwest::get(format!("http://{address}/health"))
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let routers = health["routers"].as_array().unwrap();
        let ready = |router: &serde_json::Value| router["connected"] == true && router["workers"][0]["state"] == "ready";
        routers.len() == 2 && routers.iter().all(ready)
    })
    .await;
}
