//! The sequences of the KV cache, and what each holds: who may begin where, and what need not be prefilled again.
//!
//! Pure book-keeping: the scheduler does with llama.cpp what is decided here. A slot keeps its tokens after its answer has ended,
//! so that the next turn of the conversation finds them; the one that was used longest ago is overwritten first.

/// A prefix shorter than this, in tokens, is prefilled rather than copied from another slot.
const MIN_COPY: usize = 32;

/// A slot is gone on with where it is if what is kept of it is this many times what is lost. Else it is left to its own conversation.
const GOES_ON: usize = 4;

/// All slots.
#[derive(Debug)]
pub(super) struct Slots {
    slots: Vec<Slot>,
    clock: u64,
}

#[derive(Debug, Default)]
struct Slot {
    /// The tokens whose cells are in the cache, from position 0.
    tokens: Vec<u32>,
    busy: bool,
    /// When it was last given back: larger is later. 0: never used.
    used: u64,
}

/// Where a sequence may begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placement {
    /// In this slot.
    pub(super) slot: usize,
    /// With this many tokens already in the cache.
    pub(super) keep: usize,
    /// Once they were copied from this slot, if it is another.
    pub(super) copy_from: Option<usize>,
}

impl Slots {
    /// So many, all empty.
    pub(super) fn new(count: usize) -> Self {
        Self {
            slots: (0..count).map(|_| Slot::default()).collect(),
            clock: 0,
        }
    }

    /// How many are free.
    pub(super) fn free(&self) -> usize {
        self.slots.iter().filter(|slot| !slot.busy).count()
    }

    /// Cells that running answers hold.
    pub(super) fn used(&self) -> usize {
        self.slots.iter().filter(|slot| slot.busy).map(|slot| slot.tokens.len()).sum()
    }

    /// Takes a free slot for a sequence that begins with `tokens`, which are not empty. The last of them is never kept: its logits
    /// are wanted. The caller makes the cache so, or says [`Slots::truncate`]. `None` if no slot is free.
    pub(super) fn place(&mut self, tokens: &[u32]) -> Option<Placement> {
        let common = |slot: &Slot| common(&slot.tokens, tokens).min(tokens.len() - 1);
        let free = || self.slots.iter().enumerate().filter(|(_, slot)| !slot.busy);
        // The conversation's own slot: nearly all of what it holds goes on.
        let own = free()
            .filter(|(_, slot)| common(slot) > 0 && GOES_ON * (slot.tokens.len() - common(slot)) <= common(slot))
            .max_by_key(|(_, slot)| common(slot));
        let (victim, overwritten) = free().min_by_key(|(_, slot)| slot.used)?;
        let donor = self.slots.iter().enumerate().max_by_key(|(_, slot)| common(slot));
        let own = own.map_or((victim, common(overwritten)), |(index, slot)| (index, common(slot)));
        let placement = match donor {
            Some((index, slot)) if common(slot) >= own.1 + MIN_COPY => Placement {
                slot: victim,
                keep: common(slot),
                copy_from: (index != victim).then_some(index),
            },
            _ => Placement {
                slot: own.0,
                keep: own.1,
                copy_from: None,
            },
        };
        let kept = tokens[..placement.keep].to_vec();
        let slot = &mut self.slots[placement.slot];
        slot.busy = true;
        slot.tokens = kept;
        Some(placement)
    }

    /// Cells that a slot holds.
    pub(super) fn held(&self, slot: usize) -> usize {
        self.slots[slot].tokens.len()
    }

    /// More of a sequence is in the cache.
    pub(super) fn extend(&mut self, slot: usize, tokens: &[u32]) {
        self.slots[slot].tokens.extend_from_slice(tokens);
    }

    /// Less of it is.
    pub(super) fn truncate(&mut self, slot: usize, keep: usize) {
        self.slots[slot].tokens.truncate(keep);
    }

    /// Its answer has ended; what it holds stays for the next turn.
    pub(super) fn release(&mut self, slot: usize) {
        self.clock += 1;
        self.slots[slot].busy = false;
        self.slots[slot].used = self.clock;
    }

