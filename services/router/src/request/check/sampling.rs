//! What may be asked of the sampler.

use proto::v1::{Failure, Sampling};

use super::within;

/// Stop strings, and the bytes of one: the engine compares each with every token.
const MAX_STOPS: usize = 16;
const MAX_STOP_BYTES: usize = 256;
/// Entries of the logit bias.
const MAX_BIASES: usize = 1024;
/// Alternatives whose log probabilities are told.
const MAX_TOP_LOGPROBS: u32 = 20;

/// Judges how to sample.
///
/// # Errors
/// Names the first field that is wrong, and what was expected.
pub(super) fn check(sampling: &Sampling) -> Result<(), Failure> {
    ranged("sampling.temperature", sampling.temperature, 0.0, 2.0)?;
    ranged("sampling.top_p", sampling.top_p, 0.0, 1.0)?;
    if sampling.top_p == Some(0.0) {
        return Err(Failure::invalid("sampling.top_p", "sampling.top_p must be over 0"));
    }
    ranged("sampling.min_p", sampling.min_p, 0.0, 1.0)?;
    ranged("sampling.frequency_penalty", sampling.frequency_penalty, -2.0, 2.0)?;
    ranged("sampling.presence_penalty", sampling.presence_penalty, -2.0, 2.0)?;
    if let Some(penalty) = sampling.repetition_penalty
        && !(penalty.is_finite() && penalty > 0.0)
    {
        return Err(Failure::invalid(
            "sampling.repetition_penalty",
            "sampling.repetition_penalty must be over 0",
        ));
    }
    if sampling.stop.len() > MAX_STOPS {
        return Err(Failure::invalid(
            "sampling.stop",
            format!("at most {MAX_STOPS} stop strings are allowed"),
        ));
    }
    for stop in &sampling.stop {
        if stop.is_empty() || stop.len() > MAX_STOP_BYTES {
            return Err(Failure::invalid(
                "sampling.stop",
                format!("a stop string must have 1 to {MAX_STOP_BYTES} bytes"),
            ));
        }
    }
    if sampling.logit_bias.len() > MAX_BIASES {
        return Err(Failure::invalid(
            "sampling.logit_bias",
            format!("at most {MAX_BIASES} biases are allowed"),
        ));
    }
    for bias in sampling.logit_bias.values() {
        ranged("sampling.logit_bias", Some(*bias), -100.0, 100.0)?;
    }
    within(
        "sampling.top_logprobs",
        u64::from(sampling.top_logprobs),
        0,
        u64::from(MAX_TOP_LOGPROBS),
    )?;
    if sampling.top_logprobs > 0 && !sampling.logprobs {
        return Err(Failure::invalid(
            "sampling.top_logprobs",
            "sampling.top_logprobs needs sampling.logprobs",
        ));
    }
    Ok(())
}

fn ranged(field: &str, value: Option<f32>, least: f32, most: f32) -> Result<(), Failure> {
    match value {
        Some(value) if !(least..=most).contains(&value) => {
            Err(Failure::invalid(field, format!("{field} is {value}; it must be {least} to {most}")))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(change: impl FnOnce(&mut Sampling)) -> Result<(), String> {
        let mut sampling = Sampling::default();
        change(&mut sampling);
        check(&sampling).map_err(|failure| failure.param)
    }

    #[test]
    fn each_wrong_field_is_named() {
        let refused = |field: &str| Err(field.to_owned());
        assert_eq!(
            samples(|sampling| sampling.temperature = Some(2.1)),
            refused("sampling.temperature")
        );
        assert_eq!(
            samples(|sampling| sampling.temperature = Some(f32::NAN)),
            refused("sampling.temperature")
        );
        assert_eq!(samples(|sampling| sampling.top_p = Some(0.0)), refused("sampling.top_p"));
        assert_eq!(samples(|sampling| sampling.min_p = Some(-0.1)), refused("sampling.min_p"));
        assert_eq!(
            samples(|sampling| sampling.frequency_penalty = Some(-3.0)),
            refused("sampling.frequency_penalty")
        );
        assert_eq!(
            samples(|sampling| sampling.repetition_penalty = Some(0.0)),
            refused("sampling.repetition_penalty")
        );
        assert_eq!(samples(|sampling| sampling.stop = vec![String::new()]), refused("sampling.stop"));
        assert_eq!(
            samples(|sampling| sampling.stop = vec!["x".to_owned(); 17]),
            refused("sampling.stop")
        );
        assert_eq!(
            samples(|sampling| sampling.logit_bias = (0..1025).map(|id| (id, 0.0)).collect()),
            refused("sampling.logit_bias")
        );
        assert_eq!(samples(|sampling| sampling.top_logprobs = 3), refused("sampling.top_logprobs"));
    }
}
