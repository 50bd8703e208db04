//! The writing end of an answer, as an engine holds it.
//!
//! It keeps the promises that must not depend on the engine: exactly one terminal entry whatever happens, usage counted from
//! the entries themselves, and seats that come back when it is dropped.

use journal::Writer;
use proto::v1::{ChoiceEnd, Entry, Failure, Reason, ResumePoint, Usage, entry::Event};
use tokio::sync::OwnedSemaphorePermit;
use tokio_util::sync::CancellationToken;

/// The journal takes nothing more from this engine: the answer is full, ended, or another writer's. Drop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Over;

/// An answer that an engine writes.
#[derive(Debug)]
pub struct Answer {
    writer: Writer<Entry>,
    cancel: CancellationToken,
    usage: Usage,
    ended: bool,
    _seats: Option<OwnedSemaphorePermit>,
}

impl Answer {
    /// An answer to write from here on. `resume` is what it has already.
    pub fn new(
        writer: Writer<Entry>,
        cancel: CancellationToken,
        prompt_tokens: u32,
        resume: &[ResumePoint],
        seats: Option<OwnedSemaphorePermit>,
    ) -> Self {
        let made: usize = resume.iter().map(|point| point.token_ids.len()).sum();
        let usage = Usage {
            prompt_tokens,
            completion_tokens: u32::try_from(made).unwrap_or(u32::MAX),
            ..Usage::default()
        };
        Self {
            writer,
            cancel,
            usage,
            ended: false,
            _seats: seats,
        }
    }

    /// Appends an entry that is not terminal.
    ///
    /// # Errors
    /// [`Over`]: drop the answer.
    pub fn push(&mut self, entry: Entry) -> Result<(), Over> {
        let (tokens, reasoning) = (entry.tokens, matches!(entry.event, Some(Event::Reasoning(_))));
        match self.writer.append(entry) {
            Ok(_) => {
                self.usage.completion_tokens += tokens;
                self.usage.reasoning_tokens += if reasoning { tokens } else { 0 };
                Ok(())
            }
            Err(journal::Error::Full) => {
                self.end(Entry::failed(Failure {
                    usage: Some(self.usage),
                    ..Failure::new(Reason::Limit, "the answer is longer than this worker keeps")
                }));
                Err(Over)
            }
            Err(_) => {
                self.ended = true;
                Err(Over)
            }
        }
    }

    /// The answer is whole.
    pub fn finish(mut self, choices: Vec<ChoiceEnd>) {
        let usage = self.usage;
        self.end(Entry::finished(choices, usage));
    }

    /// The answer broke off.
    pub fn fail(mut self, failure: Failure) {
        let usage = self.usage;
        self.end(Entry::failed(Failure {
            usage: Some(usage),
            ..failure
        }));
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

    fn end(&mut self, terminal: Entry) {
        self.ended = true;
        let _ = self.writer.append(terminal); // fails only if another writer or terminal came first, and theirs stands
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        if self.ended {
            return;
        }
        let usage = self.usage;
        if self.cancel.is_cancelled() {
            self.end(Entry::cancelled(usage));
        } else {
            self.end(Entry::failed(Failure {
                usage: Some(usage),
                ..Failure::new(Reason::Internal, "the engine let go of the answer")
            }));
        }
    }
}
