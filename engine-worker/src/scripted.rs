//! The scripted engine: says what it is told, at the pace it is told. For tests and load, and an independent oracle: what it
//! says is a pure function ([`oracle`]), and a resume prefix that it never said is refused.
//!
//! One task owns all answers that run ([`schedule`]). It has no model; nothing here decides what readers see.

mod beat;
mod cut;
mod directive;
pub mod oracle;
mod plan;
mod prompt;
mod schedule;
mod settings;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use async_trait::async_trait;
use chassis::drain::Drain;
use proto::v1::{ChatRequest, CountTokensResponse, EmbedRequest, EmbedResponse, Embedding, Failure, GenerateRequest, Model, Reason, Usage};
use tokio::sync::mpsc;

use crate::{
    answer::Answer,
    engine::{Engine, Prepared, Vitals},
};
use beat::Beat;
use plan::Plan;
use schedule::{Order, Scheduler};
pub use settings::Settings;

/// Components of an embedding.
const DIMENSIONS: u32 = 64;

/// The engine cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A name is needed.
    #[error("UNBROKEN_SCRIPT_MODEL is empty; expected the name of the scripted model")]
    NoModel,
}

/// The scripted engine.
pub struct Scripted {
    settings: Settings,
    created: i64,
    orders: mpsc::Sender<Order>,
    beat: Arc<Beat>,
}

impl Scripted {
    /// Starts its one task, which lasts until [`Engine::stop`].
    ///
    /// # Errors
    /// See [`Error`].
    pub fn start(settings: &Settings, drain: &Drain) -> Result<Arc<Self>, Error> {
        if settings.script_model.is_empty() {
            return Err(Error::NoModel);
        }
        // Each answer holds a seat before it comes here, so a place for each seat is always enough.
        let (orders, inbox) = mpsc::channel(settings.script_seats as usize);
        let beat = Arc::new(Beat::default());
        drain.spawn(Scheduler::new(inbox, Arc::clone(&beat)).run());
        let created = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        Ok(Arc::new(Self {
            settings: settings.clone(),
            created: i64::try_from(created).unwrap_or(i64::MAX),
            orders,
            beat,
        }))
    }

    fn check_model(&self, model: &str) -> Result<(), Failure> {
        if model.is_empty() || model == self.settings.script_model {
            return Ok(());
        }
        let message = format!(
            "the model {model:?} is not here; this worker serves {:?}",
            self.settings.script_model
        );
        Err(Failure {
            param: "model".to_owned(),
            ..Failure::new(Reason::ModelNotFound, message)
        })
    }
}

#[async_trait]
impl Engine for Scripted {
    fn models(&self) -> Vec<Model> {
        vec![Model {
            id: self.settings.script_model.clone(),
            context_length: self.settings.script_context,
            created: self.created,
            chat: true,
            embeddings: true,
            continuation: true,
            engine: "scripted".to_owned(),
            images: false,
        }]
    }

    fn seats(&self) -> u32 {
        self.settings.script_seats
    }

    async fn prepare(&self, request: GenerateRequest) -> Result<Box<dyn Prepared>, Failure> {
        self.check_model(request.request.as_ref().map_or("", |chat| chat.model.as_str()))?;
        Ok(Box::new(Ready {
            plan: Plan::new(&request, &self.settings)?,
            model: self.settings.script_model.clone(),
            orders: self.orders.clone(),
        }))
    }

    fn poke(&self) {
        self.beat.poke();
    }

    fn vitals(&self) -> Vitals {
        Vitals {
            last_step_age: self.beat.age(),
            ..Vitals::default()
        }
    }

    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        self.check_model(&request.model)?;
        if !matches!(request.dimensions, 0 | DIMENSIONS) {
            let message = format!("dimensions is {}; the script's vectors have {DIMENSIONS}", request.dimensions);
            return Err(Failure::invalid("dimensions", message));
        }
        let ids = request.token_inputs.iter().map(|tokens| prompt::spelled(&tokens.ids));
        let inputs: Vec<String> = request.inputs.into_iter().chain(ids).collect();
        let embeddings = inputs.iter().map(|text| Embedding { values: vector(text) });
        Ok(EmbedResponse {
            model: self.settings.script_model.clone(),
            embeddings: embeddings.collect(),
            usage: Some(Usage {
                prompt_tokens: inputs.iter().map(|text| prompt::words(text)).sum(),
                ..Usage::default()
            }),
        })
    }

    async fn count_tokens(&self, request: ChatRequest) -> Result<CountTokensResponse, Failure> {
        self.check_model(&request.model)?;
        Ok(CountTokensResponse {
            model: self.settings.script_model.clone(),
            prompt_tokens: prompt::prompt_tokens(&prompt::messages(&request)),
            estimated: false,
        })
    }

    async fn stop(&self) {
        let _ = self.orders.send(Order::Stop).await; // it has stopped already if nobody takes it
    }
}

/// An answer that is planned.
struct Ready {
    plan: Plan,
    model: String,
    orders: mpsc::Sender<Order>,
}

impl Prepared for Ready {
    fn model(&self) -> String {
        self.model.clone()
    }

    fn prompt_tokens(&self) -> u32 {
        self.plan.prompt_tokens
    }

    fn seats(&self) -> u32 {
        self.plan.choices
    }

    fn begin(self: Box<Self>, answer: Answer) {
        if let Err(refused) = self.orders.try_send(Order::Begin(Box::new((self.plan, answer))))
            && let Order::Begin(order) = refused.into_inner()
        {
            order
                .1
                .fail(Failure::new(Reason::Unavailable, "the scripted engine takes no more answers"));
        }
    }
}

/// A vector of length 1 that hangs on the text alone.
fn vector(text: &str) -> Vec<f32> {
    let seed = oracle::hash([text.as_bytes()]);
    let component = |index: u64| f32::from((oracle::mix(seed ^ index) >> 48) as u16) / 32_768.0 - 1.0;
    let values: Vec<f32> = (0..DIMENSIONS.into()).map(component).collect();
    let length = values.iter().map(|value| value * value).sum::<f32>().sqrt();
    values.into_iter().map(|value| value / length).collect()
}
