//! The doors of the mesh: HTTP for browsers, SDKs and curl, in front of the routers. It keeps nothing that another gateway has not.
//!
//! A request, in the order of its way: `app` (the routes) → `stack` (id, span, safety) → `identity` and `front` (who asks) → `body` (what the client sent) →
//! `door` (what it means, and how the answer is written) → `limits` (whether it may be) → `turn` (the answer, whichever router carries it) → `clients` (the
//! exchanges). Back: `clients/slot` → `turn` → the door's projection → `sse`. For clients that come back: `comeback` (what they say),
//! `event_id` and `idempotency`; `leave` sends them away when the gateway stops. Beside it: `failure` (what a client is told when
//! something cannot be done), `account`, `request_log` and `metrics` (what is told to the operator), `outlive` (what is done
//! to its end though its client has gone), `openapi` (what the doors say of themselves), `json` (what is written per token).

mod account;
mod app;
mod body;
mod clients;
mod comeback;
mod door;
mod event_id;
mod failure;
mod front;
mod idempotency;
pub mod identity;
mod json;
mod leave;
mod limits;
mod metrics;
mod openapi;
mod origin;
mod outlive;
mod request_log;
mod settings;
mod sse;
mod stack;
mod turn;

use chassis::{drain::Drain, http::Limits, listen::Listener};

pub use settings::Settings;

/// Why a gateway cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Nobody's identity can be judged.
    #[error(transparent)]
    Identity(#[from] identity::Error),
    /// The address of a router or of the store is not one.
    #[error("UNBROKEN_ROUTERS or UNBROKEN_STORE: {0}")]
    Address(#[from] chassis::channel::Error),
    /// An origin is not one.
    #[error("UNBROKEN_CORS_ORIGINS: {0:?} is not an origin; write it as https://chat.example.com")]
    Origin(String),
    /// The address of Redis is not one. It may hold a password, so it is not repeated.
    #[error("UNBROKEN_REDIS is not an address such as redis://host:6379: {0}")]
    Redis(String),
}

impl chassis::process::Fault for Error {
    fn is_of_setting(&self) -> bool {
        true
    }
}

/// Serves on `listener` until draining begins. What runs then is known to `drain`, which waits for it.
///
/// # Errors
/// A setting is wrong.
pub async fn run(settings: Settings, listener: impl Listener, drain: Drain) -> Result<(), Error> {
    let limits = Limits {
        head: settings.head_timeout,
        write_stall: settings.write_stall,
        connections: settings.connections,
        settle: settings.settle(),
    };
    let app = app::App::new(settings, listener.is_local(), drain.clone())?;
    say_who_is_asked(&app, &listener);
    let routes = app::routes(app)?;
    chassis::http::serve(listener, service(routes), limits, drain).await;
    Ok(())
}

/// Whoever lets everybody in should know.
fn say_who_is_asked(app: &app::App, listener: &impl Listener) {
    let address = listener.address();
    match (app.identity().is_asked(), listener.is_local()) {
        (true, _) => tracing::info!(address, "UNBROKEN_AUTH is on: a request needs an API key or a token"),
        (false, true) => {
            tracing::warn!(
                address,
                "UNBROKEN_AUTH is off: whoever is on this machine is served, all as the same anonymous user"
            );
        }
        (false, false) => {
            tracing::warn!(
                address,
                "UNBROKEN_AUTH is off, and others can reach this gateway: EVERYBODY is served, all as the same anonymous user"
            );
        }
    }
}

/// All doors, without a listener: for who serves them otherwise, as the fuzzing does, on this machine.
///
/// # Errors
/// A setting is wrong.
pub fn routes(settings: Settings, drain: Drain) -> Result<axum::Router, Error> {
    app::routes(app::App::new(settings, true, drain)?)
}

/// The routes as hyper calls them: with its own kind of body.
fn service(
    routes: axum::Router,
) -> impl tower::Service<
    http::Request<hyper::body::Incoming>,
    Response = http::Response<axum::body::Body>,
    Error = std::convert::Infallible,
    Future: Send,
> + Clone
+ Send
+ 'static {
    tower::ServiceExt::map_request(routes, |request: http::Request<hyper::body::Incoming>| {
        request.map(axum::body::Body::new)
    })
}
