//! The sampler against brute force.

use proptest::prelude::*;

use super::*;

fn settings(temperature: f32, top_k: usize, top_p: f32, min_p: f32) -> Settings {
    Settings {
        temperature,
        top_p,
        top_k,
        min_p,
        ..Settings::default()
    }
}

/// Chooses with nothing made before, and everything allowed.
fn chosen(settings: &Settings, logits: &[f32], draw: f64) -> Option<u32> {
    let counts = &Counts::new();
    Sampler::default().choose_freely(Place {
        settings,
        counts,
        logits,
        draw,
    })
}

/// What may be chosen, by the definitions: sort all, cut by each bound in turn.
fn may_be_chosen(settings: &Settings, logits: &[f32]) -> Vec<u32> {
    let mut sorted: Vec<Candidate> = all(logits).collect();
    sorted.sort_by(by_likelihood);
    if settings.top_k > 0 {
        sorted.truncate(settings.top_k);
    }
    let highest = sorted[0].logit;
    let weights: Vec<f64> = sorted
        .iter()
        .map(|one| f64::from((one.logit - highest) / settings.temperature).exp())
        .collect();
    sorted.truncate(kept(&weights, f64::from(settings.top_p), f64::from(settings.min_p)));
    sorted.iter().map(|one| one.id).collect()
}

fn logits() -> impl Strategy<Value = Vec<f32>> {
    prop::collection::vec((-80i8..80).prop_map(|tenths| f32::from(tenths) / 10.0), 1..600)
}

proptest! {
    #[test]
    fn greedy_takes_the_most_likely_and_of_equals_the_first(logits in logits()) {
        let highest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let first = logits.iter().position(|&logit| logit == highest).unwrap();
        let chosen = chosen(&settings(0.0, 0, 1.0, 0.0), &logits, 0.5);
        prop_assert_eq!(chosen, Some(u32::try_from(first).unwrap()));
    }

    #[test]
    fn only_what_every_bound_keeps_is_chosen(logits in logits(), draw in 0.0f64..1.0, top_k in 0usize..20, top_p in 0.05f32..=1.0, min_p in 0.0f32..1.0) {
        let settings = settings(0.7, top_k, top_p, min_p);
        let chosen = chosen(&settings, &logits, draw).unwrap();
        prop_assert!(may_be_chosen(&settings, &logits).contains(&chosen));
    }

    #[test]
    fn what_a_grammar_refuses_is_never_chosen(logits in logits(), draw in 0.0f64..1.0, greedy in any::<bool>(), modulus in 1u32..7) {
        let settings = settings(if greedy { 0.0 } else { 1.0 }, 5, 0.9, 0.0);
        let mut asked = 0;
        let chosen = Sampler::default().choose(Place { settings: &settings, counts: &Counts::new(), logits: &logits, draw }, |ids| {
            asked += 1;
            ids.iter().map(|id| id % modulus == modulus - 1).collect()
        });
        let possible = logits.len() >= modulus as usize;
        prop_assert_eq!(chosen.is_some(), possible);
        prop_assert!(chosen.is_none_or(|id| id % modulus == modulus - 1));
        prop_assert!(asked <= 3);
        if greedy && let Some(chosen) = chosen {
            let best = all(&logits).filter(|one| one.id % modulus == modulus - 1).min_by(by_likelihood).unwrap();
            prop_assert_eq!(chosen, best.id);
        }
    }

    #[test]
    fn the_most_likely_are_those_of_a_full_sort(logits in logits(), most in 1usize..40) {
        let mut some = Vec::new();
        most_likely(&logits, most, &mut some);
        some.sort_by(by_likelihood);
        let mut sorted: Vec<Candidate> = all(&logits).collect();
        sorted.sort_by(by_likelihood);
        sorted.truncate(most);
        prop_assert_eq!(some, sorted);
    }

    #[test]
    fn probabilities_add_up_to_one(logits in logits()) {
        let sum: f64 = (0..logits.len()).map(|id| f64::from(logprobs(&logits, u32::try_from(id).unwrap(), 0).0).exp()).sum();
        prop_assert!((sum - 1.0).abs() < 1e-3);
        let (first, top) = logprobs(&logits, argmax(&logits).unwrap(), 3);
        prop_assert_eq!(top[0].1, first);
    }
}

#[test]
fn draws_are_uniform_and_differ_by_seed_choice_and_position() {
    let settings = Settings {
        seed: 7,
        ..Settings::default()
    };
    let mut seen = std::collections::HashSet::new();
    let mut low = 0;
    for choice in 0..4 {
        for position in 0..1000 {
            let draw = settings.draw(choice, position);
            assert!((0.0..1.0).contains(&draw));
            low += u32::from(draw < 0.25);
            assert!(seen.insert(draw.to_bits()));
        }
    }
    assert!((900..1100).contains(&low), "{low} of 4000 draws in the first quarter");
    assert_ne!(
        settings.draw(0, 0),
        Settings {
            seed: 8,
            ..Settings::default()
        }
        .draw(0, 0)
    );
}

#[test]
fn choices_follow_the_distribution() {
    let logits = [0.0f32, 1.0, 2.0];
    let settings = settings(1.0, 0, 1.0, 0.0);
    let mut seen = [0u32; 3];
    for position in 0..10_000 {
        seen[chosen(&settings, &logits, settings.draw(0, position)).unwrap() as usize] += 1;
    }
    for (seen, expected) in seen.iter().zip([900.3, 2447.3, 6652.4]) {
        assert!((f64::from(*seen) - expected).abs() < 200.0, "{seen} against {expected}");
    }
}

#[test]
fn penalties_and_bias_move_the_choice() {
    let off = Settings {
        temperature: 0.0,
        ..Settings::default()
    };
    let presence = Settings {
        presence_penalty: 0.2,
        ..off.clone()
    };
    let frequency = Settings {
        frequency_penalty: 0.04,
        ..off.clone()
    };
    let repetition = Settings {
        repetition_penalty: 1.1,
        ..off.clone()
    };
    let bias = Settings {
        bias: vec![(2, 100.0), (99, 1.0)],
        ..off.clone()
    };
    let cases: [(&Settings, u32, u32); 7] = [
        (&off, 9, 0),
        (&presence, 1, 1),
        (&presence, 0, 0),
        (&frequency, 3, 1),
        (&frequency, 2, 0),
        (&repetition, 1, 1),
        (&bias, 0, 2),
    ];
    for (settings, times, expected) in cases {
        let counts = &if times > 0 { Counts::from([(0, times)]) } else { Counts::new() };
        let logits = &[5.0, 4.9, -1.0];
        let chosen = Sampler::default().choose_freely(Place {
            settings,
            counts,
            logits,
            draw: 0.0,
        });
        assert_eq!(chosen, Some(expected), "{settings:?}, made {times} times");
    }
}
