//! What goes into the next decode step. Pure: the scheduler describes its lanes, and does what the plan says.
//!
//! A *lane* is one choice at work. What is not yet in the KV cache of its sequence is its *backlog*: the whole prompt at first,
//! then the one token that was chosen last. So prefill and decode are one thing here, told apart by the backlog's length:
//!
//! - The last token of a backlog brings logits, and so the next token of the answer. The choices of an answer go in lockstep: all
//!   that have made the fewest tokens go on in the same step. That makes the order of their entries a function of the answer alone.
//! - All else is prefill, of which a step takes a bounded number of tokens, so that running answers don't stall. Who came first is
//!   served first.

/// A choice at work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lane {
    /// Its answer. Lanes of one answer stand together, the answers in the order in which they came.
    pub(super) answer: usize,
    /// Tokens that are not in the cache yet: at least 1.
    pub(super) backlog: usize,
    /// Tokens made so far.
    pub(super) made: usize,
    /// Whether it waits for the prompt that it shares with another lane of its answer.
    pub(super) waits: bool,
}

/// How large a step may be, in tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// In all: llama.cpp aborts the process past its `n_batch`. At least as many as there may be lanes.
    pub(super) tokens: usize,
    /// Of these, prefill while answers run.
    pub(super) prefill_beside: usize,
    /// Of these, prefill while none runs. Whoever joins or leaves waits as long as it takes.
    pub(super) prefill_alone: usize,
}

/// Tokens of one lane to decode, from the beginning of its backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Chunk {
    /// Which lane.
    pub(super) lane: usize,
    /// How many tokens.
    pub(super) tokens: usize,
    /// Whether the last of them brings the next token.
    pub(super) logits: bool,
}

/// Plans a step into `chunks`, one at most for each lane. Empty only if there are no lanes.
pub(super) fn plan(lanes: &[Lane], limits: Limits, chunks: &mut Vec<Chunk>) {
    chunks.clear();
    let mut room = limits.tokens;
    let mut base = 0;
    for answer in lanes.chunk_by(|a, b| a.answer == b.answer) {
        if cost(answer) == Some(in_turn(answer).count()) {
            let lanes = in_turn(answer).map(|lane| (base + lane, 1, true));
            push(chunks, &mut room, lanes);
        }
        base += answer.len();
    }
    let most = if chunks.is_empty() {
        limits.prefill_alone
    } else {
        limits.prefill_beside
    };
    room = room.min(most);
    base = 0;
    for answer in lanes.chunk_by(|a, b| a.answer == b.answer) {
        prefill(answer, base, &mut room, chunks);
        base += answer.len();
    }
}

/// Prefills an answer's lanes: to the end and beyond if all that go on fit, else as far as there is room.
fn prefill(answer: &[Lane], base: usize, room: &mut usize, chunks: &mut Vec<Chunk>) {
    let goes_on = cost(answer).is_some_and(|cost| cost > in_turn(answer).count() && cost <= *room);
    let turn = turn(answer);
    if goes_on {
        let lanes = in_turn(answer).map(|lane| (base + lane, answer[lane].backlog, true));
        push(chunks, room, lanes);
    }
    for (lane, one) in answer.iter().enumerate() {
        let tokens = (one.backlog - 1).min(*room);
        if !one.waits && tokens > 0 && !(goes_on && one.made == turn) {
            push(chunks, room, std::iter::once((base + lane, tokens, false)));
        }
    }
}

fn push(chunks: &mut Vec<Chunk>, room: &mut usize, lanes: impl Iterator<Item = (usize, usize, bool)>) {
    for (lane, tokens, logits) in lanes {
        *room = room.saturating_sub(tokens);
        chunks.push(Chunk { lane, tokens, logits });
    }
}

/// How many tokens the choices have made that go on next.
fn turn(answer: &[Lane]) -> usize {
    answer.iter().map(|lane| lane.made).min().unwrap_or(0)
}

fn in_turn(answer: &[Lane]) -> impl Iterator<Item = usize> + '_ {
    let turn = turn(answer);
    (0..answer.len()).filter(move |&lane| answer[lane].made == turn)
}

