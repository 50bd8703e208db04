//! What is kept of the answers: one record each, by name, and which of them nobody reads. Always behind the lock of
//! [`Answers`](super::Answers); no clock, no engine, nothing that waits.

use std::sync::{
    Arc, OnceLock,
    atomic::{AtomicU32, Ordering},
};

use foldhash::HashMap;
use journal::{Journal, Limits, Reader, Shelf, Writer};
use parking_lot::Mutex;
use proto::v1::{ChatRequest, Entry, Failure, GenerateRequest, Head, Reason};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{super::hold::Hold, unix_seconds};

/// The answers by name.
pub(super) struct Known {
    pub(super) answers: Shelf<Arc<str>, Kept>,
    /// Running answers that no call reads, and since when.
    pub(super) unattended: HashMap<Arc<str>, Instant>,
}

/// One answer, as one writer makes it.
#[derive(Debug)]
pub(in crate::service) struct Record {
    pub(super) stream_id: Arc<str>,
    /// The writer's, as the router knows it that answers for the answer. It grows when another router takes over.
    epoch: AtomicU32,
    /// The call that answers for it.
    holder: Mutex<Option<Arc<Hold>>>,
    /// When it was admitted, in seconds since 1970.
    pub(super) created: i64,
    /// The position of the journal's first entry: not 0 for an answer that another worker began, and whose entries did not come along.
    base: u32,
    pub(super) journal: Journal<Entry>,
    pub(super) cancel: CancellationToken,
    /// Known once the answer has begun.
    pub(super) head: OnceLock<Head>,
    /// What was asked: a router that takes the answer over from another wants to know. Once it has ended, only what says whose it is.
    asked: Mutex<Option<Box<ChatRequest>>>,
    /// Calls that read it. Changes only while [`Known`] is locked.
    attending: AtomicU32,
}

/// What the shelf holds.
pub(super) struct Kept(pub(super) Arc<Record>);

impl journal::Kept for Kept {
    fn weight(&self) -> usize {
        self.0.journal.bytes()
    }
}

impl Record {
    /// What readers are told first, once it is known.
    pub(in crate::service) fn head(&self) -> Option<Head> {
        let head = self.head.get()?;
        Some(Head {
            epoch: self.epoch(),
            ..head.clone()
        })
    }

    /// Whether it is known what readers are told first.
    pub(in crate::service) fn has_begun(&self) -> bool {
        self.head.get().is_some()
    }

    /// The writer's epoch.
    pub(super) fn epoch(&self) -> u32 {
        self.epoch.load(Ordering::Acquire)
    }

    /// This call has started the answer, and answers for it.
    pub(in crate::service) fn hold(&self, hold: Arc<Hold>) {
        *self.holder.lock() = Some(hold);
    }

    /// This call takes the answer over, in the epoch that its router has claimed. The one that held it is told; so is one that comes too
    /// late, because another has taken that epoch.
    pub(in crate::service) fn take_over(&self, hold: Arc<Hold>, epoch: u32) {
        let mut holder = self.holder.lock();
        let loser = if epoch > self.epoch() {
            self.epoch.store(epoch, Ordering::Release);
            holder.replace(hold)
        } else {
            Some(hold)
        };
        drop(holder);
        if let Some(loser) = loser {
            loser.lose();
        }
    }

    /// What was asked, for a router that takes the answer over.
    pub(in crate::service) fn asked(&self) -> Option<Box<ChatRequest>> {
        self.asked.lock().clone()
    }

    /// It has ended: what was said is not needed any more, but still whose it is and which request it answers.
    pub(super) fn forget_messages(&self) {
        if let Some(asked) = self.asked.lock().as_mut() {
            asked.prompt = String::new();
            asked.prompt_tokens = Vec::new();
            asked.messages = Vec::new();
            asked.tools = Vec::new();
            asked.response_format = None;
            asked.sampling = None;
        }
    }

    /// The position in the answer of this entry of the journal.
    pub(in crate::service) fn position(&self, entry: u32) -> u32 {
        self.base.saturating_add(entry)
    }

    /// The failure of a reader that begins past the end.
    pub(in crate::service) fn past_the_end(&self) -> Failure {
        let end = self.position(self.journal.len());
        Failure::invalid(
            "position",
            format!("the answer has ended; its last entry is at position {}", end.saturating_sub(1)),
        )
    }

