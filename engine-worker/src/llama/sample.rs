//! Which token comes next: from raw logits, the request's settings and a number between 0 and 1.
//!
//! The scheduler uses it. Pure: the same logits, history and draw choose the same token, so that an answer that goes on
//! elsewhere chooses as an unbroken one. The order of the steps is: bias and penalties, temperature, `top_k`, `top_p`, `min_p`.

mod settings;

use std::{cmp::Ordering, collections::HashMap, mem};

pub(super) use self::settings::{Settings, mix};

/// How often each token was generated.
pub(super) type Counts = HashMap<u32, u32>;

/// A token that may come next.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Candidate {
    id: u32,
    logit: f32,
}

/// The most likely first; of equals the lower id, so that the order is total.
#[allow(clippy::trivially_copy_pass_by_ref)] // as sorting wants it
fn by_likelihood(a: &Candidate, b: &Candidate) -> Ordering {
    b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id))
}

/// All that the choice of one token depends on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Place<'a> {
    /// How it is chosen.
    pub(super) settings: &'a Settings,
    /// What was made before.
    pub(super) counts: &'a Counts,
    /// What the model says.
    pub(super) logits: &'a [f32],
    /// A number in [0, 1).
    pub(super) draw: f64,
}

/// The choosing of one token. Kept from token to token for its memory alone.
#[derive(Debug, Default)]
pub(super) struct Sampler {
    logits: Vec<f32>,
    candidates: Vec<Candidate>,
    weights: Vec<f64>,
}

/// How many of the most likely tokens a greedy choice looks at before it looks at all, when a grammar refuses the first.
const GREEDY_SHORTLIST: usize = 64;

impl Sampler {
    /// Chooses a token. `allows` is asked about the chosen one first, then about those that were also likely, and about all
    /// others only if it refused these: with a grammar each question is dear. `None` if it allows nothing.
    pub(super) fn choose(&mut self, place: Place<'_>, allows: impl FnMut(&[u32]) -> Vec<bool>) -> Option<u32> {
        let Place { settings, draw, .. } = place;
        if settings.takes_logits_as_they_are() {
            return self.choose_from(place.logits, settings, draw, allows);
        }
        let mut logits = mem::take(&mut self.logits);
        adjust(place, &mut logits);
        let chosen = self.choose_from(&logits, settings, draw, allows);
        self.logits = logits;
        chosen
    }

    /// Chooses a token where everything is allowed.
    pub(super) fn choose_freely(&mut self, place: Place<'_>) -> Option<u32> {
        self.choose(place, |ids| vec![true; ids.len()])
    }

    fn choose_from(&mut self, logits: &[f32], settings: &Settings, draw: f64, mut allows: impl FnMut(&[u32]) -> Vec<bool>) -> Option<u32> {
        if settings.is_greedy() {
            let first = argmax(logits)?;
            if allows(&[first]) == [true] {
                return Some(first);
            }
        }
        self.shortlist(logits, settings);
        if !settings.is_greedy() {
            let chosen = self.pick(draw)?;
            if allows(&[chosen]) == [true] {
                return Some(chosen);
            }
        }
        if !self.retain(&mut allows) {
            self.candidates.clear();
            self.candidates.extend(all(logits));
            if !self.retain(&mut allows) {
                return None;
            }
            self.narrow(settings);
        }
        self.pick(draw)
    }

    /// Makes the candidates: the most likely ones where a bound says so, with their weights.
    fn shortlist(&mut self, logits: &[f32], settings: &Settings) {
        self.candidates.clear();
        let most = if settings.is_greedy() { GREEDY_SHORTLIST } else { settings.top_k };
        if most == 0 {
            self.candidates.extend(all(logits));
        } else {
            most_likely(logits, most, &mut self.candidates);
        }
        self.narrow(settings);
    }

    /// Cuts the candidates by `top_k`, `top_p` and `min_p`, and weighs them. Greedy ones are only sorted.
    fn narrow(&mut self, settings: &Settings) {
        if settings.is_greedy() {
            self.candidates.sort_unstable_by(by_likelihood);
            self.weights.clear();
            self.weights.resize(self.candidates.len(), 0.0);
            if let Some(first) = self.weights.first_mut() {
                *first = 1.0;
            }
            return;
        }
        let sorted = settings.top_k > 0 || settings.top_p < 1.0 || settings.min_p > 0.0;
        if sorted {
            if settings.top_k > 0 && self.candidates.len() > settings.top_k {
                self.candidates.select_nth_unstable_by(settings.top_k - 1, by_likelihood);
                self.candidates.truncate(settings.top_k);
            }
            self.candidates.sort_unstable_by(by_likelihood);
        }
        self.weigh(settings.temperature);
        if sorted {
            let keep = kept(&self.weights, f64::from(settings.top_p), f64::from(settings.min_p));
            self.candidates.truncate(keep);
            self.weights.truncate(keep);
        }
    }

    fn weigh(&mut self, temperature: f32) {
        let highest = self.candidates.iter().map(|one| one.logit).fold(f32::NEG_INFINITY, f32::max);
        self.weights.clear();
        let weights = self
            .candidates
            .iter()
            .map(|one| f64::from((one.logit - highest) / temperature).exp());
        self.weights.extend(weights);
    }

