//! What a request may ask, whatever engine answers it. Pure rules; the service applies them before anything else happens.
//!
//! What depends on the model (its name, its context, whether it can do tools or grammars) the engine judges itself.

use std::ops::RangeInclusive;

use proto::v1::{ChatRequest, Failure, Model, Reason, Sampling, response_format::Format};

/// The most choices of one answer.
const CHOICES: u32 = 8;
/// The most stop strings.
const STOPS: usize = 16;
/// The most bytes of a stop string.
const STOP_BYTES: usize = 256;
/// The most entries of `logit_bias`.
const BIASES: usize = 1024;
/// The most likely tokens that are reported beside the chosen one.
const TOP_LOGPROBS: u32 = 20;
/// The most bytes of a JSON schema.
const SCHEMA_BYTES: usize = 64 * 1024;

/// Checks all that needs no model.
///
/// # Errors
/// Names the field and what was expected of it.
pub(crate) fn check(request: &ChatRequest) -> Result<(), Failure> {
    if request.prompt.is_empty() && request.messages.is_empty() && request.prompt_tokens.is_empty() {
        return Err(Failure::invalid(
            "messages",
            "messages is empty; at least one is needed, or a prompt",
        ));
    }
    if request.raw && (!request.messages.is_empty() || !request.tools.is_empty()) {
        return Err(Failure::invalid(
            "messages",
            "a raw request has a prompt, and neither messages nor tools",
        ));
    }
    if request.raw && request.prompt.is_empty() == request.prompt_tokens.is_empty() {
        return Err(Failure::invalid("prompt", "a raw request has either prompt or prompt_tokens"));
    }
    if !request.raw && !request.prompt_tokens.is_empty() {
        return Err(Failure::invalid("prompt_tokens", "prompt_tokens needs raw"));
    }
    if request.max_tokens == Some(0) {
        return Err(Failure::invalid("max_tokens", "max_tokens is 0; at least 1 is needed"));
    }
    if request.n > CHOICES {
        return Err(Failure::invalid(
            "n",
            format!("n is {}; at most {CHOICES} choices can be made", request.n),
        ));
    }
    if let Some(Format::JsonSchema(schema)) = request.response_format.as_ref().and_then(|format| format.format.as_ref())
        && schema.schema.len() > SCHEMA_BYTES
    {
        let message = format!("the schema is {} bytes long; at most {SCHEMA_BYTES} are read", schema.schema.len());
        return Err(Failure::invalid("response_format", message));
    }
    request.sampling.as_ref().map_or(Ok(()), check_sampling)
}

/// Refuses pictures that no model here sees: they may come with a conversation that another model began.
///
/// # Errors
/// [`Reason::Unsupported`].
pub(crate) fn check_sight(request: &ChatRequest, models: impl FnOnce() -> Vec<Model>) -> Result<(), Failure> {
    if request.messages.iter().all(|message| message.images.is_empty()) {
        return Ok(());
    }
    let named = |model: &&Model| request.model.is_empty() || model.id == request.model;
    if models().iter().filter(named).any(|model| model.images) {
        return Ok(());
    }
    Err(Failure {
        param: "model".to_owned(),
        ..Failure::new(
            Reason::Unsupported,
            "the conversation shows images, and this model does not see them",
        )
    })
}

