//! The writing end of an answer, as an engine holds it.
//!
//! It keeps the promises that must not depend on the engine: exactly one terminal entry whatever happens, usage counted from
//! the entries themselves, and seats that come back when it is dropped.

use std::{
    fmt,
    time::{SystemTime, UNIX_EPOCH},
};

use journal::{Entries, Writer};
use proto::v1::{ChoiceEnd, Entry, Failure, Reason, ResumePoint, Usage, entry::Event};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::admission::Seats;

/// The journal takes nothing more from this engine: the answer is full, ended, or another writer's. Drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

/// How an answer ended, for who keeps the books.
#[derive(Clone, Copy, Debug)]
pub struct Ending {
    /// `finished`, `cancelled`, `replaced` by another writer, or the word of the failure's reason.
    pub outcome: &'static str,
    /// What it took.
    pub usage: Usage,
    /// When the first entry came.
    pub first_entry: Option<Instant>,
}

type OnEnd = Box<dyn FnOnce(Ending) + Send>;

/// An answer that an engine writes.
pub struct Answer {
    writer: Writer<Entry>,
    cancel: CancellationToken,
    usage: Usage,
    first_entry: Option<Instant>,
    ended: bool,
    seats: Option<Seats>,
    on_end: Option<OnEnd>,
}

impl Answer {
    /// An answer to write from here on. `resume` is what it has already.
    pub fn new(writer: Writer<Entry>, cancel: CancellationToken, prompt_tokens: u32, resume: &[ResumePoint], seats: Option<Seats>) -> Self {
        let made: usize = resume.iter().map(|point| point.token_ids.len()).sum();
        let usage = Usage {
            prompt_tokens,
            completion_tokens: u32::try_from(made).unwrap_or(u32::MAX),
            reasoning_tokens: writer.journal().with_entries(thought),
            ..Usage::default()
        };
        Self {
            writer,
            cancel,
            usage,
            first_entry: None,
            ended: false,
            seats,
            on_end: None,
        }
    }

    /// Calls `on_end` once, after the terminal entry: by then the seats are free.
    #[must_use]
    pub fn on_end(mut self, on_end: impl FnOnce(Ending) + Send + 'static) -> Self {
        self.on_end = Some(Box::new(on_end));
        self
    }

    /// Appends an entry that is not terminal.
    ///
    /// # Errors
    /// [`Over`]: drop the answer.
    pub fn push(&mut self, entry: Entry) -> Result<(), Over> {
        if self.first_entry.is_none() {
            self.first_entry = Some(Instant::now());
        }
        let (tokens, reasoning) = (entry.tokens, matches!(entry.event, Some(Event::Reasoning(_))));
        match self.writer.append(entry) {
            Ok(_) => {
                self.usage.completion_tokens += tokens;
                self.usage.reasoning_tokens += if reasoning { tokens } else { 0 };
                Ok(())
            }
            Err(journal::Error::Full) => {
                self.end_failed(Failure::new(Reason::Limit, "the answer is longer than this worker keeps"));
                Err(Over)
            }
            Err(_) => {
                self.close("replaced", None);
                Err(Over)
            }
        }
    }

    /// The answer is whole.
    pub fn finish(mut self, choices: Vec<ChoiceEnd>) {
        let mut terminal = Entry::finished(choices, self.usage);
        if let Some(Event::Finished(finished)) = &mut terminal.event {
            let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            finished.ended_ms = i64::try_from(since_1970.as_millis()).unwrap_or_default();
        }
        self.close("finished", Some(terminal));
    }

    /// The answer broke off.
    pub fn fail(mut self, failure: Failure) {
        self.end_failed(failure);
    }

    /// Whether somebody ended the answer. Drop it then.
    pub fn is_cancelled(&self) -> bool {
        self.cancel.is_cancelled()
    }

    /// Waits until somebody ends the answer.
    pub fn cancelled(&self) -> tokio_util::sync::WaitForCancellationFutureOwned {
        self.cancel.clone().cancelled_owned()
    }

    /// What it took so far.
    pub fn usage(&self) -> Usage {
        self.usage
    }

    /// Input tokens that were found in the KV cache.
    pub fn set_cached_tokens(&mut self, tokens: u32) {
        self.usage.cached_tokens = tokens;
    }

    /// What a remote engine counted, which knows better than its pieces tell.
    pub fn set_usage(&mut self, usage: Usage) {
        self.usage = usage;
    }

    fn end_failed(&mut self, failure: Failure) {
        let word = failure.reason().as_word();
        let usage = Some(self.usage);
        self.close(word, Some(Entry::failed(Failure { usage, ..failure })));
    }

    /// Gives the seats back, closes the journal and tells who keeps the books, in that order: whoever sees the end finds the
    /// seats free.
    fn close(&mut self, outcome: &'static str, terminal: Option<Entry>) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        self.seats = None;
        if let Some(terminal) = terminal {
            let _ = self.writer.append(terminal); // fails only if another writer or terminal came first, and theirs stands
        }
        if let Some(on_end) = self.on_end.take() {
            on_end(Ending {
                outcome,
                usage: self.usage,
                first_entry: self.first_entry,
            });
        }
    }
}

/// Tokens of reasoning among the entries that came along from an earlier worker.
fn thought(entries: &Entries<Entry>) -> u32 {
    let thoughts = entries.iter().filter(|entry| matches!(entry.event, Some(Event::Reasoning(_))));
    thoughts.map(|entry| entry.tokens).sum()
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        if self.cancel.is_cancelled() {
            let terminal = Entry::cancelled(self.usage);
            self.close("cancelled", Some(terminal));
        } else {
            self.end_failed(Failure::new(Reason::Internal, "the engine let go of the answer"));
        }
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer")
            .field("usage", &self.usage)
            .field("ended", &self.ended)
            .finish_non_exhaustive()
    }
}
