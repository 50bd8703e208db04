//! What a model's text is made of: thoughts, words for the reader, and calls of functions, told apart by the marks of its family.
//!
//! [`Choice`](super::choice) uses it. A pure function of the text fed, however it is cut: what may begin a mark is held until that is
//! clear, and nothing that was written is lost but white space around thoughts and calls. What looked like a call and is none comes out as words.
//!
//! It is ours, and not a crate's (`tool-parser`, `reasoning-parser`), for two things of this engine hang on it: an answer that goes on at another
//! worker reads its tokens again and has to come to the very same entries, and the grammar of calls has to begin and end where their marks do.

use std::sync::Arc;

use super::stop::overlap;

mod call;
mod calls;
mod family;

use call::Call;

pub use family::ToolFormat;
pub(super) use family::{Dialect, Family, ThoughtMarks};

/// A piece of what the model says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// Words for the reader.
    Words(String),
    /// A thought.
    Thought(String),
    /// A call begins.
    Call {
        /// Which of the answer's.
        index: u32,
        /// The function.
        name: String,
        /// The beginning of its arguments.
        arguments: String,
    },
    /// More of the arguments of a call.
    Arguments {
        /// Of which one.
        index: u32,
        /// The next piece of their JSON.
        arguments: String,
    },
}

/// How an answer is to be read.
#[derive(Clone, Debug, Default)]
pub(super) struct Manner {
    /// The marks of thoughts, if the model thinks.
    pub(super) thoughts: Option<ThoughtMarks>,
    /// The input ends within a thought.
    pub(super) thinking: bool,
    /// The functions that may be called, if any.
    pub(super) calls: Option<Calls>,
}

/// The functions that may be called.
#[derive(Clone, Debug)]
pub(super) struct Calls {
    /// How they are called.
    pub(super) family: Family,
    /// Their names.
    pub(super) names: Arc<[String]>,
    /// The answer ends with the first call.
    pub(super) single: bool,
}

/// A text in the reading.
#[derive(Clone, Debug)]
pub(super) struct Speech {
    manner: Manner,
    state: State,
    /// What was fed and is not said yet.
    held: String,
    /// All of a call, from its mark on, as long as it may turn out to be none.
    doubtful: String,
    /// Calls that have begun.
    calls: u32,
    /// What followed, in the text that was fed last, on the mark that ended the thought.
    thought_out: Option<String>,
    /// And on the mark that began calls.
    calls_in: Option<String>,
    over: bool,
}

#[derive(Clone, Debug)]
enum State {
    /// Before the first word. `after`: something else was before, so that white space is none of the answer's.
    Begin {
        after: bool,
    },
    Thought {
        begun: bool,
    },
    Words,
    /// Where a call may begin. `any`: one has.
    Between {
        any: bool,
    },
    Heading,
    Call {
        call: Box<Call>,
        announced: bool,
    },
}

impl Speech {
    /// Nothing yet.
    pub(super) fn new(manner: Manner) -> Self {
        let state = if manner.thinking {
            State::Thought { begun: false }
        } else {
            State::Begin { after: false }
        };
        Self {
            manner,
            state,
            held: String::new(),
            doubtful: String::new(),
            calls: 0,
            thought_out: None,
            calls_in: None,
            over: false,
        }
    }

    /// Takes more text, and appends to `out` what is certain now.
    pub(super) fn feed(&mut self, text: &str, out: &mut Vec<Piece>) {
        (self.thought_out, self.calls_in) = (None, None);
        if self.manner.thoughts.is_none() && self.manner.calls.is_none() {
            return say(out, text);
        }
        self.held.push_str(text);
        while !self.over && self.step(false, out) {}
    }

    /// Nothing more comes: says what was held.
    pub(super) fn flush(&mut self, out: &mut Vec<Piece>) {
        while !self.over && self.step(true, out) {}
        if !self.over {
            say(out, &std::mem::take(&mut self.doubtful));
        }
    }

    /// Whether the answer ends here: it has made the one call that it may.
    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Whether any function was called.
    pub(super) fn has_called(&self) -> bool {
        self.calls > 0
    }

    /// Whether it is within a thought.
    pub(super) fn is_thinking(&self) -> bool {
        matches!(self.state, State::Thought { .. })
    }

