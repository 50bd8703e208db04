//! What a stream has told so far, in the words of the journal: entries, ends, usage. Every dialect tells it here. Pure.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Reason, TokenLogprob, Usage, entry::Event};

use super::calls::{Calls, Piece};

/// What a stream has told so far.
#[derive(Debug)]
pub(super) struct Told {
    /// The server's name for the answer, if it has one.
    pub(super) name: String,
    /// The entries that nobody has taken yet.
    pub(super) entries: Vec<Entry>,
    choices: Vec<Choice>,
    /// What the server counted of the input, where it says that first: also a broken answer's is known then.
    pub(super) input: Option<Input>,
    /// What the server counted, once it said so.
    pub(super) usage: Option<Usage>,
    /// Whether the server said that nothing follows.
    pub(super) done: bool,
}

/// The input's tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Input {
    pub(super) prompt_tokens: u32,
    pub(super) cached_tokens: u32,
}

#[derive(Debug, Default)]
struct Choice {
    calls: Calls,
    end: Option<ChoiceEnd>,
}

impl Told {
    pub(super) fn new(choices: u32) -> Self {
        Self {
            name: String::new(),
            entries: Vec::new(),
            choices: (0..choices).map(|_| Choice::default()).collect(),
            input: None,
            usage: None,
            done: false,
        }
    }

    /// Checks that a choice was asked for.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check(&self, choice: u32) -> Result<(), Failure> {
        if (choice as usize) < self.choices.len() {
            return Ok(());
        }
        Err(Failure::new(
            Reason::Upstream,
            format!("the server sent choice {choice}, which nobody asked for"),
        ))
    }

    /// More of the text.
    pub(super) fn text(&mut self, choice: u32, text: String, logprobs: Vec<TokenLogprob>) {
        if text.is_empty() && logprobs.is_empty() {
            return;
        }
        self.entries.push(Entry {
            token: text.into(),
            tokens: u32::try_from(logprobs.len()).unwrap_or(1).max(1),
            logprobs,
            choice,
            ..Entry::default()
        });
    }

    /// More of the thoughts.
    pub(super) fn reasoning(&mut self, choice: u32, text: String) {
        if !text.is_empty() {
            self.event(choice, Event::Reasoning(text));
        }
    }

    /// A piece of a function call. One that the server gives no id gets one of its name for the answer.
    ///
    /// # Errors
    /// There are too many calls.
    pub(super) fn call(&mut self, choice: u32, piece: Piece) -> Result<(), Failure> {
        let Some(calls) = self.choices.get_mut(choice as usize).map(|choice| &mut choice.calls) else {
            return Ok(());
        };
        let name = &self.name;
        let taken = calls.take(piece, |index| format!("call_{name}_{choice}_{index}"));
        let taken = taken.map_err(|_| Failure::new(Reason::Upstream, "the server called functions without an end"))?;
        if let Some(piece) = taken {
            self.event(choice, Event::ToolCall(Box::new(piece)));
        }
        Ok(())
    }

    /// The calls of the first choice.
    pub(super) fn calls(&self) -> Option<&Calls> {
        self.choices.first().map(|choice| &choice.calls)
    }

    /// The end of a choice. One that called functions and then stopped by itself ended with the calls: clients go by that word, and not
    /// every server says it.
    pub(super) fn end(&mut self, choice: u32, reason: FinishReason, stop: String) {
        let Some(told) = self.choices.get_mut(choice as usize) else {
            return;
        };
        let called = reason == FinishReason::Stop && stop.is_empty() && !told.calls.is_empty();
        let reason = if called { FinishReason::ToolCalls } else { reason };
        told.end = Some(ChoiceEnd {
            choice,
            reason: reason.into(),
            stop,
        });
    }

    /// How the choices ended, once all have.
    ///
    /// # Errors
    /// The stream is over, and a choice has no end.
    pub(super) fn ends(&self) -> Result<Vec<ChoiceEnd>, Failure> {
        let ends: Option<Vec<ChoiceEnd>> = self.choices.iter().map(|choice| choice.end.clone()).collect();
        ends.ok_or_else(|| Failure::new(Reason::Upstream, "the server's stream ended before the answer did"))
    }

    /// Whether every choice has its end: only the usage may follow.
    pub(super) fn is_whole(&self) -> bool {
        self.choices.iter().all(|choice| choice.end.is_some())
    }

    fn event(&mut self, choice: u32, event: Event) {
        self.entries.push(Entry {
            tokens: 1,
            choice,
            event: Some(event),
            ..Entry::default()
        });
    }
}
