//! Texts to vectors: the mean of what the model makes of each token, scaled to length 1.
//!
//! It has a context and a thread of its own, so that running answers don't wait for it. The scheduler makes both when the first text
//! comes: llama.cpp allows contexts to be made by one thread only.

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
    llama_batch::LlamaBatch,
};
use proto::v1::{EmbedRequest, EmbedResponse, Embedding, Failure, Reason, Usage};

use super::{
    Loaded,
    scheduler::Embed,
    tokens::{id, native},
};

/// The longest text in tokens, or less if the model was trained with less: pooling needs all of it to go through the model at once.
const MAX_TOKENS: u32 = 2048;
/// The most texts, as `chat.proto` says.
const MAX_INPUTS: usize = 2048;
/// Requests that may wait.
const QUEUE: usize = 16;

/// Tokenises the texts of a request.
///
/// # Errors
/// There are none or too many, or one is empty or too long.
pub(super) fn check(loaded: &Loaded, request: &EmbedRequest) -> Result<Vec<Vec<u32>>, Failure> {
    if request.inputs.is_empty() || request.inputs.len() > MAX_INPUTS {
        return Err(Failure::invalid("input", format!("there must be 1 to {MAX_INPUTS} texts")));
    }
    let most = most(loaded) as usize;
    let tokenised = request.inputs.iter().enumerate().map(|(index, text)| {
        let tokens: Vec<u32> = loaded
            .model
            .vocab()
            .tokenize(text.as_bytes(), true, false)
            .into_iter()
            .map(id)
            .collect();
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
    });
    tokenised.collect()
}

fn most(loaded: &Loaded) -> u32 {
    MAX_TOKENS.min(loaded.trained)
}

/// Hands a request to the embedder, and starts it first if there is none yet.
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
    let size = most(loaded);
    let parameters = LlamaContextParams::default()
        .with_n_ctx(NonZeroU32::new(size))
        .with_n_batch(size)
        .with_n_ubatch(size)
        .with_n_threads(loaded.threads)
        .with_n_threads_batch(loaded.threads)
        .with_embeddings(true)
        .with_pooling_type(LlamaPoolingType::Mean)
        .with_no_perf(true);
    let context = loaded.model.new_context(&loaded.backend, parameters).ok()?;
    let (sender, requests) = sync_channel(QUEUE);
    std::thread::Builder::new()
        .name("llama-embed".into())
        .spawn_scoped(scope, move || run(context, &requests, size as usize))
        .ok()?;
    Some(sender)
}

fn run(mut context: LlamaContext<'_>, requests: &Receiver<Embed>, size: usize) {
    let mut batch = LlamaBatch::new(size, 1);
    while let Ok(Embed { inputs, reply }) = requests.recv() {
        let mut response = EmbedResponse::default();
        let mut tokens = 0;
        let mut failed = None;
        for input in &inputs {
            if reply.is_closed() {
                break;
            }
            tokens += u32::try_from(input.len()).unwrap_or(u32::MAX);
            match vector(&mut context, &mut batch, input) {
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

fn vector(context: &mut LlamaContext<'_>, batch: &mut LlamaBatch<'_>, input: &[u32]) -> Option<Vec<f32>> {
    context.clear_kv_cache();
    batch.clear();
    for (position, &token) in input.iter().enumerate() {
        batch.add(native(token), i32::try_from(position).ok()?, &[0], true).ok()?;
    }
    context.decode(batch).ok()?;
    Some(normalised(context.embeddings_seq_ith(0).ok()?))
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
}
