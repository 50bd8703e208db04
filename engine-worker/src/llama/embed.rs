//! Texts to vectors of length 1: what the model makes of each token, pooled as it was trained to be.
//!
//! A context and a thread of their own do it, so that running answers don't wait. Which model: [`super::vectors`] has one for it; or the chat
//! model does it, whose scheduler makes the context then: llama.cpp allows contexts of one model to be made by one thread only.

use std::{
    num::NonZeroU32,
    sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    thread::Scope,
};

use llama_cpp_2::{
    context::{
        LlamaContext,
        params::{LlamaContextParams, LlamaPoolingType},
    },
    llama_backend::LlamaBackend,
    llama_batch::LlamaBatch,
    model::LlamaModel,
};
use proto::v1::{EmbedRequest, EmbedResponse, Embedding, Failure, Reason, Usage};
use tokio::sync::oneshot;

use super::{
    Loaded,
    tokens::{id, native},
};

/// The longest text in tokens, or less if the model was trained with less: pooling needs all of it to go through the model at once.
const MAX_TOKENS: u32 = 2048;
/// The most texts, as `chat.proto` says.
const MAX_INPUTS: usize = 2048;
/// Requests that may wait.
const QUEUE: usize = 16;

/// Texts, in tokens, and who wants their vectors.
pub(super) struct Embed {
    pub(super) inputs: Vec<Vec<u32>>,
    pub(super) reply: oneshot::Sender<Result<EmbedResponse, Failure>>,
}

/// A model that makes vectors.
#[derive(Clone, Copy)]
pub(super) struct Source<'model> {
    pub(super) model: &'model LlamaModel,
    pub(super) backend: &'model LlamaBackend,
    pub(super) threads: i32,
    pub(super) pooling: LlamaPoolingType,
    /// It is an encoder: all tokens see all others, and there is no cache.
    pub(super) encodes: bool,
}

impl<'model> Source<'model> {
    /// The chat model, which was not trained for this: the mean of all tokens.
    pub(super) fn chat(loaded: &'model Loaded) -> Self {
        Self {
            model: &loaded.model,
            backend: &loaded.backend,
            threads: loaded.threads,
            pooling: LlamaPoolingType::Mean,
            encodes: false,
        }
    }

    fn most(&self) -> u32 {
        MAX_TOKENS.min(self.model.n_ctx_train())
    }

    /// A context for it.
    pub(super) fn context(&self) -> Option<LlamaContext<'model>> {
        let size = self.most();
        let parameters = LlamaContextParams::default()
            .with_n_ctx(NonZeroU32::new(size))
            .with_n_batch(size)
            .with_n_ubatch(size)
            .with_n_threads(self.threads)
            .with_n_threads_batch(self.threads)
            .with_embeddings(true)
            .with_pooling_type(self.pooling)
            .with_no_perf(true);
        self.model.new_context(self.backend, parameters).ok()
    }
}

/// Tokenises the texts of a request.
///
/// # Errors
/// There are none or too many, or one is empty or too long; or the vectors cannot be cut to the length that is asked for.
pub(super) fn check(source: &Source<'_>, cuttable: bool, request: &EmbedRequest) -> Result<Vec<Vec<u32>>, Failure> {
    let count = request.inputs.len() + request.token_inputs.len();
    if count == 0 || count > MAX_INPUTS {
        return Err(Failure::invalid("input", format!("there must be 1 to {MAX_INPUTS} texts")));
    }
    let width = u32::try_from(source.model.n_embd()).unwrap_or(0);
    let wanted = request.dimensions;
    if wanted > width || (wanted > 0 && wanted < width && !cuttable) {
        let allowed = if cuttable { "at most" } else { "no other than" };
        return Err(Failure::invalid(
            "dimensions",
            format!("{wanted} components were asked for, and the model's vectors can have {allowed} {width}"),
        ));
    }
    let vocab = source.model.vocab();
    let texts = request
        .inputs
        .iter()
        .map(|text| Ok(vocab.tokenize(text.as_bytes(), true, false).into_iter().map(id).collect()));
    let around: Vec<u32> = vocab.tokenize(b"", true, false).into_iter().map(id).collect();
    let known = u32::try_from(vocab.n_tokens()).unwrap_or(0);
    let tokens = request
        .token_inputs
        .iter()
        .map(|tokens| match tokens.ids.iter().find(|id| **id >= known) {
            Some(id) => Err(Failure::invalid("input", format!("there is no token {id}: the model has {known}"))),
            None => Ok(between(&around, &tokens.ids)),
        });
    let most = source.most() as usize;
    let bounded = |(index, tokens): (usize, Result<Vec<u32>, Failure>)| {
        let tokens = tokens?;
        if tokens.is_empty() {
            return Err(Failure::invalid("input", format!("text {index} is empty")));
        }
        if tokens.len() > most {
            return Err(Failure {
                param: "input".into(),
                ..Failure::new(
                    Reason::ContextLengthExceeded,
                    format!("text {index} takes {} tokens, and at most {most} are taken", tokens.len()),
                )
            });
        }
        Ok(tokens)
    };
    texts.chain(tokens).enumerate().map(bounded).collect()
}

