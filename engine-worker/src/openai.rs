//! The engine that is somebody else's: any server that speaks OpenAI's chat completions (vLLM, SGLang, TGI, llama-server, Ollama), OpenAI's
//! Responses or Anthropic's Messages.
//!
//! A request becomes a body in the server's dialect (`dialect`), the body a call (`upstream`), the stream that comes back entries
//! (`hearing`: `events`, understood and `told`), all of it under clocks (`relay`). The server knows no token ids of ours, so an answer
//! that another worker began goes on only where the server can continue a text (`continuation`).

mod calls;
mod chat;
mod continuation;
mod count;
mod dialect;
mod events;
mod failure;
mod hearing;
mod messages;
mod relay;
mod responses;
mod settings;
mod told;
mod upstream;

use std::{path::PathBuf, sync::Arc, time::Duration};

use async_trait::async_trait;
use chassis::drain::Drain;
use parking_lot::RwLock;
use proto::v1::{
    ChatRequest, ChoiceEnd, CountTokensResponse, EmbedRequest, EmbedResponse, Failure, FinishReason, GenerateRequest, Model, Reason, Usage,
};

use crate::{
    answer::Answer,
    engine::{Engine, Prepared},
};
pub use continuation::Continues;
use continuation::Made;
pub use dialect::Dialect;
pub use hearing::understand;
use relay::{Call, Clocks};
pub use settings::{Secret, Settings};
use upstream::Upstream;

/// Between two tries to reach a server that is not there yet.
const RETRY: Duration = Duration::from_secs(1);

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is missing.
    #[error("UNBROKEN_UPSTREAM is not set; the openai engine needs the server's base address, such as http://127.0.0.1:8000/v1")]
    NoUpstream,
    /// The address is not one.
    #[error("UNBROKEN_UPSTREAM is {0:?}; expected the server's base address, such as http://127.0.0.1:8000/v1")]
    Address(String),
    /// The key cannot be read.
    #[error("UNBROKEN_UPSTREAM_KEY_FILE: cannot read {0}: {1}")]
    KeyFile(PathBuf, std::io::Error),
    /// Two settings contradict each other.
    #[error("UNBROKEN_UPSTREAM_CONTINUES is vllm, but a text can be continued only where UNBROKEN_UPSTREAM_DIALECT is chat")]
    Continues,
    /// The client cannot be made.
    #[error("cannot make an HTTP client: {0}")]
    Client(reqwest::Error),
}

/// The engine over another server.
pub struct Openai {
    upstream: Upstream,
    seats: u32,
    clocks: Clocks,
    models: Arc<RwLock<Vec<Model>>>,
    drain: Drain,
}

impl Openai {
    /// Waits until the server has told its models, however long that takes, and keeps asking for them from then on.
    ///
    /// # Errors
    /// A setting is wrong.
    pub async fn connect(settings: &Settings, drain: &Drain) -> Result<Arc<Self>, Error> {
        let upstream = Upstream::new(settings)?;
        let mut said = false;
        let models = loop {
            match upstream.models().await {
                Ok(models) if !models.is_empty() => break models,
                _ if said => {}
                Ok(_) => tracing::warn!("the upstream serves no model yet; waiting"),
                Err(failure) => tracing::warn!(%failure, "the upstream does not tell its models yet; waiting"),
            }
            said = true;
            tokio::time::sleep(RETRY).await;
        };
        let models = Arc::new(RwLock::new(models));
        drain.spawn_until_draining(refresh(upstream.clone(), Arc::clone(&models), settings.upstream_refresh));
        Ok(Arc::new(Self {
            upstream,
            seats: settings.upstream_seats,
            clocks: Clocks {
                first_token: settings.upstream_first_token,
                idle: settings.upstream_idle,
            },
            models,
            drain: drain.clone(),
        }))
    }