    /// Keeps the candidates that are allowed, with their weights. Says whether any are left.
    fn retain(&mut self, allows: &mut impl FnMut(&[u32]) -> Vec<bool>) -> bool {
        let ids: Vec<u32> = self.candidates.iter().map(|one| one.id).collect();
        let allowed = allows(&ids);
        self.weights.resize(self.candidates.len(), 0.0);
        let mut keep = allowed.iter();
        self.candidates.retain(|_| keep.next() == Some(&true));
        let mut keep = allowed.iter();
        self.weights.retain(|_| keep.next() == Some(&true));
        if let Some(first) = self.weights.first_mut()
            && *first <= 0.0
        {
            *first = 1.0; // greedy: the first that is left
        }
        !self.candidates.is_empty()
    }

    /// The candidate at this place of the cumulated weights.
    fn pick(&self, draw: f64) -> Option<u32> {
        let total: f64 = self.weights.iter().sum();
        let mut left = draw * total;
        for (candidate, weight) in self.candidates.iter().zip(&self.weights) {
            left -= weight;
            if left < 0.0 {
                return Some(candidate.id);
            }
        }
        self.candidates
            .iter()
            .zip(&self.weights)
            .rev()
            .find(|(_, weight)| **weight > 0.0)
            .map(|(last, _)| last.id) // rounding
    }
}

/// Copies the logits, biased and penalised.
fn adjust(place: Place<'_>, into: &mut Vec<f32>) {
    let Place {
        settings, counts, logits, ..
    } = place;
    into.clear();
    into.extend_from_slice(logits);
    for &(id, bias) in &settings.bias {
        if let Some(logit) = into.get_mut(id as usize) {
            *logit += bias;
        }
    }
    if !settings.penalises() {
        return;
    }
    for (&id, &count) in counts {
        let Some(logit) = into.get_mut(id as usize) else { continue };
        *logit = if *logit > 0.0 {
            *logit / settings.repetition_penalty
        } else {
            *logit * settings.repetition_penalty
        };
        #[allow(clippy::cast_precision_loss)] // counts are far below 2^24
        let times = count as f32;
        *logit -= times * settings.frequency_penalty + settings.presence_penalty;
    }
}

fn all(logits: &[f32]) -> impl Iterator<Item = Candidate> + '_ {
    (0u32..).zip(logits).map(|(id, &logit)| Candidate { id, logit })
}

/// Logits that are looked at together: their highest is found with vector instructions, and mostly says that none of them matters.
const BLOCK: usize = 64;

/// The highest of a block.
fn highest(block: &[f32]) -> f32 {
    let (rows, rest) = block.as_chunks::<8>();
    let mut lanes = [f32::NEG_INFINITY; 8];
    for row in rows {
        for (lane, &logit) in lanes.iter_mut().zip(row) {
            *lane = if logit > *lane { logit } else { *lane };
        }
    }
    lanes.into_iter().chain(rest.iter().copied()).fold(f32::NEG_INFINITY, f32::max)
}

/// The most likely token; of equals the lowest id. `None` for no logits.
fn argmax(logits: &[f32]) -> Option<u32> {
    let (mut best, mut from) = (f32::NEG_INFINITY, 0);
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        let highest = highest(block);
        if highest > best {
            (best, from) = (highest, index * BLOCK);
        }
    }
    let within = logits[from..].iter().position(|&logit| logit >= best)?;
    u32::try_from(from + within).ok()
}

/// Collects the `most` most likely tokens, in any order: one pass that lets few tokens through, and no sort of all.
fn most_likely(logits: &[f32], most: usize, into: &mut Vec<Candidate>) {
    let mut floor = f32::NEG_INFINITY;
    for (index, block) in logits.chunks(BLOCK).enumerate() {
        if into.len() >= most && highest(block) <= floor {
            continue;
        }
        for (offset, &logit) in block.iter().enumerate() {
            if into.len() >= most && logit <= floor {
                continue;
            }
            let Ok(id) = u32::try_from(index * BLOCK + offset) else { return };
            into.push(Candidate { id, logit });
            if into.len() >= most * 4 {
                into.select_nth_unstable_by(most - 1, by_likelihood);
                into.truncate(most);
                floor = into.last().map_or(floor, |last| last.logit);
            }
        }
    }
    if into.len() > most {
        into.select_nth_unstable_by(most - 1, by_likelihood);
        into.truncate(most);
    }
}

/// How many of the weights, highest first, `top_p` and `min_p` keep: one at least.
fn kept(weights: &[f64], top_p: f64, min_p: f64) -> usize {
    let Some(&highest) = weights.first() else { return 0 };
    let total: f64 = weights.iter().sum();
    let mut sum = 0.0;
    let mut keep = 0;
    for &weight in weights {
        if keep > 0 && (sum >= top_p * total || weight < min_p * highest) {
            break;
        }
        sum += weight;
        keep += 1;
    }
    keep
}

/// The natural logarithm of a token's probability, and the `most` most likely tokens with theirs, by the model's own distribution.
pub(super) fn logprobs(logits: &[f32], chosen: u32, most: usize) -> (f32, Vec<(u32, f32)>) {
    let highest = logits.chunks(BLOCK).map(highest).fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|&logit| f64::from(logit - highest).exp()).sum();
    #[allow(clippy::cast_possible_truncation)] // a logarithm of a count
    let log_sum = highest + sum.ln() as f32;
    let mut top = Vec::new();
    if most > 0 {
        most_likely(logits, most, &mut top);
        top.sort_unstable_by(by_likelihood);
    }
    let of = |id: u32| logits.get(id as usize).copied().unwrap_or(f32::NEG_INFINITY) - log_sum;
    (of(chosen), top.into_iter().map(|one| (one.id, of(one.id))).collect())
}

#[cfg(test)]
#[allow(clippy::float_cmp)] // equal to the last bit is what is asked
mod tests;