/// The tokens of a text between those that the model expects around one, unless they bring them.
fn between(around: &[u32], ids: &[u32]) -> Vec<u32> {
    match around.split_first() {
        Some((first, rest)) if ids.first() != Some(first) => [std::slice::from_ref(first), ids, rest].concat(),
        _ => ids.to_vec(),
    }
}

/// Hands a request to the embedder of the chat model, and starts it first if there is none yet.
pub(super) fn forward<'scope, 'model: 'scope>(
    loaded: &'model Loaded,
    scope: &'scope Scope<'scope, '_>,
    embedder: &mut Option<SyncSender<Embed>>,
    request: Embed,
) {
    if embedder.is_none() {
        *embedder = start(loaded, scope);
    }
    let Some(sender) = embedder else {
        let failure = Failure::new(Reason::Internal, "llama.cpp could not make a context for embeddings");
        let _ = request.reply.send(Err(failure));
        return;
    };
    if let Err(TrySendError::Full(request) | TrySendError::Disconnected(request)) = sender.try_send(request) {
        let _ = request
            .reply
            .send(Err(Failure::new(Reason::QueueFull, "too many texts wait to be embedded")));
    }
}

fn start<'scope, 'model: 'scope>(loaded: &'model Loaded, scope: &'scope Scope<'scope, '_>) -> Option<SyncSender<Embed>> {
    let source = Source::chat(loaded);
    let context = source.context()?;
    let (sender, requests) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name("llama-embed".into())
        .spawn_scoped(scope, move || run(context, &source, &requests))
        .ok()?;
    Some(sender)
}

/// Makes the vectors of one request after the other, until nobody is left to ask.
pub(super) fn run(mut context: LlamaContext<'_>, source: &Source<'_>, requests: &Receiver<Embed>) {
    let mut batch = LlamaBatch::new(source.most() as usize, 1);
    while let Ok(Embed { inputs, reply }) = requests.recv() {
        let mut response = EmbedResponse::default();
        let mut tokens = 0;
        let mut failed = None;
        for input in &inputs {
            if reply.is_closed() {
                break;
            }
            tokens += u32::try_from(input.len()).unwrap_or(u32::MAX);
            match vector(&mut context, &mut batch, source.encodes, input) {
                Some(values) => response.embeddings.push(Embedding { values }),
                None => failed = Some(Failure::new(Reason::Internal, "llama.cpp could not embed a text")),
            }
        }
        response.usage = Some(Usage {
            prompt_tokens: tokens,
            ..Usage::default()
        });
        let _ = reply.send(failed.map_or(Ok(response), Err));
    }
}

fn vector(context: &mut LlamaContext<'_>, batch: &mut LlamaBatch<'_>, encodes: bool, input: &[u32]) -> Option<Vec<f32>> {
    batch.clear();
    for (position, &token) in input.iter().enumerate() {
        batch.add(native(token), i32::try_from(position).ok()?, &[0], true).ok()?;
    }
    if encodes {
        context.encode(batch).ok()?;
    } else {
        context.clear_kv_cache();
        context.decode(batch).ok()?;
    }
    Some(normalised(context.embeddings_seq_ith(0).ok()?))
}

/// The first so many components of each vector, of length 1 again. 0: all.
pub(super) fn cut(mut response: EmbedResponse, dimensions: u32) -> EmbedResponse {
    for embedding in &mut response.embeddings {
        if dimensions > 0 && (dimensions as usize) < embedding.values.len() {
            embedding.values = normalised(&embedding.values[..dimensions as usize]);
        }
    }
    response
}

/// Scales to length 1. Nothing stays nothing.
fn normalised(values: &[f32]) -> Vec<f32> {
    let length = values.iter().map(|value| f64::from(*value).powi(2)).sum::<f64>().sqrt();
    let scale = if length > 0.0 { 1.0 / length } else { 0.0 };
    #[allow(clippy::cast_possible_truncation)] // back to the precision that came in
    values.iter().map(|value| (f64::from(*value) * scale) as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vectors_have_length_one() {
        assert_eq!(normalised(&[3.0, 4.0]), [0.6, 0.8]);
        assert_eq!(normalised(&[0.0, 0.0]), [0.0, 0.0]);
    }

    #[test]
    fn a_cut_vector_has_length_one_too() {
        let response = || EmbedResponse {
            embeddings: vec![Embedding {
                values: normalised(&[3.0, 4.0, 12.0]),
            }],
            ..EmbedResponse::default()
        };
        assert_eq!(cut(response(), 0), response());
        let values = &cut(response(), 2).embeddings[0].values;
        assert!((values[0] - 0.6).abs() < 1e-6 && (values[1] - 0.8).abs() < 1e-6);
    }

    #[test]
    fn tokens_stand_between_the_marks_that_the_model_expects() {
        assert_eq!(between(&[101, 102], &[5, 6]), [101, 5, 6, 102]);
        assert_eq!(between(&[101, 102], &[101, 5, 102]), [101, 5, 102]);
        assert_eq!(between(&[1], &[5]), [1, 5]);
        assert_eq!(between(&[], &[5]), [5]);
    }
}
