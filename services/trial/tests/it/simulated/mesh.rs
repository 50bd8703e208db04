//! The services of a simulated mesh, as hosts of a [`Network`] that can be killed, frozen and started again.

use std::{
    collections::BTreeMap,
    sync::{Arc, MutexGuard},
    time::Duration,
};

use chassis::{channel, drain::Drain};
use clap::Parser;
use proto::v1::{
    ListAnswersRequest, WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient,
    conversation_service_server::ConversationServiceServer,
};
use tokio::time::sleep;
use tonic::transport::Channel;
use trial::random::Random;

use super::{
    network::{Gateways, Network},
    store::{Kept, Store},
};

const GATEWAYS: usize = 2;
const ROUTERS: usize = 2;
const WORKERS: usize = 3;

#[derive(Debug, Parser)]
struct ForGateway {
    #[command(flatten)]
    settings: gateway::Settings,
}

#[derive(Debug, Parser)]
struct ForRouter {
    #[command(flatten)]
    settings: router::Settings,
}

#[derive(Debug, Parser)]
struct ForWorker {
    #[command(flatten)]
    settings: engine_worker::Settings,
}

/// A mesh.
pub(crate) struct Mesh {
    pub(crate) network: Arc<Network>,
    store: Store,
    running: BTreeMap<String, Drain>,
}

impl Mesh {
    /// Starts all, and waits until they see each other.
    pub(crate) async fn start() -> Self {
        let network = Arc::new(Network::default());
        channel::dial_with(Some(network.dialer()));
        let mut mesh = Self {
            network,
            store: Store::default(),
            running: BTreeMap::new(),
        };
        for host in Self::hosts() {
            mesh.start_host(&host);
        }
        mesh.whole().await;
        mesh
    }

    /// All hosts, from the store backwards.
    fn hosts() -> Vec<String> {
        let many = |kind: &'static str, count| (0..count).map(move |number| format!("{kind}{number}"));
        let all = std::iter::once("store".to_owned())
            .chain(many("w", WORKERS))
            .chain(many("r", ROUTERS));
        all.chain(many("g", GATEWAYS)).collect()
    }

    /// A host of this kind, by lot.
    #[expect(clippy::unused_self, reason = "every mesh has the same hosts, but who asks has a mesh")]
    pub(crate) fn one(&self, kind: char, random: &mut Random) -> String {
        let hosts: Vec<String> = Self::hosts().into_iter().filter(|host| host.starts_with(kind)).collect();
        hosts[random.index(hosts.len())].clone()
    }

    /// Starts a host that does not run.
    pub(crate) fn start_host(&mut self, name: &str) {
        let drain = Drain::new();
        self.running.insert(name.to_owned(), drain.clone());
        let host = self.network.host(name);
        let many = |kind: &str, count| {
            (0..count)
                .map(|number| format!("{name}.{kind}{number}:1"))
                .collect::<Vec<_>>()
                .join(",")
        };
        let store = format!("{name}.store:1");
        match name.as_bytes()[0] {
            b'g' => {
                let settings = ForGateway::parse_from(["gateway", "--routers", &many("r", ROUTERS), "--gateway-store", &store]).settings;
                tokio::spawn(async move { gateway::run(settings, host, drain).await.unwrap() });
            }
            b'r' => {
                let settings = ForRouter::parse_from(["router", "--workers", &many("w", WORKERS), "--store", &store]).settings;
                tokio::spawn(async move { router::run(settings, host, drain).await.unwrap() });
            }
            b'w' => {
                let settings = ForWorker::parse_from(["worker", "--engine", "scripted"]).settings;
                tokio::spawn(async move { engine_worker::run(settings, host, drain).await.unwrap() });
            }
            _ => {
                self.kept().begin();
                let service = ConversationServiceServer::new(self.store.clone());
                let services = chassis::grpc::Services::new(proto::FILE_DESCRIPTOR_SET).unwrap().with(service);
                tokio::spawn(async move { services.serve(host, drain).await.unwrap() });
            }
        }
    }

    /// `kill -9`: nothing that it still does reaches anybody.
    pub(crate) fn kill(&mut self, name: &str) {
        self.network.kill(name);
        if let Some(drain) = self.running.remove(name) {
            tokio::spawn(async move { drain.finish(Duration::ZERO).await });
        }
    }

    /// SIGTERM: it ends within the grace time.
    pub(crate) async fn stop(&mut self, name: &str) {
        if let Some(drain) = self.running.remove(name) {
            drain.finish(Duration::from_secs(30)).await;
        }
        self.network.kill(name);
    }

    /// Nothing comes from it or to it any more, or all does again.
    pub(crate) fn silence(&self, name: &str, silent: bool) {
        self.network.links_of(name).iter().for_each(|link| link.silence(silent));
    }

    /// Gives each way a delay and a drip of its own. Says so.
    pub(crate) fn unsettle(&self, random: &mut Random) -> String {
        let slow = random.below(3) == 0;
        for host in Self::hosts() {
            for link in self.network.links_of(&host) {
                link.change(|weather| {
                    weather.delay = Duration::from_millis(if slow { random.below(4) } else { 0 });
                    weather.drip = if slow && random.below(2) == 0 { 64 } else { 0 };
                });
            }
        }
        if slow { "a slow network" } else { "a fast network" }.to_owned()
    }

    /// Waits until each gateway sees the routers, and each router the workers.
    pub(crate) async fn whole(&self) {
        for number in 0..ROUTERS {
            loop {
                let mut client = ChatServiceClient::new(Self::channel(&format!("r{number}")));
                if let Ok(statuses) = client.watch_status(WatchStatusRequest {}).await
                    && let Ok(Some(status)) = statuses.into_inner().message().await
                {
                    let ready = status.workers.iter().filter(|worker| worker.state() == WorkerState::Ready);
                    if ready.count() == WORKERS {
                        break;
                    }
                }
                sleep(Duration::from_millis(20)).await;
            }
        }
        sleep(Duration::from_millis(600)).await; // the longest that a gateway waits before it dials again
    }

    /// The worker that writes this answer now, as some router knows it.
    pub(crate) async fn writer(&self, stream_id: &str) -> Option<String> {
        for channel in self.routers() {
            let Ok(answers) = ChatServiceClient::new(channel).list_answers(ListAnswersRequest {}).await else {
                continue;
            };
            let mut answers = answers.into_inner();
            while let Ok(Some(answer)) = answers.message().await {
                if answer.stream_id == stream_id && answer.state == "running" {
                    let host = answer.worker.split_once('.').map(|(_, host)| host)?;
                    return host.split_once(':').map(|(name, _)| name.to_owned());
                }
            }
        }
        None
    }

    fn channel(host: &str) -> Channel {
        channel::lazy(&format!("c.{host}:1")).unwrap()
    }

    /// As a client sees the gateways.
    pub(crate) fn gateways(&self) -> Gateways {
        Gateways {
            network: Arc::clone(&self.network),
            count: GATEWAYS,
        }
    }

    /// A channel to each router.
    #[expect(clippy::unused_self, reason = "every mesh has the same hosts, but who asks has a mesh")]
    pub(crate) fn routers(&self) -> Vec<Channel> {
        (0..ROUTERS).map(|number| Self::channel(&format!("r{number}"))).collect()
    }

    /// A channel to the store.
    #[expect(clippy::unused_self, reason = "every mesh has the same hosts, but who asks has a mesh")]
    pub(crate) fn store(&self) -> Channel {
        Self::channel("store")
    }

    /// What the store remembers.
    pub(crate) fn kept(&self) -> MutexGuard<'_, Kept> {
        self.store.0.lock().unwrap()
    }
}
