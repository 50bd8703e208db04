//! One choice of an answer: what it has made so far, and what of it is said.
//!
//! The scheduler feeds it the tokens that the model chose; [`super::request`] feeds it those that another worker made before. Both
//! go through [`Choice::take`], so its state is a function of its token ids alone, and an answer that goes on elsewhere releases
//! the same text with the same entries.

use std::sync::Arc;

use proto::v1::{ChoiceEnd, FinishReason, ToolCallDelta};

use super::{
    grammar::Grammar,
    sample::{Counts, mix},
    speech::{Family, Manner, Piece, Speech},
    stop::Stops,
    tokens::Vocabulary,
    utf8::Utf8,
};

/// What a choice of a request must keep to.
#[derive(Clone, Debug)]
pub(super) struct Terms {
    /// Tokens that it makes at most.
    pub(super) most: usize,
    /// Texts that end it.
    pub(super) stops: Arc<[String]>,
    /// What its text must be like.
    pub(super) shape: Shape,
    /// How its text is to be read.
    pub(super) manner: Manner,
    /// What the ids of its calls are made of: the same wherever the answer goes on.
    pub(super) key: u64,
}

/// What the text must be like.
#[derive(Clone, Debug, Default)]
pub(super) enum Shape {
    /// Anything.
    #[default]
    Free,
    /// All of it, but for thoughts.
    Whole(Grammar),
    /// What stands between the marks of calls.
    Calls {
        /// The grammar at its start.
        fresh: Grammar,
        /// The one of the calls that are being written.
        now: Option<Grammar>,
    },
}

/// A choice in the making.
#[derive(Clone, Debug)]
pub(super) struct Choice {
    /// Which one of the answer's.
    pub(super) index: u32,
    /// The tokens made so far, without the one that ended it.
    pub(super) made: Vec<u32>,
    /// How often each was made.
    pub(super) counts: Counts,
    /// How it ended.
    pub(super) end: Option<ChoiceEnd>,
    terms: Terms,
    utf8: Utf8,
    speech: Speech,
    stops: Stops,
}

/// What a token brought.
#[derive(Debug, PartialEq)]
pub(super) enum Taken {
    /// The token, and what is said with it, if anything is.
    Token(Vec<Said>),
    /// The model ended the choice; what was held, if anything, is said without a token.
    End(Vec<Said>),
    /// The grammar does not allow it; nothing has changed.
    Refused,
}

/// What a choice says: an entry's worth.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    /// Words of the answer.
    Text(String),
    /// A thought.
    Thought(String),
    /// A piece of a call.
    Call(ToolCallDelta),
}

impl Choice {
    /// A choice that has nothing yet.
    pub(super) fn new(index: u32, terms: Terms) -> Self {
        Self {
            index,
            made: Vec::new(),
            counts: Counts::new(),
            end: None,
            utf8: Utf8::default(),
            speech: Speech::new(terms.manner.clone()),
            stops: Stops::new(Arc::clone(&terms.stops)),
            terms,
        }
    }

    /// What the choice of the next token depends on: how often each was made, and what it must be like.
    pub(super) fn constraints(&mut self) -> (&Counts, Option<&mut Grammar>) {
        let grammar = match &mut self.terms.shape {
            Shape::Free => None,
            Shape::Whole(grammar) => (!self.speech.is_thinking()).then_some(grammar),
            Shape::Calls { now, .. } => now.as_mut(),
        };
        (&self.counts, grammar)
    }

    /// Whether it is within a thought.
    pub(super) fn is_thinking(&self) -> bool {
        self.speech.is_thinking()
    }

    /// Whether its last token was of words for the reader, or may yet turn out to be.
    pub(super) fn is_speaking(&self) -> bool {
        !self.speech.is_thinking() && !self.speech.is_calling()
    }

    /// Goes on by a token, or ends by it.
    pub(super) fn take(&mut self, vocabulary: &Vocabulary, id: u32) -> Taken {
        if vocabulary.is_eog(id) {
            return Taken::End(self.end());
        }
        if self.constraints().1.is_some_and(|grammar| !grammar.accept(id)) {
            return Taken::Refused;
        }
        self.made.push(id);
        *self.counts.entry(id).or_default() += 1;
        let mut text = String::new();
        self.utf8.feed(vocabulary.piece(id), &mut text);
        let mut pieces = Vec::new();
        self.speech.feed(&text, &mut pieces);
        let mut said = self.say(pieces);
        self.follow();
        if self.end.is_none() && self.speech.is_over() {
            self.finish(FinishReason::ToolCalls, String::new());
        } else if self.end.is_none() && self.made.len() >= self.terms.most {
            // The last token: what is held comes with it.
            self.finish(FinishReason::Length, String::new());
            said.extend(self.flush());
        }
        Taken::Token(said)
    }

