//! What a request asks of this engine, checked: a prompt in tokens, and choices to make for it.
//!
//! [`Llama::prepare`](super::Llama) calls it, off the async threads: a long prompt takes its time. Nothing is begun here.

use std::sync::Arc;

use proto::v1::{ChatRequest, Entry, Failure, GenerateRequest, Reason, Sampling};

use super::{
    Loaded,
    choice::{Choice, Terms},
    resume, sample, shape,
    tokens::id,
};

/// The most choices, as `chat.proto` says.
const MAX_CHOICES: u32 = 8;
/// The most stop strings, and their longest in bytes, likewise.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// The most biased tokens, likewise.
const MAX_BIASES: usize = 1024;
/// The most alternatives to each token, likewise.
const MAX_TOP_LOGPROBS: u32 = 20;

/// An answer to make.
#[derive(Debug)]
pub(super) struct Work {
    /// The input, at least one token.
    pub(super) prompt: Vec<u32>,
    /// Its choices, in order; those that go on have what was made before.
    pub(super) choices: Vec<Choice>,
    /// How tokens are chosen.
    pub(super) sampling: sample::Settings,
    /// How many alternatives to report, if log probabilities are wanted.
    pub(super) logprobs: Option<usize>,
    /// Entries of tokens that were made elsewhere, which were not written there any more.
    pub(super) pending: Vec<Entry>,
    /// Only the cache is to be brought there.
    pub(super) warms: bool,
}

impl Work {
    /// Checks a request.
    ///
    /// # Errors
    /// Which field is wrong, and what was expected; or the input is too long.
    pub(super) fn check(loaded: &Arc<Loaded>, request: &GenerateRequest) -> Result<Self, Failure> {
        let chat = request.request.clone().unwrap_or_default();
        let count = chat.n.max(1);
        let most = MAX_CHOICES.min(loaded.seats);
        if count > most {
            return Err(Failure::invalid(
                "n",
                format!("{count} choices were asked for, and at most {most} can be made at once"),
            ));
        }
        let asked = chat.sampling.clone().unwrap_or_default();
        let sampling = sampling(&asked, &request.stream_id)?;
        let stops = stops(&asked.stop)?;
        let (prompt, thinking) = input(loaded, &chat)?;
        let left = loaded.context - prompt.len();
        let most = match chat.max_tokens {
            Some(0) => return Err(Failure::invalid("max_tokens", "it must be at least 1")),
            Some(most) => left.min(most as usize),
            None => left,
        };
        let terms = Terms {
            most,
            stops,
            shape: shape::of(loaded, &chat)?,
            manner: shape::manner(loaded, &chat, thinking)?,
            key: seed_of(&request.stream_id),
        };
        let mut choices: Vec<Choice> = (0..count).map(|index| Choice::new(index, terms.clone())).collect();
        let mut pending = Vec::new();
        for point in &request.resume {
            pending.extend(resume::replay(
                &loaded.vocabulary,
                &mut choices,
                point,
                resume::delivered(request, point.choice),
            )?);
        }
        let logprobs = asked.logprobs.then_some(asked.top_logprobs.min(MAX_TOP_LOGPROBS) as usize);
        Ok(Self {
            prompt,
            choices,
            sampling,
            logprobs,
            pending,
            warms: false,
        })
    }
}

/// The tokens of the input: the conversation as the model's template renders it, or a raw input to the letter. And whether it ends within a
/// thought.
///
/// # Errors
/// The template refuses it, or there is nothing.
pub(super) fn tokens(loaded: &Loaded, chat: &ChatRequest) -> Result<(Vec<u32>, bool), Failure> {
    if !chat.prompt_tokens.is_empty() {
        let known = loaded.vocabulary.len();
        return match chat.prompt_tokens.iter().find(|&&token| token as usize >= known) {
            Some(token) => Err(Failure::invalid(
                "prompt",
                format!("there is no token {token}: the model has {known} of them"),
            )),
            None => Ok((chat.prompt_tokens.clone(), false)),
        };
    }
    let text = if chat.raw {
        chat.prompt.clone()
    } else {
        loaded.template.render(chat, loaded.thoughts)?
    };
    let add_special = loaded.bos.is_empty() || !text.starts_with(&loaded.bos); // many templates bring it themselves
    let tokens = loaded.model.vocab().tokenize(text.as_bytes(), add_special, true);
    if tokens.is_empty() {
        return Err(Failure::invalid("messages", "the conversation is empty"));
    }
    let thinking = loaded.thoughts.is_some_and(|marks| text.trim_end().ends_with(marks.open));
    Ok((tokens.into_iter().map(id).collect(), thinking && !chat.raw))
}

/// The tokens of the input, with room for at least one more.
fn input(loaded: &Loaded, chat: &ChatRequest) -> Result<(Vec<u32>, bool), Failure> {
    let (tokens, thinking) = tokens(loaded, chat)?;
    if tokens.len() >= loaded.context {
        let message = format!(
            "the conversation takes {} tokens, and the model's context holds {} with at least one for the answer",
            tokens.len(),
            loaded.context
        );
        return Err(Failure {
            param: "messages".into(),
            ..Failure::new(Reason::ContextLengthExceeded, message)
        });
    }
    Ok((tokens, thinking))
}

