//! A model of its own for vectors, which is fetched and loaded when the first text comes: who only chats does not pay for it.
//!
//! [`Llama`](super::Llama) asks. How a text becomes a vector is in [`super::embed`].

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, TrySendError, sync_channel},
    },
    thread::JoinHandle,
};

use llama_cpp_2::{context::params::LlamaPoolingType, llama_backend::LlamaBackend, model::LlamaModel};
use proto::v1::{EmbedRequest, EmbedResponse, Failure, Reason};
use tokio::sync::{Mutex, oneshot};

use super::{
    Error, Settings,
    embed::{self, Embed, Source},
    loaded,
};
use crate::model;

/// Requests that may wait.
const QUEUE: usize = 16;
/// Models whose vectors were trained to be cut (Matryoshka representation learning, <https://arxiv.org/abs/2205.13147>), by what is in their name.
const CUTTABLE: [&str; 8] = [
    "matryoshka",
    "nomic-embed-text-v1.5",
    "nomic-embed-text-v2",
    "mxbai-embed-large",
    "arctic-embed-m-v1.5",
    "arctic-embed-m-v2",
    "qwen3-embedding",
    "embeddinggemma",
];

/// The model, wherever it is by now.
pub(super) struct Vectors {
    name: String,
    asked: model::Vectors,
    settings: Settings,
    open: Mutex<Option<Open>>,
}

/// The model in memory, and the thread that owns its context.
struct Open {
    model: Arc<Own>,
    requests: SyncSender<Embed>,
    thread: JoinHandle<()>,
}

struct Own {
    model: LlamaModel,
    backend: Arc<LlamaBackend>,
    threads: i32,
    encodes: bool,
    cuttable: bool,
}

impl Vectors {
    /// The model that the settings name, if they name one. Nothing is fetched yet.
    ///
    /// # Errors
    /// The setting cannot be understood.
    pub(super) fn of(settings: &Settings) -> Result<Option<Self>, model::Error> {
        let asked = model::Vectors::parse(settings.llama_vectors.as_deref())?;
        Ok(asked.name().map(|name| Self {
            name,
            asked,
            settings: settings.clone(),
            open: Mutex::default(),
        }))
    }

    /// Its name in requests.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Fetches and loads it, if that has not been done.
    ///
    /// # Errors
    /// It cannot be had.
    pub(super) async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        let (model, requests) = self.opened().await?;
        let dimensions = request.dimensions;
        let own = Arc::clone(&model);
        let inputs = super::blocking(move || embed::check(&own.source(), own.cuttable, &request)).await?;
        let (reply, response) = oneshot::channel();
        requests.try_send(Embed { inputs, reply }).map_err(|error| match error {
            TrySendError::Full(_) => Failure::new(Reason::QueueFull, "too many texts wait to be embedded"),
            TrySendError::Disconnected(_) => Failure::new(Reason::Internal, "llama.cpp could not make a context for embeddings"),
        })?;
        let response = response
            .await
            .unwrap_or_else(|_| Err(Failure::new(Reason::Internal, "llama.cpp could not make a context for embeddings")))?;
        Ok(EmbedResponse {
            model: self.name.clone(),
            ..embed::cut(response, dimensions)
        })
    }

    async fn opened(&self) -> Result<(Arc<Own>, SyncSender<Embed>), Failure> {
        let mut open = self.open.lock().await;
        if open.is_none() {
            let failed = |error: &dyn std::fmt::Display| {
                let message = format!("the embedding model {} cannot be had: {error}", self.name);
                Failure::new(Reason::Unavailable, message)
            };
            let path = self.asked.locate(&self.settings.source).await.map_err(|error| failed(&error))?;
            let settings = self.settings.clone();
            let loaded = tokio::task::spawn_blocking(move || Open::load(&settings, &path)).await;
            let loaded = loaded.unwrap_or_else(|panicked| Err(Error::Thread(panicked.into())));
            *open = Some(loaded.map_err(|error| failed(&error))?);
            tracing::info!(model = self.name, "the embedding model is loaded");
        }
        match &*open {
            Some(open) => Ok((Arc::clone(&open.model), open.requests.clone())),
            None => Err(Failure::new(Reason::Internal, "the embedding model is not there")), // cannot be: it was opened above
        }
    }

    /// Ends its thread.
    pub(super) async fn stop(&self) {
        if let Some(open) = self.open.lock().await.take() {
            let _ = tokio::task::spawn_blocking(move || open.close()).await;
        }
    }
}

impl Drop for Vectors {
    /// Waits for its thread, as who [stops](Self::stop) it does.
    fn drop(&mut self) {
        if let Some(open) = self.open.get_mut().take() {
            open.close();
        }
    }
}

impl Open {
    fn close(self) {
        drop(self.requests);
        let _ = self.thread.join();
    }

    fn load(settings: &Settings, path: &Path) -> Result<Self, Error> {
        let backend = loaded::backend()?;
        let model = loaded::model(&backend, settings, path)?;
        let said = |key: &str| model.meta_val_str(key).unwrap_or_default().to_lowercase();
        let names = format!("{} {}", said("general.name"), path.to_string_lossy().to_lowercase()).replace(' ', "-");
        let model = Arc::new(Own {
            encodes: said("general.architecture").contains("bert"),
            cuttable: CUTTABLE.iter().any(|name| names.contains(name)),
            threads: settings.threads(),
            model,
            backend,
        });
        let (requests, waiting) = sync_channel(QUEUE);
        let own = Arc::clone(&model);
        let thread = std::thread::Builder::new().name("llama-embed".into()).spawn(move || {
            if let Some(context) = own.source().context() {
                embed::run(context, &own.source(), &waiting);
            }
        });
        Ok(Self {
            model,
            requests,
            thread: thread.map_err(Error::Thread)?,
        })
    }
}

impl Own {
    fn source(&self) -> Source<'_> {
        Source {
            model: &self.model,
            backend: &self.backend,
            threads: self.threads,
            pooling: LlamaPoolingType::Unspecified,
            encodes: self.encodes,
        }
    }
}
