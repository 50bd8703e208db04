//! The routes, and what the doors share. [`crate::run`] serves it; read on in [`crate::stack`], then in [`crate::door`].

use std::sync::Arc;

use axum::{
    Router,
    middleware::{from_fn, from_fn_with_state},
};
use chassis::drain::Drain;
use http::{StatusCode, Uri};
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    Error, Settings,
    clients::Clients,
    door::{
        cancel, chat, completions,
        conversations::{
            self,
            openai::{self, items},
        },
        docs, embeddings, health, keys, messages, models, page, requests,
        responses::{self, count, retrieve},
        simple, text, tickets, ws,
    },
    failure::Refusal,
    identity::Identity,
    limits::Limits,
    metrics::Metrics,
    openapi,
    request_log::{self, RequestLog},
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
    limits: Limits,
    request_log: RequestLog,
    metrics: Arc<Metrics>,
    drain: Drain,
}

impl App {
    /// Begins to connect to the routers. `here`: only this machine can reach the gateway.
    ///
    /// # Errors
    /// A setting is wrong.
    pub(crate) fn new(settings: Settings, here: bool, drain: Drain) -> Result<Self, Error> {
        let clients = Clients::new(&settings, &drain)?;
        let identity = Identity::new(&settings.identity, here, &clients, &drain)?;
        let metrics = Arc::new(Metrics::new());
        let limits = Limits::start(&settings, &clients, &metrics, &drain)?;
        let (request_log, told) = RequestLog::new(&metrics);
        drain.spawn_last(request_log::run(clients.store(), Arc::clone(&metrics), drain.clone(), told));
        Ok(Self(Arc::new(Inner {
            settings,
            clients,
            identity,
            limits,
            request_log,
            metrics,
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

    pub(crate) fn limits(&self) -> &Limits {
        &self.0.limits
    }

    pub(crate) fn request_log(&self) -> &RequestLog {
        &self.0.request_log
    }

    pub(crate) fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    pub(crate) fn drain(&self) -> &Drain {
        &self.0.drain
    }
}

/// The doors for those whose right to it was judged, with what each says of itself for the document at `/openapi.json`.
fn doors() -> OpenApiRouter<App> {
    OpenApiRouter::with_openapi(openapi::base())
        .routes(routes!(completions::create))
        .routes(routes!(text::create))
        .routes(routes!(models::list))
        .routes(routes!(models::one))
        .routes(routes!(embeddings::create))
        .routes(routes!(messages::create))
        .routes(routes!(messages::count_tokens))
        .routes(routes!(chat::stream))
        .routes(routes!(simple::by_prompt))
        .routes(routes!(simple::by_prompt_too))
        .routes(routes!(simple::by_message))
        .routes(routes!(ws::open))
        .routes(routes!(cancel::cancel))
        .routes(routes!(conversations::create, conversations::list))
        .routes(routes!(conversations::read, conversations::rename, conversations::delete))
        .routes(routes!(conversations::messages))
        .routes(routes!(requests::list))
        .routes(routes!(responses::create))
        .routes(routes!(count::input_tokens))
        .routes(routes!(retrieve::read, retrieve::delete))
        .routes(routes!(retrieve::cancel))
        .routes(routes!(retrieve::input_items))
        .routes(routes!(openai::create))
        .routes(routes!(openai::read, openai::update, openai::delete))
        .routes(routes!(items::list_items, items::add_items))
        .routes(routes!(items::read_item, items::delete_item))
        .routes(routes!(tickets::create))
        .routes(routes!(keys::create, keys::list))
        .routes(routes!(keys::revoke))
}

/// These are everybody's: they tell nothing of any principal.
fn everybodys() -> OpenApiRouter<App> {
    OpenApiRouter::default()
        .routes(routes!(health::health))
        .routes(routes!(health::ready))
        .routes(routes!(health::metrics))
        .routes(routes!(docs::document))
        .routes(routes!(docs::browse))
        .routes(routes!(page::page))
}

/// Where OpenAI compacts a long conversation, which nothing does here. To the routes it looks like the id of a response.
const COMPACTION: &str = "/v1/responses/compact";

async fn nothing() -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", "there is nothing at this address")
}

/// What all doors say of themselves.
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    doors().merge(everybodys()).into_openapi()
}

/// All routes with the stack around them.
///
/// # Errors
/// A setting is wrong.
pub(crate) fn routes(app: App) -> Result<Router, Error> {
    let cors = stack::cors(&app.settings().cors_origins).map_err(Error::Origin)?;
    let doors = doors().route_layer(from_fn_with_state(app.clone(), stack::identify));
    let routes = Router::from(doors.merge(everybodys()))
        .fallback(nothing)
        .method_not_allowed_fallback(async |uri: Uri| {
            if uri.path() == COMPACTION {
                return nothing().await;
            }
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
