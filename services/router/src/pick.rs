//! Which worker answers: a pure choice among those that have room.
//!
//! A request goes to the worker that ranks first for its *affinity* (its conversation, else its first messages), because that one
//! most likely holds the prefix in its KV cache, as long as that worker's load stays within 1.25 of the mean. Past that, and for
//! requests without affinity, it is the less loaded of two drawn at random (Mitzenmacher, *The Power of Two Choices*, 2001).
//! Ranking is by rendezvous hashing (Thaler, Ravishankar, 1996), bounded as in Mirrokni, Thorup, Zadimoghaddam (2016).
//! [`crate::workers`] calls it. Health, models and draining are judged there.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use proto::v1::ChatRequest;

/// How far over the mean load the preferred worker may be, in quarters: 5 is 1.25.
const BOUND_QUARTERS: u64 = 5;
/// How many messages make the affinity of a request without a conversation: the instructions and the first question.
const FIRST_MESSAGES: usize = 2;

/// A worker that could take the request.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Candidate {
    /// A hash of its address.
    pub(crate) name: u64,
    /// Slots that are taken or promised.
    pub(crate) load: u32,
    /// Slots that it has, at least 1.
    pub(crate) slots: u32,
}

/// A stable hash of a worker's address.
pub(crate) fn name_of(address: &str) -> u64 {
    hash(address)
}

/// What should lead a request to the worker that holds its prefix. `None`: nothing that could be held.
pub(crate) fn affinity_of(request: &ChatRequest) -> Option<u64> {
    if !request.conversation_id.is_empty() {
        return Some(hash(&request.conversation_id));
    }
    // One message alone is a question that nobody has asked before; a few make a conversation that is sent whole each time.
    let first = request.messages.get(..FIRST_MESSAGES)?;
    let mut hasher = DefaultHasher::new();
    for message in first {
        (message.role, &message.text).hash(&mut hasher);
    }
    Some(hasher.finish())
}

/// The index of the worker to take; `None` if there are none. `random` is any number, for the drawing of two.
pub(crate) fn pick(candidates: &[Candidate], affinity: Option<u64>, random: u64) -> Option<usize> {
    let preferred = affinity.and_then(|key| first_ranked(candidates, key));
    match preferred {
        Some(index) if within_bound(candidates, index) => Some(index),
        _ => lighter_of_two(candidates, random),
    }
}

fn first_ranked(candidates: &[Candidate], key: u64) -> Option<usize> {
    (0..candidates.len()).max_by_key(|&index| hash(&(key, candidates[index].name)))
}

/// Whether one more answer leaves the worker within 1.25 of the mean load per slot.
fn within_bound(candidates: &[Candidate], index: usize) -> bool {
    let slots: u64 = candidates.iter().map(|one| u64::from(one.slots)).sum();
    let load: u64 = candidates.iter().map(|one| u64::from(one.load)).sum::<u64>() + 1;
    let own = candidates[index];
    // ceil(1.25 × load × own.slots / slots), so that the first answer always fits
    let bound = (BOUND_QUARTERS * load * u64::from(own.slots)).div_ceil(4 * slots.max(1));
    u64::from(own.load) < bound
}

fn lighter_of_two(candidates: &[Candidate], random: u64) -> Option<usize> {
    let count = candidates.len() as u64;
    if count == 0 {
        return None;
    }
    let first = random % count;
    let second = if count == 1 {
        first
    } else {
        (first + 1 + (random >> 32) % (count - 1)) % count
    };
    let (first, second) = (usize::try_from(first).ok()?, usize::try_from(second).ok()?);
    let weight = |index: usize, other: usize| u64::from(candidates[index].load) * u64::from(candidates[other].slots);
    Some(if weight(first, second) <= weight(second, first) {
        first
    } else {
        second
    })
}

fn hash(value: &(impl std::hash::Hash + ?Sized)) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidate(name: u64, load: u32) -> Candidate {
        Candidate { name, load, slots: 8 }
    }

    proptest! {
        #[test]
        fn the_same_affinity_leads_to_the_same_worker_while_loads_are_even(names in prop::collection::hash_set(any::<u64>(), 1..20), key: u64, one: u64, two: u64) {
            let candidates: Vec<_> = names.into_iter().map(|name| candidate(name, 3)).collect();
            prop_assert_eq!(pick(&candidates, Some(key), one), pick(&candidates, Some(key), two));
        }

        #[test]
        fn a_worker_that_goes_moves_only_its_own(names in prop::collection::hash_set(any::<u64>(), 2..20), key: u64, gone: prop::sample::Index) {
            let before: Vec<_> = names.into_iter().map(|name| candidate(name, 0)).collect();
            let home = before[pick(&before, Some(key), 0).unwrap()].name;
            let mut after = before.clone();
            let gone = after.remove(gone.index(before.len())).name;
            let next = after[pick(&after, Some(key), 0).unwrap()].name;
            prop_assert!(gone == home || next == home);
        }

        #[test]
        fn no_worker_goes_past_the_bound_by_affinity(loads in prop::collection::vec(0_u32..50, 1..10), key: u64, random: u64) {
            let candidates: Vec<_> = (0_u64..).zip(&loads).map(|(name, &load)| candidate(name, load)).collect();
            let chosen = pick(&candidates, Some(key), random).unwrap();
            let mean = f64::from(loads.iter().sum::<u32>() + 1) / f64::from(u32::try_from(loads.len()).unwrap());
            let bounded = f64::from(candidates[chosen].load) < 1.25 * mean + 1.0;
            prop_assert!(bounded || Some(chosen) == lighter_of_two(&candidates, random));
        }

        #[test]
        fn the_heaviest_alone_is_never_drawn(loads in prop::collection::vec(0_u32..50, 2..10), random: u64) {
            let candidates: Vec<_> = (0_u64..).zip(&loads).map(|(name, &load)| candidate(name, load)).collect();
            let chosen = pick(&candidates, None, random).unwrap();
            let heavier = loads.iter().filter(|&&load| load >= candidates[chosen].load).count();
            prop_assert!(heavier >= 2, "the other of the two was at least as heavy");
        }
    }

    #[test]
    fn many_answers_of_one_affinity_spread_once_the_bound_is_met() {
        let mut candidates = vec![candidate(1, 0), candidate(2, 0), candidate(3, 0)];
        for turn in 0..24_u64 {
            let chosen = pick(&candidates, Some(7), turn.wrapping_mul(0x9E37_79B9_7F4A_7C15)).unwrap();
            candidates[chosen].load += 1;
        }
        let heaviest = candidates.iter().map(|one| one.load).max().unwrap();
        assert!(heaviest <= 11, "{candidates:?}");
    }

    #[test]
    fn nobody_can_be_picked_from_nobody() {
        assert_eq!(pick(&[], Some(1), 1), None);
        assert_eq!(pick(&[], None, 1), None);
    }

    #[test]
    fn a_conversation_counts_more_than_its_words() {
        let request = |conversation: &str, text: &str| ChatRequest {
            conversation_id: conversation.to_owned(),
            messages: vec![
                proto::v1::Message {
                    text: text.to_owned(),
                    ..Default::default()
                };
                2
            ],
            ..Default::default()
        };
        assert_eq!(affinity_of(&request("c", "a")), affinity_of(&request("c", "b")));
        assert_ne!(affinity_of(&request("", "a")), affinity_of(&request("", "b")));
        assert_eq!(affinity_of(&ChatRequest::default()), None);
    }
}
