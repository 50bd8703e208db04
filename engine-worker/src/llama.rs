//! The `llama` engine: llama.cpp in this process, one model, continuous batching.
//!
//! [`Llama::load`] loads the model and starts one thread, the `scheduler`, which owns all that llama.cpp changes. What can be done
//! without it is done before: [`Engine::prepare`] renders the chat template, tokenises, compiles the grammar and replays a resume point.
//!
//! The files, as an answer passes them: `request` (with `template` and `conversation`, `resume`; `shape`, `tools`, `schema` and `grammar`) → `ready` → `scheduler` (with
//! `slots`, `cache`, `batch`) → `running` → `sample` → `choice` (with `utf8`, `speech` and `stop`) → `said` → [`Answer`](crate::answer::Answer). What decides (`slots`,
//! `batch`, `sample`, `choice`, `speech`, `stop`, `utf8`, `said`) is pure; what calls llama.cpp does as decided.
//!
//! Does not know the wire, the journal's readers or the queue before the seats: that is the service.

use std::{
    path::Path,
    sync::{
        Arc,
        mpsc::{SyncSender, sync_channel},
    },
    thread::JoinHandle,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use parking_lot::Mutex;
use proto::v1::{ChatRequest, CountTokensResponse, EmbedRequest, EmbedResponse, Failure, GenerateRequest, Model, Reason};
use tokio::sync::oneshot;

use crate::{
    engine::{Engine, Prepared, Vitals},
    model,
};

mod batch;
mod cache;
mod choice;
mod conversation;
mod embed;
mod error;
mod gauges;
mod grammar;
mod loaded;
mod log;
mod ready;
mod request;
mod resume;
mod running;
mod said;
mod sample;
mod scheduler;
mod schema;
mod settings;
mod shape;
mod slots;
mod speech;
mod stop;
mod template;
mod tokens;
mod tools;
mod utf8;
mod vectors;
mod watch;

use embed::{Embed, Source};
use gauges::Gauges;
use loaded::Loaded;
use ready::{Ready, refusal};
use request::Work;
use scheduler::Command;
use vectors::Vectors;

pub use error::Error;
pub use loaded::backend;
pub use settings::Settings;
pub use speech::ToolFormat;

/// Commands that may wait for the scheduler, which takes all of them between two steps.
const COMMANDS: usize = 256;

/// The engine.
pub struct Llama {
    loaded: Arc<Loaded>,
    gauges: Arc<Gauges>,
    created: i64,
    /// A model of its own for vectors.
    vectors: Option<Vectors>,
    /// Whether the chat model makes them.
    vectors_by_chat: bool,
    commands: SyncSender<Command>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Llama {
    /// Gets the model file, loads it and starts the scheduler.
    ///
    /// # Errors
    /// [`enum@Error`].
    pub async fn load(settings: Settings) -> Result<Arc<Self>, Error> {
        loaded::check_processor()?;
        let path = model::locate(&settings.source).await?;
        tokio::task::spawn_blocking(move || Self::open(&settings, &path))
            .await
            .unwrap_or_else(|panicked| Err(Error::Thread(panicked.into())))
    }

    fn open(settings: &Settings, path: &Path) -> Result<Arc<Self>, Error> {
        let vectors = Vectors::of(settings)?;
        let loaded = Arc::new(loaded::load(settings, path)?);
        let loaded_chats = loaded.chat;
        let gauges = Arc::new(Gauges::new());
        let (commands, receiver) = sync_channel(COMMANDS);
        let thread = scheduler::spawn(Arc::clone(&loaded), Arc::clone(&gauges), receiver)?;
        tracing::info!(
            model = loaded.id,
            seats = loaded.seats,
            context = loaded.context,
            threads = loaded.threads,
            exact = loaded.exact,
            gpu = loaded.gpu,
            "the model is loaded"
        );
        Ok(Arc::new(Self {
            loaded,
            gauges,
            created: SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0)),
            // A model that can do nothing else makes its vectors itself.
            vectors_by_chat: !loaded_chats || model::Vectors::parse(settings.llama_vectors.as_deref())?.are_by_chat(),
            vectors: vectors.filter(|_| loaded_chats),
            commands,
            thread: Mutex::new(Some(thread)),
        }))
    }
}

