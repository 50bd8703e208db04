//! From settings to a worker that serves, and its end. The binaries call this.

use std::sync::Arc;

use chassis::{drain::Drain, grpc, listen::Listener};

#[cfg(feature = "llama")]
use crate::llama;
use crate::{
    engine::Engine,
    openai, scripted,
    service::{Bounds, Service},
    settings::{Kind, Settings, default_queue},
};

/// Why a worker cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The scripted engine cannot start.
    #[error(transparent)]
    Scripted(#[from] scripted::Error),
    /// The engine that speaks to an OpenAI-compatible server cannot start.
    #[error(transparent)]
    Openai(#[from] openai::Error),
    /// The llama engine cannot start.
    #[cfg(feature = "llama")]
    #[error(transparent)]
    Llama(#[from] llama::Error),
    /// The listener failed.
    #[error(transparent)]
    Serve(#[from] grpc::Error),
}

impl chassis::process::Fault for Error {
    fn is_of_setting(&self) -> bool {
        match self {
            Self::Scripted(scripted::Error::NoModel) => true,
            #[cfg(feature = "llama")]
            Self::Llama(_) => false,
            Self::Openai(error) => !matches!(error, openai::Error::Client(_)),
            Self::Serve(_) => false,
        }
    }
}

/// Makes the engine, then serves until draining has begun and the last answer has ended. It listens from the start but does not
/// answer before the engine is there: a router takes that for a worker that is still being dialled.
///
/// # Errors
/// The engine cannot be made, or the listener fails.
pub async fn run(settings: Settings, listener: impl Listener, drain: Drain) -> Result<(), Error> {
    let made = tokio::select! {
        made = engine(&settings, &drain) => made?,
        () = drain.draining() => return Ok(()),
    };
    let bounds = bounds(&settings, &*made);
    serve(made, bounds, listener, drain).await
}

/// Serves an engine that is there already.
///
/// # Errors
/// The listener fails.
pub async fn serve(engine: Arc<dyn Engine>, bounds: Bounds, listener: impl Listener, drain: Drain) -> Result<(), Error> {
    let service = Service::new(Arc::clone(&engine), bounds, &drain);
    tracing::info!(
        address = listener.address(),
        seats = engine.seats(),
        queue = bounds.queue,
        "the worker serves"
    );
    let services = grpc::Services::new(proto::FILE_DESCRIPTOR_SET)?.with(service.clone().into_server());
    let served = services.serve(listener, drain.clone()).await;
    // Answers that nobody reads now may still be asked for by another router on an open exchange, or end by themselves.
    if served.is_ok() {
        tokio::select! {
            () = service.drained() => {}
            () = drain.cut() => {}
        }
    }
    engine.stop().await;
    Ok(served?)
}

async fn engine(settings: &Settings, drain: &Drain) -> Result<Arc<dyn Engine>, Error> {
    Ok(match settings.engine {
        #[cfg(feature = "llama")]
        Kind::Llama => Box::pin(llama::Llama::load(settings.llama.clone())).await?, // it fetches a model, perhaps: a large future
        Kind::Openai => openai::Openai::connect(&settings.openai, drain).await?,
        Kind::Scripted => scripted::Scripted::start(&settings.scripted, drain)?,
    })
}

fn bounds(settings: &Settings, engine: &dyn Engine) -> Bounds {
    Bounds {
        queue: settings.worker_queue.unwrap_or_else(|| default_queue(engine.seats())),
        unattended_grace: settings.unattended_grace,
        retention: settings.worker_retention,
    }
}
