//! What every engine is: the seam between the service and whatever makes the tokens.
//!
//! An answer goes through an engine in two steps. [`Engine::prepare`] checks the request and tokenises it, and may refuse;
//! nobody holds a seat yet. When seats are free, [`Prepared::begin`] hands it an [`Answer`] to write.

use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use proto::v1::{ChatRequest, CountTokensResponse, EmbedRequest, EmbedResponse, Failure, GenerateRequest, Model};

use crate::answer::Answer;

/// Something that makes tokens.
#[async_trait]
pub trait Engine: Send + Sync + 'static {
    /// The models that it serves now. The first is the default.
    fn models(&self) -> Vec<Model>;

    /// Choices that it can make at once: its decode batch.
    fn seats(&self) -> u32;

    /// Checks a request and all that it asks for: the model, the context's length, the grammar, the resume point.
    ///
    /// # Errors
    /// What is wrong with the request, or with the engine.
    async fn prepare(&self, request: GenerateRequest) -> Result<Box<dyn Prepared>, Failure>;

    /// Answers were cancelled: an engine that sleeps between steps looks now. One that steps all the time need not.
    fn poke(&self) {}

    /// How it feels.
    fn vitals(&self) -> Vitals {
        Vitals::default()
    }

    /// Turns texts into vectors of length 1.
    ///
    /// # Errors
    /// The engine or the model cannot, or the input is wrong.
    async fn embed(&self, request: EmbedRequest) -> Result<EmbedResponse, Failure>;

    /// How many tokens the input of a request takes. Makes nothing.
    ///
    /// # Errors
    /// The request is wrong, or the engine cannot say.
    async fn count_tokens(&self, request: ChatRequest) -> Result<CountTokensResponse, Failure>;

    /// Ends its threads and connections. No answer runs any more.
    async fn stop(&self) {}
}

/// An answer that can begin as soon as there are seats.
pub trait Prepared: Send {
    /// The model that answers.
    fn model(&self) -> String;

    /// The input's length in tokens, or 0 if only a remote server will know.
    fn prompt_tokens(&self) -> u32;

    /// Seats that it takes: one for each choice.
    fn seats(&self) -> u32;

    /// Begins. Returns at once; entries follow through `answer`, which is dropped at its end.
    fn begin(self: Box<Self>, answer: Answer);

    /// Brings the KV cache to where the answer begins, and makes nothing. An engine without a cache of its own is warm.
    ///
    /// # Errors
    /// The engine failed at it.
    fn warm(self: Box<Self>) -> BoxFuture<'static, Result<(), Failure>> {
        Box::pin(async { Ok(()) })
    }
}

/// What an engine tells of itself for the worker's load.
#[derive(Clone, Copy, Debug, Default)]
pub struct Vitals {
    /// Cells of the KV cache, in tokens; 0 if there is none here.
    pub kv_cells: u32,
    /// Of these, used.
    pub kv_used: u32,
    /// Since the last decode step, while there is something to decode.
    pub last_step_age: Option<Duration>,
}
