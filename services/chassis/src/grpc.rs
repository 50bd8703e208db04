//! Serving gRPC: health, reflection and flow control as every service of the mesh has them.

use std::{convert::Infallible, time::Duration};

use tonic::{
    body::Body,
    server::NamedService,
    service::{Routes, RoutesBuilder},
    transport::Server,
};
use tonic_health::{ServingStatus, server::HealthReporter};
use tower::Service;

use crate::{drain::Drain, listen::Listener};

/// What one stream may have in flight. A chat's entries are small: this bounds what a peer that does not read costs.
pub const STREAM_WINDOW: u32 = 1024 * 1024;
/// What all streams of a connection may have in flight together: one that is not read leaves the others room. h2 also measures
/// floods of small frames against it, so it must be set, and must not be adaptive.
pub const CONNECTION_WINDOW: u32 = 16 * 1024 * 1024;
/// Calls on one connection at once. Exchanges need one; people and other services have a call for each answer.
const CALLS: u32 = 4096;
/// The most bytes of a request's headers.
const HEADERS: u32 = 16 * 1024;
/// How often a silent connection is asked whether it still lives, and how long the answer may take.
pub const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the answer may take.
pub const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(3);

/// The services of one listener.
#[derive(Debug)]
pub struct Services {
    routes: RoutesBuilder,
    health: HealthReporter,
    names: Vec<&'static str>,
}

/// Why a listener cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The reflection service cannot read the descriptors.
    #[error("the descriptors for reflection are broken: {0}")]
    Reflection(#[from] tonic_reflection::server::Error),
    /// The transport failed.
    #[error("serving gRPC failed: {0}")]
    Transport(#[from] tonic::transport::Error),
}

impl Services {
    /// Health (`grpc.health.v1`) and reflection (v1, and v1alpha for older grpcurls) over these encoded descriptors.
    ///
    /// # Errors
    /// [`Error::Reflection`].
    pub fn new(descriptors: &'static [u8]) -> Result<Self, Error> {
        let (health, health_service) = tonic_health::server::health_reporter();
        let reflection = || {
            tonic_reflection::server::Builder::configure()
                .register_encoded_file_descriptor_set(descriptors)
                .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        };
        let mut routes = Routes::builder();
        routes
            .add_service(health_service)
            .add_service(reflection().build_v1()?)
            .add_service(reflection().build_v1alpha()?);
        Ok(Self {
            routes,
            health,
            names: Vec::new(),
        })
    }

    /// Adds a service, which is healthy until draining begins.
    #[must_use]
    pub fn with<S>(mut self, service: S) -> Self
    where
        S: Service<http::Request<Body>, Response = http::Response<Body>, Error = Infallible>,
        S: NamedService + Clone + Send + Sync + 'static,
        S::Future: Send + 'static,
    {
        self.names.push(S::NAME);
        self.routes.add_service(service);
        self
    }

    /// Serves until draining begins, then until the last call has ended or the grace time is over.
    ///
    /// # Errors
    /// [`Error::Transport`].
    pub async fn serve(self, listener: impl Listener, drain: Drain) -> Result<(), Error> {
        for name in &self.names {
            self.health.set_service_status(*name, ServingStatus::Serving).await;
        }
        let incoming = futures_util::stream::unfold(listener, |listener| async {
            let connection = listener.connection().await;
            Some((Ok::<_, std::io::Error>(connection), listener))
        });
        let server = Server::builder()
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .http2_adaptive_window(Some(false))
            .http2_keepalive_interval(Some(KEEPALIVE))
            .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
            .http2_max_header_list_size(HEADERS)
            .max_concurrent_streams(CALLS)
            .serve_with_incoming_shutdown(
                self.routes.routes().prepare(),
                incoming,
                not_serving(self.health, self.names, drain.clone()),
            );
        // tonic waits for open calls for ever: the grace time ends that.
        tokio::select! {
            outcome = server => Ok(outcome?),
            () = drain.cut() => Ok(()),
        }
    }
}

/// Waits for draining, and tells who watches the health.
async fn not_serving(health: HealthReporter, names: Vec<&'static str>, drain: Drain) {
    drain.draining().await;
    for name in names.into_iter().chain([""]) {
        health.set_service_status(name, ServingStatus::NotServing).await;
    }
}
