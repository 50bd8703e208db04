//! What a stream has told so far, in the words of the journal: entries, ends, usage. Every dialect tells it here. Pure.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Reason, TokenLogprob, ToolCallDelta, Usage, entry::Event};

/// What a stream has told so far.
#[derive(Debug)]
pub(super) struct Told {
    /// The entries that nobody has taken yet.
    pub(super) entries: Vec<Entry>,
    ends: Vec<Option<ChoiceEnd>>,
    /// What the server counted, once it said so.
    pub(super) usage: Option<Usage>,
    /// Whether the server said that nothing follows.
    pub(super) done: bool,
}

impl Told {
    pub(super) fn new(choices: u32) -> Self {
        Self {
            entries: Vec::new(),
            ends: vec![None; choices as usize],
            usage: None,
            done: false,
        }
    }

    /// Checks that a choice was asked for.
    ///
    /// # Errors
    /// It was not.
    pub(super) fn check(&self, choice: u32) -> Result<(), Failure> {
        if (choice as usize) < self.ends.len() {
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
            token: text,
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

    /// A piece of a function call.
    pub(super) fn call(&mut self, choice: u32, piece: ToolCallDelta) {
        self.event(choice, Event::ToolCall(Box::new(piece)));
    }

    /// The end of a choice.
    pub(super) fn end(&mut self, choice: u32, reason: FinishReason, stop: String) {
        if let Some(end) = self.ends.get_mut(choice as usize) {
            *end = Some(ChoiceEnd {
                choice,
                reason: reason.into(),
                stop,
            });
        }
    }

    /// How the choices ended, once all have.
    ///
    /// # Errors
    /// The stream is over, and a choice has no end.
    pub(super) fn ends(&self) -> Result<Vec<ChoiceEnd>, Failure> {
        let ends: Option<Vec<ChoiceEnd>> = self.ends.iter().cloned().collect();
        ends.ok_or_else(|| Failure::new(Reason::Upstream, "the server's stream ended before the answer did"))
    }

    /// Whether every choice has its end: only the usage may follow.
    pub(super) fn is_whole(&self) -> bool {
        self.ends.iter().all(Option::is_some)
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