    /// Whether it is where calls are, between their marks.
    pub(super) fn is_calling(&self) -> bool {
        matches!(self.state, State::Between { .. } | State::Heading | State::Call { .. })
    }

    /// Where the text that was fed last ended the thought: what followed on the mark.
    pub(super) fn thought_out(&self) -> Option<&str> {
        self.thought_out.as_deref()
    }

    /// Where the text that was fed last began calls: what followed on the mark.
    pub(super) fn calls_in(&self) -> Option<&str> {
        self.calls_in.as_deref()
    }

    /// Goes on by what is held. Says whether there is more to do.
    fn step(&mut self, last: bool, out: &mut Vec<Piece>) -> bool {
        match self.state {
            State::Begin { after } => self.begin(after, last, out),
            State::Thought { begun } => self.think(begun, last, out),
            State::Words => self.speak(last, out),
            State::Between { any } => self.between(any, last, out),
            State::Heading => self.head(last, out),
            State::Call { .. } => self.call(out),
        }
    }

    fn family(&self) -> Option<Family> {
        self.manner.calls.as_ref().map(|calls| calls.family)
    }

    fn begin(&mut self, after: bool, last: bool, out: &mut Vec<Piece>) -> bool {
        let word = self.held.trim_start();
        if word.is_empty() {
            if last && !after {
                say(out, &std::mem::take(&mut self.held));
            }
            return false;
        }
        if let Some(marks) = self.manner.thoughts.filter(|_| !after) {
            if let Some(rest) = word.strip_prefix(marks.open) {
                self.held = rest.to_owned();
                self.state = State::Thought { begun: false };
                return true;
            }
            if !last && marks.open.starts_with(word) {
                return false;
            }
        }
        if after {
            self.held = word.to_owned();
        }
        if self.family().is_some_and(Family::is_bare) && self.held.trim_start().starts_with('{') {
            self.state = State::Between { any: false };
        } else {
            self.state = State::Words;
        }
        true
    }

    fn think(&mut self, begun: bool, last: bool, out: &mut Vec<Piece>) -> bool {
        let close = self.manner.thoughts.map_or("", |marks| marks.close);
        if !begun {
            self.held = self.held.trim_start().to_owned();
            if self.held.is_empty() {
                return false;
            }
            self.state = State::Thought { begun: true };
        }
        let end = self.held.find(close).filter(|_| !close.is_empty());
        let sure = match end {
            Some(at) => at,
            None if last => self.held.len(),
            None => self.held.len() - overlap(&self.held, close),
        };
        let thought = self.held[..sure].trim_end().to_owned();
        let taken = match end {
            Some(at) => at + close.len(),
            None if last => self.held.len(),
            None => thought.len(),
        };
        self.held.drain(..taken);
        if !thought.is_empty() {
            out.push(Piece::Thought(thought));
        }
        if end.is_some() {
            self.thought_out = Some(self.held.clone());
            self.state = State::Begin { after: true };
        }
        end.is_some()
    }

    fn speak(&mut self, last: bool, out: &mut Vec<Piece>) -> bool {
        let Some(family) = self.family() else {
            say(out, &std::mem::take(&mut self.held));
            return false;
        };
        let mark = family.open();
        if let Some(at) = self.held.find(mark) {
            let words = self.held[..at].trim_end().len();
            say(out, &self.held[..words]);
            self.held.drain(..words);
            self.doubtful = self.held.drain(..at - words + mark.len()).collect();
            self.calls_in = Some(self.held.clone());
            self.state = State::Between { any: false };
            return true;
        }
        // White space may stand before a call, where it says nothing.
        let begun = overlap(&self.held, mark);
        let sure = if !last {
            self.held[..self.held.len() - begun].trim_end().len()
        } else if self.calls > 0 && begun > 1 {
            self.held.len() - begun // the mark of one more call, cut short with the answer
        } else {
            self.held.len()
        };
        say(out, &self.held[..sure]);
        self.held.drain(..if last { self.held.len() } else { sure });
        false
    }
}

/// Adds words to what is said last.
fn say(out: &mut Vec<Piece>, text: &str) {
    match out.last_mut() {
        _ if text.is_empty() => {}
        Some(Piece::Words(words)) => words.push_str(text),
        _ => out.push(Piece::Words(text.to_owned())),
    }
}

#[cfg(test)]
mod tests;