fn check_sampling(sampling: &Sampling) -> Result<(), Failure> {
    const OVER_0: f32 = f32::MIN_POSITIVE;
    within("temperature", sampling.temperature, 0.0..=2.0, "0 to 2")?;
    within("top_p", sampling.top_p, OVER_0..=1.0, "over 0 and up to 1")?;
    within("min_p", sampling.min_p, 0.0..=1.0, "0 to 1")?;
    within("frequency_penalty", sampling.frequency_penalty, -2.0..=2.0, "-2 to 2")?;
    within("presence_penalty", sampling.presence_penalty, -2.0..=2.0, "-2 to 2")?;
    within(
        "repetition_penalty",
        sampling.repetition_penalty,
        OVER_0..=f32::MAX,
        "a finite number over 0",
    )?;
    if sampling.stop.len() > STOPS {
        let message = format!("stop has {} strings; at most {STOPS} are taken", sampling.stop.len());
        return Err(Failure::invalid("stop", message));
    }
    if sampling.stop.iter().any(|stop| stop.is_empty() || stop.len() > STOP_BYTES) {
        return Err(Failure::invalid("stop", format!("a stop string must have 1 to {STOP_BYTES} bytes")));
    }
    if sampling.logit_bias.len() > BIASES {
        let message = format!("logit_bias has {} entries; at most {BIASES} are taken", sampling.logit_bias.len());
        return Err(Failure::invalid("logit_bias", message));
    }
    for bias in sampling.logit_bias.values() {
        within("logit_bias", Some(*bias), -100.0..=100.0, "-100 to 100")?;
    }
    if sampling.top_logprobs > TOP_LOGPROBS {
        let message = format!("top_logprobs is {}; at most {TOP_LOGPROBS} are reported", sampling.top_logprobs);
        return Err(Failure::invalid("top_logprobs", message));
    }
    Ok(())
}

/// A number that is not one (NaN) is in no range.
fn within(param: &'static str, value: Option<f32>, range: RangeInclusive<f32>, expected: &str) -> Result<(), Failure> {
    match value {
        Some(value) if !range.contains(&value) => Err(Failure::invalid(param, format!("{param} is {value}; expected {expected}"))),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::Reason;

    use super::*;

    fn sampled(sampling: Sampling) -> ChatRequest {
        ChatRequest {
            prompt: "hi".to_owned(),
            sampling: Some(sampling),
            ..ChatRequest::default()
        }
    }

    #[test]
    fn a_small_request_is_fine() {
        check(&sampled(Sampling::default())).unwrap();
    }

    #[test]
    fn every_refusal_names_its_field() {
        let prompt = || sampled(Sampling::default());
        let wrong = [
            ("messages", ChatRequest::default()),
            (
                "max_tokens",
                ChatRequest {
                    max_tokens: Some(0),
                    ..prompt()
                },
            ),
            ("n", ChatRequest { n: 9, ..prompt() }),
            (
                "temperature",
                sampled(Sampling {
                    temperature: Some(f32::NAN),
                    ..Sampling::default()
                }),
            ),
            (
                "temperature",
                sampled(Sampling {
                    temperature: Some(-0.1),
                    ..Sampling::default()
                }),
            ),
            (
                "top_p",
                sampled(Sampling {
                    top_p: Some(0.0),
                    ..Sampling::default()
                }),
            ),
            (
                "min_p",
                sampled(Sampling {
                    min_p: Some(1.5),
                    ..Sampling::default()
                }),
            ),
            (
                "repetition_penalty",
                sampled(Sampling {
                    repetition_penalty: Some(f32::INFINITY),
                    ..Sampling::default()
                }),
            ),
            (
                "stop",
                sampled(Sampling {
                    stop: vec![String::new()],
                    ..Sampling::default()
                }),
            ),
            (
                "stop",
                sampled(Sampling {
                    stop: vec!["a".to_owned(); 17],
                    ..Sampling::default()
                }),
            ),
            (
                "logit_bias",
                sampled(Sampling {
                    logit_bias: [(1, 101.0)].into(),
                    ..Sampling::default()
                }),
            ),
            (
                "top_logprobs",
                sampled(Sampling {
                    top_logprobs: 21,
                    ..Sampling::default()
                }),
            ),
        ];
        for (param, request) in wrong {
            let failure = check(&request).unwrap_err();
            assert_eq!(
                (failure.reason(), failure.param.as_str()),
                (Reason::InvalidRequest, param),
                "{failure}"
            );
            assert!(failure.message.contains(param) || param == "messages", "{failure}");
        }
    }
}
