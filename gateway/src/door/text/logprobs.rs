//! Log probabilities in the legacy shape: lists side by side.

use proto::v1::TokenLogprob;
use serde::Serialize;
use serde_json::{Map, Value};
use utoipa::ToSchema;

use crate::door::completions::likelihood;

/// What is known of each token, at the same place in each list.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextLogprobs)]
pub(super) struct Likelihoods {
    tokens: Vec<String>,
    token_logprobs: Vec<f32>,
    /// The most likely tokens, with their log probabilities.
    #[schema(value_type = Vec<Object>)]
    top_logprobs: Vec<Map<String, Value>>,
    /// Where in the text each begins, in characters.
    text_offset: Vec<usize>,
}

/// Of these tokens; `None` if there are none.
pub(super) fn logprobs(tokens: &[TokenLogprob]) -> Option<Likelihoods> {
    let offsets = tokens.iter().scan(0, |end, token| {
        let begin = *end;
        *end += token.token.chars().count();
        Some(begin)
    });
    let top = |token: &TokenLogprob| token.top.iter().map(|top| (top.token.clone(), likelihood(top).into())).collect();
    (!tokens.is_empty()).then(|| Likelihoods {
        tokens: tokens.iter().map(|token| token.token.clone()).collect(),
        token_logprobs: tokens.iter().map(likelihood).collect(),
        top_logprobs: tokens.iter().map(top).collect(),
        text_offset: offsets.collect(),
    })
}
