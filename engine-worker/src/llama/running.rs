//! The answers that run, as the scheduler holds them, and how one of their lanes goes on by a token.

use std::time::{Duration, Instant};

use proto::v1::{ChoiceEnd, Entry, Failure, Reason, TokenLogprob};

use super::{
    choice::{Choice, Taken},
    said,
    sample::{self, Place, Sampler},
    tokens::Vocabulary,
};
use crate::answer::Answer;

/// What a grammar may take for one token, which all answers wait for: usual ones take milliseconds.
const GRAMMAR_LIMIT: Duration = Duration::from_secs(5);

/// An answer in the making.
pub(super) struct Running {
    pub(super) answer: Answer,
    /// Its choices at work; those that have ended are in `ended`.
    pub(super) lanes: Vec<Lane>,
    pub(super) ended: Vec<ChoiceEnd>,
    pub(super) sampling: sample::Settings,
    pub(super) logprobs: Option<usize>,
    /// It makes nothing: it ends as soon as its tokens are in the cache.
    pub(super) warms: bool,
    /// It has several choices, so that the end of each is told when it comes.
    pub(super) many: bool,
    /// Tokens of the prompt that its lanes share.
    pub(super) shared: usize,
    pub(super) over: Option<Over>,
}

/// How an answer leaves.
pub(super) enum Over {
    Finished,
    Failed(Failure),
    /// Cancelled, or its journal takes no more.
    Dropped,
}

pub(super) struct Lane {
    pub(super) choice: Choice,
    pub(super) slot: usize,
    /// The prompt and all that was made. The slot knows how many of them are in the cache.
    pub(super) tokens: Vec<u32>,
    /// Whether it waits for the first lane's prompt.
    pub(super) waits: bool,
}

impl Running {
    /// Chooses a lane's next token and writes its entries.
    pub(super) fn advance(&mut self, lane: usize, logits: &[f32], vocabulary: &Vocabulary, sampler: &mut Sampler) {
        let Some(lane) = self.lanes.get_mut(lane).filter(|_| self.over.is_none()) else {
            return;
        };
        let choice = &mut lane.choice;
        if self.warms {
            choice.end();
            return;
        }
        let draw = self.sampling.draw(choice.index, choice.made.len());
        let (counts, grammar) = choice.constraints();
        let place = Place {
            settings: &self.sampling,
            counts,
            logits,
            draw,
        };
        let chosen = match grammar {
            None => sampler.choose_freely(place),
            Some(grammar) => {
                let began = Instant::now();
                let chosen = sampler.choose(place, |ids| grammar.allows(ids));
                if began.elapsed() > GRAMMAR_LIMIT {
                    self.over = Some(Over::Failed(Failure::new(
                        Reason::Limit,
                        "the grammar takes too long for one token",
                    )));
                    return;
                }
                chosen
            }
        };
        let (token, said) = match chosen.map(|id| (id, choice.take(vocabulary, id))) {
            Some((id, Taken::Token(said))) => {
                lane.tokens.push(id);
                (Some(id), said)
            }
            Some((_, Taken::End(said))) => (None, said),
            None | Some((_, Taken::Refused)) => (None, choice.end()),
        };
        let mut entries = said::entries(choice, token, said, self.many);
        if let (Some(id), Some(most), Some(first)) = (token, self.logprobs, entries.first_mut())
            && first.event.is_none()
            && (!first.token.is_empty() || choice.is_speaking())
        {
            first.logprobs = vec![logprob(vocabulary, logits, id, most)];
        }
        self.write(entries);
    }

    /// Writes entries, unless the journal takes no more.
    pub(super) fn write(&mut self, entries: Vec<Entry>) {
        for entry in entries {
            if self.over.is_none() && self.answer.push(entry).is_err() {
                self.over = Some(Over::Dropped);
            }
        }
    }
}

/// All lanes, with the numbers of their answer and of themselves in it, in the order that the plan counts them.
pub(super) fn lanes(running: &[Running]) -> impl Iterator<Item = (usize, usize, &Lane)> {
    running
        .iter()
        .enumerate()
        .flat_map(|(answer, running)| running.lanes.iter().enumerate().map(move |(index, lane)| (answer, index, lane)))
}

fn logprob(vocabulary: &Vocabulary, logits: &[f32], chosen: u32, most: usize) -> TokenLogprob {
    let (own, top) = sample::logprobs(logits, chosen, most);
    let report = |id: u32, logprob: f32| TokenLogprob {
        token: String::from_utf8_lossy(vocabulary.piece(id)).into_owned(),
        logprob,
        bytes: vocabulary.piece(id).to_vec(),
        top: Vec::new(),
    };
    TokenLogprob {
        top: top.into_iter().map(|(id, logprob)| report(id, logprob)).collect(),
        ..report(chosen, own)
    }
}
