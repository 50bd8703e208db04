//! `EngineService`, as every worker serves it over whatever engine it has.
//!
//! A call is translated here and done elsewhere: [`answers`] starts, finds and ends answers, `exchange` and `single` send what
//! their readers want, `load` tells how busy the worker is. No rule about answers lives in this file.

mod answers;
mod exchange;
mod hold;
mod load;
mod opening;
mod single;

use std::{pin::Pin, sync::Arc, time::Duration};

use chassis::{drain::Drain, trace::TRACEPARENT};
use futures_util::Stream;
use proto::{
    MAX_DECODED_MESSAGE, MAX_ENCODED_MESSAGE,
    v1::{
        AbortRequest, AbortResponse, AttachRequest, CountTokensRequest, CountTokensResponse, EmbedRequest, EmbedResponse, EngineCommand,
        Failure, GenerateRequest, ListModelsRequest, ListModelsResponse, Load, Reason, WarmResponse, WatchLoadRequest,
        engine_service_server::EngineService, engine_service_server::EngineServiceServer,
    },
};
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status, Streaming};

use crate::{engine::Engine, request};
use answers::Answers;
use exchange::Exchange;
use opening::Opening;
use single::Single;

/// Requests for vectors at once: each may bring 2,048 texts.
const EMBEDS: usize = 32;
/// The most texts of one request for vectors.
const EMBED_INPUTS: usize = 2048;

/// The bounds of the service.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Answers that may wait for a seat.
    pub queue: u32,
    /// How long an answer goes on that nobody reads.
    pub unattended_grace: Duration,
    /// How long an ended answer can be read again.
    pub retention: Duration,
}

/// The service of one worker. Cloning shares.
#[derive(Clone)]
pub struct Service {
    answers: Arc<Answers>,
    embeds: Arc<Semaphore>,
}

impl Service {
    /// A service over `engine`. A task of `drain` ends what nobody reads, and lasts until the last answer has ended.
    pub fn new(engine: Arc<dyn Engine>, bounds: Bounds, drain: &Drain) -> Self {
        let answers = Answers::new(engine, bounds, drain.clone());
        drain.spawn(Arc::clone(&answers).watch_over());
        Self {
            answers,
            embeds: Arc::new(Semaphore::new(EMBEDS)),
        }
    }

    /// The service for a listener.
    pub fn into_server(self) -> EngineServiceServer<Self> {
        EngineServiceServer::new(self)
            .max_decoding_message_size(MAX_DECODED_MESSAGE)
            .max_encoding_message_size(MAX_ENCODED_MESSAGE)
    }

    /// Waits until draining has begun and the last answer has ended.
    pub async fn drained(&self) {
        self.answers.drained().await;
    }
}

#[async_trait::async_trait]
impl EngineService for Service {
    type GenerateStream = Single;
    type AttachStream = Single;
    type BiGenerateStream = Exchange;
    type WatchLoadStream = Pin<Box<dyn Stream<Item = Result<Load, Status>> + Send>>;

    async fn generate(&self, request: Request<GenerateRequest>) -> Result<Response<Single>, Status> {
        let traceparent = request.metadata().get(TRACEPARENT).and_then(|value| value.to_str().ok());
        let traceparent = traceparent.unwrap_or_default().to_owned();
        let mut request = request.into_inner();
        if let Some(chat) = &mut request.request
            && chat.traceparent.is_empty()
        {
            chat.traceparent = traceparent;
        }
        let started = self.answers.enter(request)?.begin().await?;
        Ok(Response::new(Single::starting(started)))
    }

    async fn attach(&self, request: Request<AttachRequest>) -> Result<Response<Single>, Status> {
        let attached = self.answers.attach(request.get_ref())?;
        Ok(Response::new(Single::attached(attached, Opening::of(request.get_ref()))))
    }

    async fn bi_generate(&self, request: Request<Streaming<EngineCommand>>) -> Result<Response<Exchange>, Status> {
        Ok(Response::new(Exchange::new(Arc::clone(&self.answers), request.into_inner())))
    }

    async fn warm(&self, request: Request<GenerateRequest>) -> Result<Response<WarmResponse>, Status> {
        self.answers.warm(request.into_inner()).await?;
        Ok(Response::new(WarmResponse {}))
    }

    async fn abort(&self, request: Request<AbortRequest>) -> Result<Response<AbortResponse>, Status> {
        let request = request.get_ref();
        let was_running = self.answers.abort(&request.stream_id, request.epoch);
        Ok(Response::new(AbortResponse { was_running }))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        let request = request.into_inner();
        self.answers.refuse_if_draining()?;
        let inputs = request.inputs.len() + request.token_inputs.len();
        if inputs == 0 || inputs > EMBED_INPUTS {
            let message = format!("inputs has {inputs} texts; expected 1 to {EMBED_INPUTS}");
            return Err(Failure::invalid("inputs", message).into());
        }
        if !request.inputs.is_empty() && !request.token_inputs.is_empty() {
            return Err(Failure::invalid("token_inputs", "inputs and token_inputs exclude each other").into());
        }
        let full = |_| Failure::new(Reason::QueueFull, format!("{EMBEDS} requests for vectors are being served already"));
        let _place = self.embeds.try_acquire().map_err(full)?;
        Ok(Response::new(self.answers.engine().embed(request).await?))
    }

    async fn count_tokens(&self, request: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        self.answers.refuse_if_draining()?;
        let chat = request.into_inner().request.unwrap_or_default();
        request::check(&chat)?;
        request::check_sight(&chat, || self.answers.engine().models())?;
        Ok(Response::new(self.answers.engine().count_tokens(chat).await?))
    }

    async fn list_models(&self, _: Request<ListModelsRequest>) -> Result<Response<ListModelsResponse>, Status> {
        let models = self.answers.engine().models();
        Ok(Response::new(ListModelsResponse { models }))
    }

    async fn watch_load(&self, request: Request<WatchLoadRequest>) -> Result<Response<Self::WatchLoadStream>, Status> {
        let loads = load::watch(Arc::clone(&self.answers), request.get_ref().interval_ms);
        Ok(Response::new(Box::pin(loads)))
    }
}
