//! An entry of a journal, and what it means: used by whoever writes, keeps or projects journals.

mod wire;

use compact_str::CompactString;
use smallvec::SmallVec;

use crate::v1::{Cancelled, ChoiceEnd, Failure, FinishReason, Finished, TokenLogprob, ToolCallDelta, Usage};

/// Ids of tokens, in the entry itself where they are few: nearly always there is one.
pub type TokenIds = SmallVec<[u32; 4]>;

/// One entry of a journal: `chat.v1.Entry`.
///
/// It is made, kept and copied once for every token in every process. Therefore it is not the struct that prost would generate but one
/// that needs no allocation: a token's text and id lie in it, and what is rare or large lies behind a pointer.
#[derive(Debug, Default, PartialEq)]
pub struct Entry {
    /// New text of the answer. May be empty: a token that ends in the middle of a character, or that may begin a stop string, is
    /// released with a later one.
    pub token: CompactString,
    /// The ids of the generated tokens that this entry stands for, where the engine knows them.
    pub token_ids: TokenIds,
    /// How many generated tokens it stands for: 1 for a token; 0 for a terminal, or for held text that is released at the end.
    pub tokens: u32,
    /// Which of the `n` choices.
    pub choice: u32,
    /// Milliseconds from the request's arrival at the router to this entry's.
    pub latency_ms: u32,
    /// One for each token of this entry, where the request asked for them and the entry is text: tokens of thoughts and calls have none.
    pub logprobs: Vec<TokenLogprob>,
    /// What else it is.
    pub event: Option<Event>,
    /// Of several choices, this entry's has ended with it; the terminal entry says so once more for all.
    pub end: Option<Box<ChoiceEnd>>,
}

impl Clone for Entry {
    /// As it would be derived, without a call for each thing that nearly every entry lacks.
    fn clone(&self) -> Self {
        Self {
            token: self.token.clone(),
            token_ids: TokenIds::from_slice(&self.token_ids),
            tokens: self.tokens,
            choice: self.choice,
            latency_ms: self.latency_ms,
            logprobs: if self.logprobs.is_empty() {
                Vec::new()
            } else {
                self.logprobs.clone()
            },
            event: self.event.clone(),
            end: self.end.clone(),
        }
    }
}

/// What an entry is beside text.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// The model thinks: text that is not part of the answer proper.
    #[prost(string, tag = "7")]
    Reasoning(String),
    /// The model calls a function.
    #[prost(message, tag = "8")]
    ToolCall(Box<ToolCallDelta>),
    /// Terminal: the answer is whole.
    #[prost(message, tag = "9")]
    Finished(Box<Finished>),
    /// Terminal: it broke off.
    #[prost(message, tag = "10")]
    Failed(Box<Failure>),
    /// Terminal: somebody ended it.
    #[prost(message, tag = "11")]
    Cancelled(Box<Cancelled>),
}

impl Entry {
    /// A token of text.
    pub fn text(token: impl Into<CompactString>, id: u32) -> Self {
        Self {
            token: token.into(),
            token_ids: TokenIds::from_slice(&[id]),
            tokens: 1,
            ..Self::default()
        }
    }

    /// A terminal entry: the answer is whole.
    pub fn finished(choices: Vec<ChoiceEnd>, usage: Usage) -> Self {
        Self {
            event: Some(Event::Finished(Box::new(Finished {
                choices,
                usage: Some(usage),
                ..Finished::default()
            }))),
            ..Self::default()
        }
    }

    /// A terminal entry: the answer broke off.
    pub fn failed(failure: Failure) -> Self {
        Self {
            event: Some(Event::Failed(Box::new(failure))),
            ..Self::default()
        }
    }

    /// A terminal entry: somebody ended the answer.
    pub fn cancelled(usage: Usage) -> Self {
        Self {
            event: Some(Event::Cancelled(Box::new(Cancelled { usage: Some(usage) }))),
            ..Self::default()
        }
    }

    /// Whether the journal ends here.
    pub fn is_terminal(&self) -> bool {
        matches!(self.event, Some(Event::Finished(_) | Event::Failed(_) | Event::Cancelled(_)))
    }

    /// The usage that a terminal entry reports.
    pub fn usage(&self) -> Option<Usage> {
        match self.event.as_ref()? {
            Event::Finished(finished) => finished.usage,
            Event::Failed(failure) => failure.usage,
            Event::Cancelled(cancelled) => cancelled.usage,
            Event::Reasoning(_) | Event::ToolCall(_) => None,
        }
    }

    /// Bytes that the entry takes in memory, nearly.
    pub fn weight(&self) -> usize {
        let event = match &self.event {
            None => 0,
            Some(Event::Reasoning(text)) => text.len(),
            Some(Event::ToolCall(delta)) => size_of_val(&**delta) + delta.id.len() + delta.name.len() + delta.arguments.len(),
            Some(Event::Finished(finished)) => size_of_val(&**finished) + size_of_val(finished.choices.as_slice()),
            Some(Event::Failed(failure)) => size_of_val(&**failure) + failure.message.len(),
            Some(Event::Cancelled(cancelled)) => size_of_val(&**cancelled),
        };
        let logprobs: usize = self
            .logprobs
            .iter()
            .map(|one| size_of_val(one) * (1 + one.top.len()) + 2 * one.token.len())
            .sum();
        let end = self.end.as_ref().map_or(0, |end| size_of_val(&**end) + end.stop.len());
        let text = if self.token.is_heap_allocated() { self.token.capacity() } else { 0 };
        let ids = if self.token_ids.spilled() {
            size_of_val(&*self.token_ids)
        } else {
            0
        };
        size_of::<Self>() + text + ids + event + logprobs + end
    }
}

impl FinishReason {
    /// The word that OpenAI's API and the request log use.
    pub fn as_word(self) -> &'static str {
        match self {
            Self::Unspecified | Self::Stop => "stop",
            Self::Length => "length",
            Self::ToolCalls => "tool_calls",
            Self::ContentFilter => "content_filter",
        }
    }
}