fn sampling(asked: &Sampling, stream_id: &str) -> Result<sample::Settings, Failure> {
    let defaults = sample::Settings::default();
    if asked.logit_bias.len() > MAX_BIASES {
        return Err(Failure::invalid("logit_bias", format!("at most {MAX_BIASES} tokens can be biased")));
    }
    if asked.top_logprobs > MAX_TOP_LOGPROBS {
        return Err(Failure::invalid("top_logprobs", format!("at most {MAX_TOP_LOGPROBS} are reported")));
    }
    let mut bias: Vec<(u32, f32)> = asked.logit_bias.iter().map(|(&id, &bias)| (id, bias)).collect();
    bias.sort_unstable_by_key(|(id, _)| *id);
    for (_, bias) in &bias {
        within("logit_bias", Some(*bias), -100.0, 100.0, 0.0)?;
    }
    Ok(sample::Settings {
        temperature: within("temperature", asked.temperature, 0.0, 2.0, defaults.temperature)?,
        top_p: within("top_p", asked.top_p, f32::MIN_POSITIVE, 1.0, defaults.top_p)?,
        top_k: asked.top_k.map_or(defaults.top_k, |most| most as usize),
        min_p: within("min_p", asked.min_p, 0.0, 1.0, defaults.min_p)?,
        frequency_penalty: within("frequency_penalty", asked.frequency_penalty, -2.0, 2.0, defaults.frequency_penalty)?,
        presence_penalty: within("presence_penalty", asked.presence_penalty, -2.0, 2.0, defaults.presence_penalty)?,
        repetition_penalty: within(
            "repetition_penalty",
            asked.repetition_penalty,
            f32::MIN_POSITIVE,
            f32::MAX,
            defaults.repetition_penalty,
        )?,
        bias,
        seed: asked.seed.unwrap_or_else(|| seed_of(stream_id)),
    })
}

/// A seed for a request without one: the same wherever the answer goes on. FNV-1a (RFC 9923).
fn seed_of(stream_id: &str) -> u64 {
    stream_id.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn within(field: &str, value: Option<f32>, low: f32, high: f32, default: f32) -> Result<f32, Failure> {
    match value {
        None => Ok(default),
        Some(value) if (low..=high).contains(&value) => Ok(value),
        Some(value) => {
            let range = if high < f32::MAX {
                format!("from {low} to {high}")
            } else {
                "over 0".to_owned()
            };
            Err(Failure::invalid(field, format!("it is {value}, and must be {range}")))
        }
    }
}

fn stops(asked: &[String]) -> Result<Arc<[String]>, Failure> {
    if asked.len() > MAX_STOPS {
        return Err(Failure::invalid("stop", format!("at most {MAX_STOPS} stop strings are taken")));
    }
    if asked.iter().any(|stop| stop.is_empty() || stop.len() > MAX_STOP_BYTES) {
        return Err(Failure::invalid("stop", format!("a stop string has 1 to {MAX_STOP_BYTES} bytes")));
    }
    Ok(asked.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_out_of_bounds_name_their_field() {
        let cases = [
            (
                "temperature",
                Sampling {
                    temperature: Some(2.5),
                    ..Sampling::default()
                },
            ),
            (
                "temperature",
                Sampling {
                    temperature: Some(f32::NAN),
                    ..Sampling::default()
                },
            ),
            (
                "top_p",
                Sampling {
                    top_p: Some(0.0),
                    ..Sampling::default()
                },
            ),
            (
                "min_p",
                Sampling {
                    min_p: Some(-0.1),
                    ..Sampling::default()
                },
            ),
            (
                "frequency_penalty",
                Sampling {
                    frequency_penalty: Some(-3.0),
                    ..Sampling::default()
                },
            ),
            (
                "presence_penalty",
                Sampling {
                    presence_penalty: Some(3.0),
                    ..Sampling::default()
                },
            ),
            (
                "repetition_penalty",
                Sampling {
                    repetition_penalty: Some(0.0),
                    ..Sampling::default()
                },
            ),
            (
                "top_logprobs",
                Sampling {
                    top_logprobs: 21,
                    ..Sampling::default()
                },
            ),
            (
                "logit_bias",
                Sampling {
                    logit_bias: [(1, 101.0)].into(),
                    ..Sampling::default()
                },
            ),
        ];
        for (field, asked) in cases {
            assert_eq!(sampling(&asked, "").unwrap_err().param, field);
        }
        for stop in [vec![String::new()], vec!["x".repeat(257)], vec!["x".to_owned(); 17]] {
            assert_eq!(stops(&stop).unwrap_err().param, "stop");
        }
    }

    #[test]
    fn a_request_without_a_seed_has_the_same_one_everywhere() {
        let seed = |stream: &str| sampling(&Sampling::default(), stream).unwrap().seed;
        assert_eq!(seed("a"), seed("a"));
        assert_ne!(seed("a"), seed("b"));
    }
}