    /// Ends without a token: the model said so, or the grammar leaves none.
    pub(super) fn end(&mut self) -> Vec<Said> {
        let said = self.flush();
        if self.end.is_none() {
            let called = self.speech.has_called();
            self.finish(if called { FinishReason::ToolCalls } else { FinishReason::Stop }, String::new());
        }
        said
    }

    fn finish(&mut self, reason: FinishReason, stop: String) {
        self.end = Some(ChoiceEnd {
            choice: self.index,
            reason: reason.into(),
            stop,
        });
    }

    /// Lets the grammar of calls begin and end with them.
    fn follow(&mut self) {
        match &mut self.terms.shape {
            Shape::Free => {}
            Shape::Whole(grammar) => {
                if let Some(rest) = self.speech.thought_out() {
                    grammar.accept_text(rest.trim_start());
                }
            }
            Shape::Calls { fresh, now } => {
                if let Some(rest) = self.speech.calls_in() {
                    let mut grammar = fresh.clone();
                    *now = grammar.accept_text(rest.trim_start()).then_some(grammar);
                }
                if !self.speech.is_calling() {
                    *now = None;
                }
            }
        }
    }

    /// What is said with these pieces, up to a stop string. Those count in words for the reader only.
    fn say(&mut self, pieces: Vec<Piece>) -> Vec<Said> {
        let mut said = Vec::new();
        for piece in pieces {
            let call = match piece {
                Piece::Words(words) => {
                    let mut released = String::new();
                    let met = self.stops.feed(&words, &mut released);
                    push_text(&mut said, &released);
                    if let Some(which) = met {
                        self.finish(FinishReason::Stop, self.terms.stops[which].clone());
                        return said;
                    }
                    continue;
                }
                Piece::Thought(thought) => {
                    said.push(Said::Thought(thought));
                    continue;
                }
                Piece::Call { index, name, arguments } => ToolCallDelta {
                    index,
                    id: self.call_id(index),
                    name,
                    arguments,
                },
                Piece::Arguments { index, arguments } => ToolCallDelta {
                    index,
                    arguments,
                    ..ToolCallDelta::default()
                },
            };
            self.release(&mut said);
            said.push(Said::Call(call));
        }
        said
    }

    /// Nothing more comes: says what is held, even if that meets a stop string.
    fn flush(&mut self) -> Vec<Said> {
        let (mut text, mut pieces) = (String::new(), Vec::new());
        self.utf8.flush(&mut text);
        self.speech.feed(&text, &mut pieces);
        self.speech.flush(&mut pieces);
        let mut said = self.say(pieces);
        self.release(&mut said);
        said
    }

    /// What was held was no stop string.
    fn release(&mut self, said: &mut Vec<Said>) {
        let mut released = String::new();
        self.stops.flush(&mut released);
        push_text(said, &released);
    }

    /// The id of a call: of nine letters and digits where the family's templates take no other.
    fn call_id(&self, call: u32) -> String {
        const DIGITS: &[u8; 32] = b"abcdefghijkmnopqrstuvwxyz3456789";
        let mistral = self
            .terms
            .manner
            .calls
            .as_ref()
            .is_some_and(|calls| calls.family == Family::Mistral);
        let (prefix, length) = if mistral { ("", 9) } else { ("call_", 24) };
        let mut state = mix(self.terms.key ^ (u64::from(self.index) << 32 | u64::from(call)));
        let mut id = prefix.to_owned();
        for _ in 0..length {
            id.push(char::from(DIGITS[(state >> 59) as usize]));
            state = mix(state);
        }
        id
    }
}

/// Adds words to those that were said last.
fn push_text(said: &mut Vec<Said>, text: &str) {
    match said.last_mut() {
        _ if text.is_empty() => {}
        Some(Said::Text(words)) => words.push_str(text),
        _ => said.push(Said::Text(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
