//! The one object of answers that do not stream.

use proto::v1::{FinishReason, Head, Usage};
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Shape,
    logprobs::{Likelihoods, logprobs},
};
use crate::door::{
    UsageOut,
    whole::{Choice, Whole},
};

/// Whole answers: the choices of all prompts, in their order.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextCompletion)]
pub(super) struct Answered {
    id: String,
    /// `text_completion`.
    object: &'static str,
    /// When the first answer was admitted, in seconds since 1970.
    created: i64,
    model: String,
    choices: Vec<ChoiceOut>,
    /// Of all answers.
    usage: UsageOut,
}

/// One choice.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TextChoice)]
struct ChoiceOut {
    text: String,
    index: usize,
    #[schema(required)]
    logprobs: Option<Likelihoods>,
    /// `stop`, `length` or `content_filter`.
    finish_reason: &'static str,
}

impl Answered {
    pub(super) fn new(shape: &Shape, answers: Vec<(Head, Whole)>) -> Self {
        let head = answers.first().map(|(head, _)| head.clone()).unwrap_or_default();
        let mut usage = Usage::default();
        let mut choices = Vec::new();
        for (prompt, (_, answer)) in answers.into_iter().enumerate() {
            add(&mut usage, answer.usage);
            let before = shape.echo.get(prompt).map_or("", String::as_str);
            for choice in answer.choices {
                choices.push(choice_out(choices.len(), before, &choice));
            }
        }
        Self {
            id: super::id(&head),
            object: "text_completion",
            created: head.created,
            model: head.model,
            choices,
            usage: crate::door::usage(usage),
        }
    }
}

fn add(sum: &mut Usage, usage: Usage) {
    sum.prompt_tokens += usage.prompt_tokens;
    sum.completion_tokens += usage.completion_tokens;
    sum.reasoning_tokens += usage.reasoning_tokens;
    sum.cached_tokens += usage.cached_tokens;
}

fn choice_out(index: usize, before: &str, choice: &Choice) -> ChoiceOut {
    ChoiceOut {
        text: format!("{before}{}", choice.text),
        index,
        logprobs: logprobs(&choice.logprobs),
        finish_reason: FinishReason::as_word(choice.finish),
    }
}
