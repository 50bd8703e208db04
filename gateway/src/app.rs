//! The routes, and what the doors share. [`crate::run`] serves it; read on in [`crate::stack`], then in [`crate::door`].

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
    routing::{get, post},
};
use chassis::drain::Drain;
use http::StatusCode;

use crate::{
    Error, Settings,
    clients::Clients,
    door::{cancel, chat, completions, conversations, embeddings, health, messages, models, page, simple, ws},
    failure::Refusal,
    identity::Identity,
    metrics::Metrics,
    stack,
};

/// What the doors share. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct App(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    settings: Settings,
    clients: Clients,
    identity: Identity,
    metrics: Arc<Metrics>,
    drain: Drain,
}

impl App {
    /// Begins to connect to the routers.
    ///
    /// # Errors
    /// A setting is wrong.
    pub(crate) fn new(settings: Settings, drain: Drain) -> Result<Self, Error> {
        let clients = Clients::new(&settings, &drain)?;
        Ok(Self(Arc::new(Inner {
            settings,
            clients,
            identity: Identity::off(),
            metrics: Arc::new(Metrics::new()),
            drain,
        })))
    }

    pub(crate) fn settings(&self) -> &Settings {
        &self.0.settings
    }

    pub(crate) fn clients(&self) -> &Clients {
        &self.0.clients
    }

    pub(crate) fn identity(&self) -> &Identity {
        &self.0.identity
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0.drain
    }
}

/// All routes with the stack around them.
///
/// # Errors
/// A setting is wrong.
pub(crate) fn routes(app: App) -> Result<Router, Error> {
    let cors = stack::cors(&app.settings().cors_origins).map_err(Error::Origin)?;
    let doors = Router::new()
        .route("/v1/chat/completions", post(completions::create))
        .route("/v1/chat/completions/stream", get(simple::by_prompt))
        .route("/v1/messages", post(messages::create))
        .route("/v1/chat/stream", get(chat::stream))
        .route("/v1/models", get(models::list))
        .route("/v1/models/{*id}", get(models::one))
        .route("/v1/embeddings", post(embeddings::create))
        .route("/v1/streams/{id}/cancel", post(cancel::cancel))
        .route("/stream", get(simple::by_prompt))
        .route("/chat", post(simple::by_message))
        .route("/ws/chat", get(ws::open))
        .route("/conversations", post(conversations::create).get(conversations::list))
        .route(
            "/conversations/{id}",
            get(conversations::read).patch(conversations::rename).delete(conversations::delete),
        )
        .route("/conversations/{id}/messages", get(conversations::messages))
        .route_layer(from_fn_with_state(app.clone(), stack::identify));
    let routes = doors
        // These are everybody's: they tell nothing of any principal.
        .route("/health", get(health::health))
        .route("/ready", get(health::ready))
        .route("/metrics", get(health::metrics))
        .route("/", get(page::page))
        .fallback(async || Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address"))
        .method_not_allowed_fallback(async || {
            Refusal::new(
                StatusCode::METHOD_NOT_ALLOWED,
                "method_not_allowed",
                "this address does not take that method; see the Allow header",
            )
        })
        .with_state(app)
        .layer(from_fn(stack::receive));
    Ok(match cors {
        Some(cors) => routes.layer(cors),
        None => routes,
    })
}