/// The tokens that it takes until all lanes in turn have gone on. `None` while one of them waits.
fn cost(answer: &[Lane]) -> Option<usize> {
    in_turn(answer)
        .map(|lane| (!answer[lane].waits).then_some(answer[lane].backlog))
        .sum()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        tokens: 40,
        prefill_beside: 8,
        prefill_alone: 32,
    };

    fn lane(answer: usize, backlog: usize, made: usize) -> Lane {
        Lane {
            answer,
            backlog,
            made,
            waits: false,
        }
    }

    fn planned(lanes: &[Lane]) -> Vec<(usize, usize, bool)> {
        let mut chunks = Vec::new();
        plan(lanes, LIMITS, &mut chunks);
        chunks.iter().map(|chunk| (chunk.lane, chunk.tokens, chunk.logits)).collect()
    }

    #[test]
    fn a_long_prompt_does_not_hold_up_who_runs() {
        assert_eq!(
            planned(&[lane(0, 1, 5), lane(1, 100, 0), lane(2, 1, 9)]),
            [(0, 1, true), (2, 1, true), (1, 8, false)]
        );
    }

    #[test]
    fn a_prompt_alone_takes_the_larger_step_and_its_end_brings_a_token() {
        assert_eq!(planned(&[lane(0, 100, 0)]), [(0, 32, false)]);
        assert_eq!(planned(&[lane(0, 32, 0)]), [(0, 32, true)]);
    }

    #[test]
    fn who_came_first_is_prefilled_first() {
        assert_eq!(planned(&[lane(0, 30, 0), lane(1, 30, 0)]), [(0, 30, true), (1, 2, false)]);
    }

    #[test]
    fn choices_of_an_answer_go_in_lockstep() {
        assert_eq!(
            planned(&[lane(0, 1, 4), lane(0, 1, 3)]),
            [(1, 1, true)],
            "the second has to catch up"
        );
        assert_eq!(
            planned(&[lane(0, 1, 3), lane(0, 9, 3)]),
            [(0, 1, true), (1, 9, true)],
            "both at once"
        );
        assert_eq!(planned(&[lane(0, 1, 3), lane(0, 90, 3)]), [(1, 32, false)], "the first waits");
    }

    #[test]
    fn nobody_goes_on_before_who_waits_for_the_prompt() {
        let waiting = Lane {
            waits: true,
            ..lane(0, 9, 0)
        };
        assert_eq!(planned(&[lane(0, 9, 0), waiting]), [(0, 8, false)]);
    }

    proptest! {
        /// Runs lanes to their ends by the plan alone.
        #[test]
        fn every_lane_gets_to_its_end_in_order_and_no_step_is_too_large(
            answers in prop::collection::vec(prop::collection::vec((1usize..60, 0usize..3), 1..4), 1..6),
        ) {
            const END: usize = 6;
            let prompts: Vec<Vec<Lane>> = answers.iter().enumerate()
                .map(|(answer, lanes)| lanes.iter().enumerate()
                    .map(|(index, &(backlog, made))| Lane { answer, backlog: backlog + 1, made, waits: index > 0 }).collect())
                .collect();
            let mut lanes: Vec<Lane> = prompts.concat();
            let mut steps = 0;
            while !lanes.is_empty() {
                for index in 1..lanes.len() {
                    let leader = lanes.iter().find(|lane| lane.answer == lanes[index].answer).unwrap();
                    if lanes[index].waits && leader.backlog == 1 {
                        lanes[index].waits = false;
                    }
                }
                let mut chunks = Vec::new();
                plan(&lanes, LIMITS, &mut chunks);
                prop_assert!(!chunks.is_empty());
                let total: usize = chunks.iter().map(|chunk| chunk.tokens).sum();
                let prefill: usize = chunks.iter().filter(|chunk| chunk.tokens > 1 || !chunk.logits).map(|chunk| chunk.tokens).sum();
                prop_assert!(total <= LIMITS.tokens && prefill <= LIMITS.prefill_alone);
                let mut seen = std::collections::HashSet::new();
                for chunk in &chunks {
                    prop_assert!(seen.insert(chunk.lane));
                    let fewest = lanes.iter().filter(|lane| lane.answer == lanes[chunk.lane].answer).map(|lane| lane.made).min().unwrap();
                    let lane = &lanes[chunk.lane];
                    prop_assert!(!lane.waits && chunk.tokens >= 1 && chunk.tokens <= lane.backlog);
                    prop_assert_eq!(chunk.logits, chunk.tokens == lane.backlog);
                    prop_assert!(!chunk.logits || lane.made == fewest);
                }
                for chunk in &chunks {
                    let lane = &mut lanes[chunk.lane];
                    lane.backlog -= chunk.tokens;
                    if chunk.logits {
                        (lane.backlog, lane.made) = (1, lane.made + 1);
                    }
                }
                lanes.retain(|lane| lane.made < END);
                steps += 1;
                prop_assert!(steps < 10_000);
            }
        }
    }
}
