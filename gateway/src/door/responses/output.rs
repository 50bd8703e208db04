//! What an answer comes to, as items: thoughts, texts and calls in the order in which they came. A pure function of the entries, so that
//! it is the same whenever and wherever they are read. [`super::events`] listens while it grows; [`super::resource`] shows it.

mod item;

use std::mem;

use proto::v1::{ChoiceEnd, Entry, FinishReason, TokenLogprob, ToolCallDelta, Usage, entry::Event};
use serde_json::Value;

use crate::door::calls::InTurn;

pub(super) use self::item::logprobs;
pub(crate) use self::item::{Item, Kind};

/// The most items: their numbers come from a model's output.
const ITEMS: usize = 1024;

/// The items of an answer.
#[derive(Debug)]
pub(crate) struct Output {
    stream_id: String,
    items: Vec<Item>,
    /// The item that grows.
    open: Option<usize>,
    /// Of tokens whose text is held back: they come with that, should it be text.
    held: Vec<TokenLogprob>,
    calls: InTurn,
    end: Option<End>,
}

/// How an answer ended.
#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(super) how: How,
    pub(super) usage: Option<Usage>,
    /// When it was whole, in seconds since 1970.
    pub(super) completed_at: Option<i64>,
}

#[derive(Clone, Debug)]
pub(crate) enum How {
    Completed,
    /// Cut, for this reason.
    Incomplete(&'static str),
    /// Broken: a code and a message.
    Failed {
        code: &'static str,
        message: String,
    },
    Cancelled,
}

/// What happens to an item.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step<'entry> {
    Opened,
    Delta(&'entry str, &'entry [TokenLogprob]),
    Closed,
}

/// Who hears of what happens, item by item.
pub(crate) trait Listener {
    fn step(&mut self, index: usize, item: &Item, step: Step<'_>);
}

/// Nobody.
impl Listener for () {
    fn step(&mut self, _: usize, _: &Item, _: Step<'_>) {}
}

impl Output {
    /// That of the answer `stream_id`, before its first entry.
    pub(crate) fn new(stream_id: &str) -> Self {
        Self {
            stream_id: stream_id.to_owned(),
            items: Vec::new(),
            open: None,
            held: Vec::new(),
            calls: InTurn::default(),
            end: None,
        }
    }

    /// That of these entries.
    pub(crate) fn of<'entry>(stream_id: &str, entries: impl IntoIterator<Item = &'entry Entry>) -> Self {
        let mut output = Self::new(stream_id);
        for entry in entries {
            output.take(entry, &mut ());
        }
        output
    }

    /// The items as they are shown.
    pub(crate) fn objects(&self) -> Vec<Value> {
        self.items.iter().map(Item::object).collect()
    }

    /// How it ended, once it has.
    pub(crate) fn end(&self) -> Option<&End> {
        self.end.as_ref()
    }

    /// Takes the next entry.
    pub(crate) fn take(&mut self, entry: &Entry, listener: &mut impl Listener) {
        if entry.choice != 0 || self.end.is_some() {
            return; // there is one choice
        }
        self.text(entry, listener);
        match &entry.event {
            None => {}
            Some(Event::Reasoning(text)) if text.is_empty() => {}
            Some(Event::Reasoning(text)) => {
                self.held.clear();
                self.flush(listener);
                self.grow(Kind::Thought, text, &[], listener);
            }
            Some(Event::ToolCall(call)) => {
                self.held.clear();
                self.take_call(call, listener);
            }
            Some(Event::Finished(finished)) => {
                self.flush(listener);
                let reason = finished.choices.first().map_or(FinishReason::Stop, ChoiceEnd::reason);
                self.finish(reason, listener);
                let how = match reason {
                    FinishReason::Length => How::Incomplete("max_output_tokens"),
                    FinishReason::ContentFilter => How::Incomplete("content_filter"),
                    FinishReason::Unspecified | FinishReason::Stop | FinishReason::ToolCalls => How::Completed,
                };
                let is_whole = matches!(how, How::Completed) && finished.ended_ms > 0;
                self.end = Some(End {
                    how,
                    usage: finished.usage,
                    completed_at: is_whole.then_some(finished.ended_ms / 1000),
                });
            }
            Some(Event::Failed(failure)) => self.cut(
                How::Failed {
                    code: failure.reason().as_word(),
                    message: failure.message.clone(),
                },
                failure.usage,
            ),
            Some(Event::Cancelled(cancelled)) => self.cut(How::Cancelled, cancelled.usage),
        }
    }