/// Ends the scheduler, and waits for that: for a step at most.
fn end(commands: &SyncSender<Command>, scheduler: JoinHandle<()>) {
    let _ = commands.send(Command::Stop);
    let _ = scheduler.join();
}

impl Drop for Llama {
    /// Ends what nobody has [stopped](Engine::stop): llama.cpp must not run any more when the process ends.
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get_mut().take() {
            end(&self.commands, thread);
        }
    }
}

impl Llama {
    fn check_model(&self, asked: &str) -> Result<(), Failure> {
        if asked.is_empty() || asked == self.loaded.id {
            return Ok(());
        }
        let message = format!("there is no model `{asked}` here, but `{}`", self.loaded.id);
        Err(Failure {
            param: "model".into(),
            ..Failure::new(Reason::ModelNotFound, message)
        })
    }
}

#[async_trait]
impl Engine for Llama {
    fn models(&self) -> Vec<Model> {
        let own = Model {
            id: self.loaded.id.clone(),
            context_length: u32::try_from(self.loaded.context).unwrap_or(u32::MAX),
            created: self.created,
            chat: self.loaded.chat,
            embeddings: self.vectors_by_chat,
            continuation: true,
            engine: "llama".into(),
            images: false,
        };
        let vectors = self.vectors.as_ref().map(|vectors| Model {
            id: vectors.name().to_owned(),
            created: self.created,
            embeddings: true,
            engine: "llama".into(),
            ..Model::default()
        });
        std::iter::once(own).chain(vectors).collect()
    }

    fn seats(&self) -> u32 {
        self.loaded.seats
    }

    async fn prepare(&self, request: GenerateRequest) -> Result<Box<dyn Prepared>, Failure> {
        if !self.loaded.chat {
            return Err(Failure::new(Reason::Unsupported, "this model makes vectors only"));
        }
        self.check_model(request.request.as_ref().map_or("", |chat| chat.model.as_str()))?;
        let loaded = Arc::clone(&self.loaded);
        let work = blocking(move || Work::check(&loaded, &request)).await?;
        Ok(Box::new(Ready {
            work,
            model: self.loaded.id.clone(),
            commands: self.commands.clone(),
        }))
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            kv_cells: self.loaded.cells(),
            kv_used: self.gauges.used(),
            last_step_age: self.gauges.step_age(),
        }
    }

    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        if let Some(vectors) = &self.vectors
            && (request.model.is_empty() || request.model == vectors.name())
        {
            return vectors.embed(request).await;
        }
        self.check_model(&request.model)?;
        if !self.vectors_by_chat {
            return Err(Failure {
                param: "model".into(),
                ..Failure::new(Reason::Unsupported, "this model makes no vectors (UNBROKEN_EMBEDDING_MODEL)")
            });
        }
        let dimensions = request.dimensions;
        let loaded = Arc::clone(&self.loaded);
        let inputs = blocking(move || embed::check(&Source::chat(&loaded), false, &request)).await?;
        let (reply, response) = oneshot::channel();
        self.commands
            .try_send(Command::Embed(Embed { inputs, reply }))
            .map_err(|error| refusal(&error))?;
        let response = response
            .await
            .unwrap_or_else(|_| Err(Failure::new(Reason::Unavailable, "the engine has stopped")))?;
        Ok(EmbedResponse {
            model: self.loaded.id.clone(),
            ..embed::cut(response, dimensions)
        })
    }

    async fn count_tokens(&self, request: ChatRequest) -> Result<CountTokensResponse, Failure> {
        self.check_model(&request.model)?;
        let loaded = Arc::clone(&self.loaded);
        let (tokens, _) = blocking(move || request::tokens(&loaded, &request)).await?;
        Ok(CountTokensResponse {
            model: self.loaded.id.clone(),
            prompt_tokens: u32::try_from(tokens.len()).unwrap_or(u32::MAX),
            estimated: false,
        })
    }

    async fn stop(&self) {
        if let Some(vectors) = &self.vectors {
            vectors.stop().await;
        }
        let Some(thread) = self.thread.lock().take() else { return };
        let commands = self.commands.clone();
        let _ = tokio::task::spawn_blocking(move || end(&commands, thread)).await;
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> Result<T, Failure> + Send + 'static) -> Result<T, Failure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(Failure::new(Reason::Internal, "the engine failed at this request")))
}
