//! What an entry means: used by whoever writes, keeps or projects journals.

use crate::v1::{Cancelled, ChoiceEnd, Entry, Failure, FinishReason, Finished, Usage, entry::Event};

impl Entry {
    /// A token of text.
    pub fn text(token: impl Into<String>, id: u32) -> Self {
        Self {
            token: token.into(),
            token_ids: vec![id],
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
        size_of::<Self>() + self.token.capacity() + self.token_ids.capacity() * size_of::<u32>() + event + logprobs + end
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
