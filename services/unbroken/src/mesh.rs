//! Starts the four services, and stops them from the edge inwards.

use std::{error::Error, future::Future, path::PathBuf, time::Duration};

use chassis::{
    channel,
    drain::Drain,
    listen::{Listener as _, listen},
    process::Fault,
};
use proto::v1::{WatchStatusRequest, WorkerState, chat_service_client::ChatServiceClient};
use tokio::{net::TcpListener, task::JoinHandle, time::sleep};

use crate::{Settings, banner};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;

/// The name of its file.
const KEY_SECRET: &str = "key-secret";
/// How long to wait before asking again whether the mesh is ready.
const READY_POLL: Duration = Duration::from_millis(200);

/// Runs the mesh until it has drained.
pub(crate) async fn run(settings: Settings, drain: Drain) -> Outcome {
    let Settings {
        command: _,
        process,
        mut gateway,
        mut router,
        worker,
        store,
    } = settings;
    // All ports first: one that is taken is said before anything is loaded.
    let http = listen(&gateway.http, "UNBROKEN_HTTP")?;
    let grpc = listen(&router.grpc, "UNBROKEN_GRPC")?;
    let engine = listen(&worker.worker_listen, "UNBROKEN_WORKER_LISTEN")?;
    let history = listen(&store.store_listen, "UNBROKEN_STORE_LISTEN")?;
    gateway = gateway.or_alone();
    let asks = gateway.identity.asks(http.is_local());
    if asks && gateway.identity.keys.key_secret_file.is_none() {
        gateway.identity.keys.key_secret_file = Some(key_secret_file(store.data_dir.clone())?);
    }
    gateway.routers = vec![address(&grpc)?];
    gateway.gateway_store = address(&history)?;
    router.workers = vec![address(&engine)?];
    router.store = address(&history)?;
    let (at_http, at_grpc) = (address(&http)?, address(&grpc)?);

    let drains = [(); 4].map(|()| Drain::new());
    let [for_gateway, for_router, for_worker, for_store] = drains.clone();
    let grace = process.grace;
    let mut services = [
        start(
            "gateway",
            &drain,
            serve(for_gateway, grace, |drain| gateway::run(gateway, http, drain)),
        ),
        start("router", &drain, serve(for_router, grace, |drain| router::run(router, grpc, drain))),
        start(
            "worker",
            &drain,
            serve(for_worker, grace, |drain| engine_worker::run(worker, engine, drain)),
        ),
        start(
            "store",
            &drain,
            serve(for_store, grace, |drain| conversation_store::run(store, history, drain)),
        ),
    ];

    tokio::select! {
        () = drain.draining() => {}
        () = ready(&at_grpc) => {
            banner::print(&at_http, &at_grpc, asks);
            drain.draining().await;
        }
    }
    // From the edge inwards: who calls stops before who is called, so nothing that runs loses its worker.
    let mut outcome = Ok(());
    for (drain, service) in drains.iter().zip(&mut services) {
        drain.begin();
        outcome = outcome.and(service.await?);
    }
    outcome
}

/// Where the secret of API keys is kept unless a setting says otherwise: beside the conversations.
pub(crate) fn key_secret_file(data_dir: Option<PathBuf>) -> Result<PathBuf, Box<dyn Error + Send + Sync>> {
    conversation_store::data_dir(data_dir)
        .map(|folder| folder.join(KEY_SECRET))
        .map_err(Fault::judged)
}

/// A service under its own drain. One that ends by itself takes the whole process with it.
fn start(name: &'static str, whole: &Drain, service: impl Future<Output = Outcome> + Send + 'static) -> JoinHandle<Outcome> {
    let whole = whole.clone();
    tokio::spawn(async move {
        let outcome = service.await;
        tracing::debug!(service = name, ok = outcome.is_ok(), "ended");
        whole.begin();
        outcome
    })
}

async fn serve<F, E>(drain: Drain, grace: Duration, run: impl FnOnce(Drain) -> F) -> Outcome
where
    F: Future<Output = Result<(), E>>,
    E: Fault,
{
    drain.serve(grace, run(drain.clone())).await.map_err(Fault::judged)
}

fn address(listener: &TcpListener) -> std::io::Result<String> {
    listener.local_addr().map(|address| address.to_string())
}

/// Waits until a chat would be answered.
async fn ready(grpc: &str) {
    let Ok(channel) = channel::lazy(grpc) else { return };
    let mut client = ChatServiceClient::new(channel);
    loop {
        if let Ok(status) = client.watch_status(WatchStatusRequest {}).await {
            let mut status = status.into_inner();
            while let Ok(Some(status)) = status.message().await {
                if status.workers.iter().any(|worker| worker.state() == WorkerState::Ready) {
                    return;
                }
            }
        }
        sleep(READY_POLL).await;
    }
}