    /// What an entry has of the text.
    fn text(&mut self, entry: &Entry, listener: &mut impl Listener) {
        if entry.token.is_empty() {
            self.held.extend_from_slice(&entry.logprobs);
            return;
        }
        self.flush(listener);
        if self.held.is_empty() {
            self.grow(Kind::Text, &entry.token, &entry.logprobs, listener);
        } else {
            let mut logprobs = mem::take(&mut self.held);
            logprobs.extend_from_slice(&entry.logprobs);
            self.grow(Kind::Text, &entry.token, &logprobs, listener);
        }
    }

    fn take_call(&mut self, call: &ToolCallDelta, listener: &mut impl Listener) {
        if self.calls.is_over(call.index) {
            // The listeners were told that it is whole. Who reads the answer at its end sees all of it.
            self.call(call, &mut ());
            return;
        }
        let mut calls = mem::take(&mut self.calls);
        calls.take(call, |call| self.call(call, listener));
        self.calls = calls;
    }

    /// Tells the calls that wait for their turn: something else comes, or nothing.
    fn flush(&mut self, listener: &mut impl Listener) {
        if self.calls.is_idle() {
            return;
        }
        let mut calls = mem::take(&mut self.calls);
        calls.flush(|call| self.call(call, listener));
        self.calls = calls;
    }

    fn call(&mut self, call: &ToolCallDelta, listener: &mut impl Listener) {
        let kind = Kind::Call(call.index);
        let known = self.items.iter().position(|item| item.kind == kind);
        let index = known.or_else(|| {
            self.open(kind, listener, |item| {
                item.call_id.clone_from(&call.id);
                item.name.clone_from(&call.name);
            })
        });
        if let Some(index) = index {
            self.add(index, &call.arguments, &[], listener);
        }
    }

    fn grow(&mut self, kind: Kind, text: &str, logprobs: &[TokenLogprob], listener: &mut impl Listener) {
        let open = self
            .open
            .filter(|index| self.items.get(*index).is_some_and(|item| item.kind == kind));
        if let Some(index) = open.or_else(|| self.open(kind, listener, |_| {})) {
            self.add(index, text, logprobs, listener);
        }
    }

    fn add(&mut self, index: usize, text: &str, logprobs: &[TokenLogprob], listener: &mut impl Listener) {
        let Some(item) = self.items.get_mut(index) else { return };
        if text.is_empty() {
            return;
        }
        item.text.push_str(text);
        item.logprobs.extend_from_slice(logprobs);
        listener.step(index, item, Step::Delta(text, logprobs));
    }

    /// Closes the item that grows and opens another one. `None` if there are too many.
    fn open(&mut self, kind: Kind, listener: &mut impl Listener, fill: impl FnOnce(&mut Item)) -> Option<usize> {
        self.close("completed", listener);
        let index = self.items.len();
        if index >= ITEMS {
            return None;
        }
        let (prefix, number) = match kind {
            Kind::Thought => ("rs", self.count(kind)),
            Kind::Text => ("msg", self.count(kind)),
            Kind::Call(index) => ("fc", index as usize),
        };
        let mut item = Item {
            kind,
            id: format!("{prefix}_{}_{number}", self.stream_id),
            text: String::new(),
            call_id: String::new(),
            name: String::new(),
            logprobs: Vec::new(),
            status: "in_progress",
        };
        fill(&mut item);
        if matches!(kind, Kind::Call(_)) && item.call_id.is_empty() {
            item.call_id = format!("call_{}_{number}", self.stream_id);
        }
        listener.step(index, &item, Step::Opened);
        self.items.push(item);
        self.open = Some(index);
        Some(index)
    }

    fn count(&self, kind: Kind) -> usize {
        self.items.iter().filter(|item| item.kind == kind).count()
    }

    fn close(&mut self, status: &'static str, listener: &mut impl Listener) {
        let open = self.open.take().and_then(|index| Some((index, self.items.get_mut(index)?)));
        if let Some((index, item)) = open {
            item.status = status;
            listener.step(index, item, Step::Closed);
        }
    }

    /// The answer is whole. It said something, be it nothing.
    fn finish(&mut self, reason: FinishReason, listener: &mut impl Listener) {
        if self.items.is_empty() {
            self.open(Kind::Text, listener, |_| {});
        }
        let status = match reason {
            FinishReason::Length | FinishReason::ContentFilter => "incomplete",
            _ => "completed",
        };
        self.close(status, listener);
    }

    /// The answer broke off: so did the item that grew.
    fn cut(&mut self, how: How, usage: Option<Usage>) {
        self.flush(&mut ());
        if let Some(item) = self.open.take().and_then(|index| self.items.get_mut(index)) {
            item.status = "incomplete";
        }
        self.end = Some(End {
            how,
            usage,
            completed_at: None,
        });
    }
}

#[cfg(test)]
mod tests;