    /// The free slot that holds something and was used longest ago.
    pub(super) fn oldest(&self) -> Option<usize> {
        let idle = self
            .slots
            .iter()
            .enumerate()
            .filter(|(_, slot)| !slot.busy && !slot.tokens.is_empty());
        idle.min_by_key(|(_, slot)| slot.used).map(|(index, _)| index)
    }
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn filled(slots: &mut Slots, tokens: &[u32]) -> usize {
        let place = slots.place(tokens).unwrap();
        slots.extend(place.slot, &tokens[place.keep..]);
        slots.release(place.slot);
        place.slot
    }

    fn counted(from: u32, count: u32) -> Vec<u32> {
        (from..from + count).collect()
    }

    #[test]
    fn the_next_turn_finds_its_conversation_and_keeps_it() {
        let mut slots = Slots::new(3);
        let first = filled(&mut slots, &counted(0, 100));
        filled(&mut slots, &counted(1000, 100));
        let place = slots.place(&counted(0, 140)).unwrap();
        assert_eq!(
            place,
            Placement {
                slot: first,
                keep: 100,
                copy_from: None
            }
        );
    }

    #[test]
    fn the_last_token_is_always_decoded_again() {
        let mut slots = Slots::new(1);
        filled(&mut slots, &counted(0, 10));
        assert_eq!(slots.place(&counted(0, 10)).unwrap().keep, 9);
    }

    #[test]
    fn a_shared_beginning_is_copied_and_its_owner_keeps_his() {
        let mut slots = Slots::new(2);
        let mut long = counted(0, 40);
        long.extend(counted(500, 400));
        let owner = filled(&mut slots, &long);
        let mut other = counted(0, 40);
        other.extend(counted(900, 10));
        let place = slots.place(&other).unwrap();
        assert_eq!((place.keep, place.copy_from), (40, Some(owner)));
        assert_ne!(place.slot, owner);
        assert_eq!(slots.held(owner), 440);
    }

    #[test]
    fn the_longest_unused_is_overwritten_first() {
        let mut slots = Slots::new(2);
        let first = filled(&mut slots, &counted(0, 5));
        let second = filled(&mut slots, &counted(100, 5));
        assert_ne!(first, second);
        assert_eq!(slots.oldest(), Some(first));
        assert_eq!(slots.place(&counted(200, 5)).unwrap().slot, first);
        assert_eq!(slots.place(&counted(300, 5)).unwrap().slot, second);
        assert_eq!(slots.place(&counted(400, 5)), None);
        assert_eq!(slots.free(), 0);
    }

    proptest! {
        #[test]
        fn what_is_kept_is_a_prefix_that_some_slot_held_and_no_busy_slot_is_touched(
            turns in prop::collection::vec((prop::collection::vec(0u32..3, 1..80), any::<bool>()), 1..30),
        ) {
            let mut slots = Slots::new(3);
            let mut busy: Vec<usize> = Vec::new();
            for (tokens, ends) in turns {
                let before: Vec<Vec<u32>> = slots.slots.iter().map(|slot| slot.tokens.clone()).collect();
                let Some(place) = slots.place(&tokens) else {
                    prop_assert_eq!(busy.len(), 3);
                    slots.release(busy.remove(0));
                    continue;
                };
                prop_assert!(!busy.contains(&place.slot));
                prop_assert!(place.keep < tokens.len());
                let source = &before[place.copy_from.unwrap_or(place.slot)];
                prop_assert_eq!(&source[..place.keep], &tokens[..place.keep]);
                slots.extend(place.slot, &tokens[place.keep..]);
                if ends {
                    slots.release(place.slot);
                } else {
                    busy.push(place.slot);
                }
                for &slot in busy.iter().filter(|slot| **slot != place.slot) {
                    prop_assert_eq!(&slots.slots[slot].tokens, &before[slot]);
                }
            }
        }
    }
}