    /// A reader from this position of the answer on.
    ///
    /// # Errors
    /// This worker does not have what stands there.
    pub(super) fn reader(&self, position: u32) -> Result<Reader<Entry>, Failure> {
        let Some(next) = position.checked_sub(self.base) else {
            let message = format!("this worker has the answer from position {} on, not from {position}", self.base);
            return Err(Failure {
                param: "position".to_owned(),
                ..Failure::new(Reason::Expired, message)
            });
        };
        Ok(self.journal.reader(next))
    }
}

impl Known {
    /// The answer of that name.
    pub(super) fn find(&self, stream_id: &str) -> Option<Arc<Record>> {
        self.answers.get(stream_id).map(|kept| Arc::clone(&kept.0))
    }

    /// One call more reads it.
    pub(super) fn attend(&mut self, record: &Record) {
        record.attending.fetch_add(1, Ordering::Relaxed);
        self.unattended.remove(&record.stream_id);
    }

    /// One call less reads it. An answer that runs and has no reader any more is unattended from now on.
    pub(super) fn leave(&mut self, record: &Arc<Record>, now: Instant) {
        let last = record.attending.fetch_sub(1, Ordering::Relaxed) == 1;
        if last && !record.journal.is_closed() && self.is_current(record) {
            self.unattended.insert(Arc::clone(&record.stream_id), now);
        }
    }

    /// Whether this is what its name stands for now: an answer of a higher epoch may have taken its place.
    pub(super) fn is_current(&self, record: &Arc<Record>) -> bool {
        self.answers.get(&record.stream_id).is_some_and(|kept| Arc::ptr_eq(&kept.0, record))
    }

    /// Puts a new answer on the shelf. A lower epoch of the same answer is ended and gives way; the same or a higher one stays.
    pub(super) fn enter(
        &mut self,
        request: &mut GenerateRequest,
        stream_id: Arc<str>,
        full: impl FnOnce() -> Failure,
    ) -> Result<Entered, Failure> {
        let epoch = request.epoch.max(1);
        let replaced = match self.answers.get(&stream_id) {
            None => None,
            Some(Kept(held)) if held.epoch() < epoch => Some(Arc::clone(held)),
            Some(Kept(held)) => {
                let message = format!(
                    "the answer {stream_id:?} is held at epoch {}, and epoch {epoch} asks for it",
                    held.epoch()
                );
                return Err(Failure {
                    param: "epoch".to_owned(),
                    ..Failure::new(Reason::Conflict, message)
                });
            }
        };
        if replaced.is_some() {
            self.unattended.remove(&stream_id);
            self.answers.take(&stream_id);
        }
        let journal = Journal::new(Limits::default());
        let writer = journal
            .claim(epoch)
            .map_err(|error| Failure::new(Reason::Internal, format!("an empty journal refused its writer: {error}")))?;
        let entries = request.entries.clone(); // an engine that knows no token ids reads them, too
        let base = request.position.saturating_sub(u32::try_from(entries.len()).unwrap_or(u32::MAX));
        writer
            .append_from(0, entries)
            .map_err(|error| Failure::invalid("entries", format!("these cannot be the entries before the position: {error}")))?;
        let record = Arc::new(Record {
            stream_id: Arc::clone(&stream_id),
            epoch: AtomicU32::new(epoch),
            holder: Mutex::default(),
            created: if request.created == 0 { unix_seconds() } else { request.created },
            base,
            journal,
            cancel: CancellationToken::new(),
            head: OnceLock::new(),
            asked: Mutex::new(request.request.clone().map(Box::new)),
            attending: AtomicU32::new(0),
        });
        self.answers.insert(stream_id, Kept(Arc::clone(&record))).map_err(|_| full())?;
        Ok(Entered { record, writer, replaced })
    }
}

/// An answer that has its place on the shelf, and not yet its seats.
pub(super) struct Entered {
    pub(super) record: Arc<Record>,
    pub(super) writer: Writer<Entry>,
    /// The lower epoch that it ends.
    pub(super) replaced: Option<Arc<Record>>,
}
