//! The answers that run, as the scheduler holds them, and how one of their lanes goes on by a token.

use proto::v1::{ChoiceEnd, Entry, Failure, TokenLogprob};

use super::{
    choice::{Choice, Taken},
    sample::{self, Place, Sampler},
    tokens::Vocabulary,
};
use crate::answer::Answer;

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
    /// Chooses a lane's next token and writes its entry.
    pub(super) fn advance(&mut self, lane: usize, logits: &[f32], vocabulary: &Vocabulary, sampler: &mut Sampler) {
        let Some(lane) = self.lanes.get_mut(lane).filter(|_| self.over.is_none()) else {
            return;
        };
        let choice = &mut lane.choice;
        if self.warms {
            choice.end();
            return;
        }
        let place = Place {
            settings: &self.sampling,
            counts: &choice.counts,
            logits,
            draw: self.sampling.draw(choice.index, choice.made.len()),
        };
        let chosen = match &mut choice.grammar {
            None => sampler.choose_freely(place),
            Some(grammar) => sampler.choose(place, |ids| grammar.allows(ids)),
        };
        let entry = match chosen.map(|id| (id, choice.take(vocabulary, id))) {
            Some((id, Taken::Token(text))) => {
                lane.tokens.push(id);
                let logprobs = self.logprobs.map(|most| vec![logprob(vocabulary, logits, id, most)]);
                Some(Entry {
                    choice: choice.index,
                    logprobs: logprobs.unwrap_or_default(),
                    ..Entry::text(text, id)
                })
            }
            Some((_, Taken::End(text))) => released(choice, text),
            None | Some((_, Taken::Refused)) => {
                let text = choice.end();
                released(choice, text)
            }
        };
        if let Some(entry) = with_end(entry, choice, self.many)
            && self.answer.push(entry).is_err()
        {
            self.over = Some(Over::Dropped);
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

/// The entry, with the end of its choice if that came and others go on: then there is an entry in any case.
fn with_end(entry: Option<Entry>, choice: &Choice, many: bool) -> Option<Entry> {
    let Some(end) = choice.end.clone().filter(|_| many) else {
        return entry;
    };
    let entry = entry.unwrap_or_else(|| Entry {
        choice: choice.index,
        ..Entry::default()
    });
    Some(Entry {
        end: Some(Box::new(end)),
        ..entry
    })
}

/// An entry for text that was held, if there is any.
fn released(choice: &Choice, text: String) -> Option<Entry> {
    (!text.is_empty()).then(|| Entry {
        token: text,
        choice: choice.index,
        ..Entry::default()
    })
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