    /// Whether the server can do what the request asks, where that is to go on from a text.
    fn can_continue(&self, request: &GenerateRequest, chat: &ChatRequest, model: &Model) -> Result<(), Failure> {
        let cannot = |param: &str, what: &str| Failure {
            param: param.to_owned(),
            ..Failure::new(
                Reason::Unsupported,
                format!("the server behind this worker cannot go on {what} (UNBROKEN_UPSTREAM_CONTINUES)"),
            )
        };
        if model.continuation {
            return Ok(());
        }
        if request.position > 0 {
            return Err(cannot("resume", "with an answer that another began"));
        }
        // Servers of the dialect `messages` always go on from a last message of the assistant.
        if chat.continue_final_message && self.upstream.dialect() != Dialect::Messages {
            return Err(cannot("continue_final_message", "from a message of the assistant"));
        }
        Ok(())
    }

    /// The model of that name, or the first.
    fn model(&self, asked: &str) -> Result<Model, Failure> {
        let models = self.models.read();
        let found = models.iter().find(|model| asked.is_empty() || model.id == asked);
        found.cloned().ok_or_else(|| Failure {
            param: "model".to_owned(),
            ..Failure::new(
                Reason::ModelNotFound,
                format!("the server behind this worker does not serve the model {asked:?}"),
            )
        })
    }
}

/// Asks for the models again and again. A server that does not answer keeps those that it had: requests will show.
async fn refresh(upstream: Upstream, models: Arc<RwLock<Vec<Model>>>, every: Duration) {
    loop {
        tokio::time::sleep(every.max(RETRY)).await;
        if let Ok(fresh) = upstream.models().await
            && !fresh.is_empty()
        {
            *models.write() = fresh;
        }
    }
}

#[async_trait]
impl Engine for Openai {
    fn models(&self) -> Vec<Model> {
        self.models.read().clone()
    }

    fn seats(&self) -> u32 {
        self.seats
    }

    async fn prepare(&self, request: GenerateRequest) -> Result<Box<dyn Prepared>, Failure> {
        let chat = request
            .request
            .as_ref()
            .ok_or_else(|| Failure::invalid("request", "request is missing"))?;
        let model = self.model(&chat.model)?;
        self.can_continue(&request, chat, &model)?;
        let made = Made::of(&request, chat)?;
        let mut body = self.upstream.body(chat, &model.id)?;
        let goes_on = request.position == 0 || made.write(&mut body);
        let choices = chat.n.max(1);
        let usage = made.add_to(Usage::default());
        let call = goes_on.then(|| Call {
            request: self.upstream.ask(chat.raw, &body),
            dialect: self.upstream.dialect(),
            choices,
            made,
            clocks: self.clocks,
        });
        Ok(Box::new(Ready {
            call,
            usage,
            model: model.id,
            choices,
            drain: self.drain.clone(),
        }))
    }

    async fn embed(&self, mut request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        request.model = self.model(&request.model)?.id;
        self.upstream.embed(request).await
    }

    async fn count_tokens(&self, request: ChatRequest) -> Result<CountTokensResponse, Failure> {
        let model = self.model(&request.model)?;
        let counted = match self.upstream.count(&request, &model).await {
            Some(counted) => (counted, false),
            None => (count::estimate(&request), true),
        };
        Ok(CountTokensResponse {
            model: model.id,
            prompt_tokens: counted.0,
            estimated: counted.1,
        })
    }
}

/// A request that can be sent.
struct Ready {
    /// Nothing is asked of the server if the answer lacks nothing but its end.
    call: Option<Call>,
    /// What the answer has taken so far.
    usage: Usage,
    model: String,
    choices: u32,
    drain: Drain,
}

impl Prepared for Ready {
    fn model(&self) -> String {
        self.model.clone()
    }

    fn prompt_tokens(&self) -> u32 {
        0
    }

    fn seats(&self) -> u32 {
        self.choices
    }

    fn begin(self: Box<Self>, mut answer: Answer) {
        answer.set_usage(self.usage);
        match self.call {
            Some(call) => _ = self.drain.spawn(relay::relay(call, answer)),
            None => answer.finish(vec![ChoiceEnd {
                reason: FinishReason::Length.into(),
                ..ChoiceEnd::default()
            }]),
        }
    }
}
