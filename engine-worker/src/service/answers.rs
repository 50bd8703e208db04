//! The answers of a worker: those that run, and those that ended lately. The service starts, finds and ends them here.
//!
//! An answer outlives the call that started it. While no call reads it, it is *unattended*: it goes on for a grace time, in which
//! another router may attach, and is ended then. How entries travel is not known here.

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::drain::Drain;
use foldhash::HashMap;
use journal::{Reader, Shelf};
use parking_lot::Mutex;
use proto::v1::{AttachRequest, Entry, Failure, Load, Reason};
use tokio::time::Instant;

use super::Bounds;
use crate::{admission::Admission, engine::Engine};

mod known;
mod start;

use known::Known;
pub(super) use known::Record;
pub(super) use start::Starting;

/// Bytes that ended answers may take together, as long as they may still be asked for.
const ENDED_BYTES: usize = 64 * 1024 * 1024;
/// The most ended answers.
const ENDED: usize = 4096;
/// How often unattended and old answers are looked for, at the most often and at the least.
const WATCH_LEAST: Duration = Duration::from_millis(10);
const WATCH_MOST: Duration = Duration::from_secs(1);

/// All answers that this worker knows.
pub(super) struct Answers {
    engine: Arc<dyn Engine>,
    admission: Arc<Admission>,
    drain: Drain,
    unattended_grace: Duration,
    instance: String,
    shelf: Mutex<Known>,
}

/// A call that reads an answer. While there is one, the answer is attended.
pub(super) struct Attendance {
    answers: Arc<Answers>,
    record: Arc<Record>,
}

impl Attendance {
    pub(super) fn record(&self) -> &Record {
        &self.record
    }

    /// Ends the answer.
    pub(super) fn abort(&self) {
        self.answers.abort_record(&self.record);
    }
}

impl Drop for Attendance {
    fn drop(&mut self) {
        self.answers.leave(&self.record);
    }
}

/// A reader, and its attendance.
pub(super) struct Attached {
    pub(super) attendance: Attendance,
    pub(super) reader: Reader<Entry>,
}

impl Answers {
    pub(super) fn new(engine: Arc<dyn Engine>, bounds: Bounds, drain: Drain) -> Arc<Self> {
        let seats = engine.seats();
        let admission = Admission::new(seats, bounds.queue);
        let answers = Shelf::new(journal::Bounds {
            // Those that are being prepared, and those that end, stand beside the seated and the waiting ones for a moment.
            running: 2 * (seats as usize + bounds.queue as usize) + 64,
            finished_bytes: ENDED_BYTES,
            finished: ENDED,
            retention: bounds.retention,
        });
        Arc::new(Self {
            engine,
            admission,
            drain,
            unattended_grace: bounds.unattended_grace,
            instance: uuid::Uuid::new_v4().to_string(),
            shelf: Mutex::new(Known {
                answers,
                unattended: HashMap::default(),
            }),
        })
    }

    pub(super) fn engine(&self) -> &dyn Engine {
        &*self.engine
    }

    pub(super) fn drain(&self) -> &Drain {
        &self.drain
    }

    /// How long an answer goes on that nobody reads.
    pub(super) fn unattended_grace(&self) -> Duration {
        self.unattended_grace
    }

    /// # Errors
    /// [`Reason::Draining`].
    pub(super) fn refuse_if_draining(&self) -> Result<(), Failure> {
        if self.drain.is_draining() {
            return Err(Failure::new(Reason::Draining, "the worker is stopping and takes nothing new"));
        }
        Ok(())
    }

    /// Reads an answer that exists.
    ///
    /// # Errors
    /// Nobody knows it here, or not from that position on.
    pub(super) fn attach(self: &Arc<Self>, request: &AttachRequest) -> Result<Attached, Failure> {
        let mut known = self.shelf.lock();
        let record = known.find(&request.stream_id).ok_or_else(|| {
            let message = format!("this worker knows no answer {:?}", request.stream_id);
            Failure {
                param: "stream_id".to_owned(),
                ..Failure::new(Reason::NotFound, message)
            }
        })?;
        let reader = record.reader(request.position)?;
        if reader.is_done() {
            return Err(record.past_the_end());
        }
        Ok(Attached {
            attendance: self.attend(&mut known, record),
            reader,
        })
    }

    /// Ends an answer for good if `epoch` is 0; else only what is made here of it up to that epoch, for it goes on in a later one. Says
    /// whether it ran.
    pub(super) fn abort(&self, stream_id: &str, epoch: u32) -> bool {
        match self.find(stream_id) {
            Some(record) if epoch == 0 => self.abort_record(&record),
            Some(record) if record.epoch() <= epoch => self.supersede(&record),
            _ => false,
        }
    }

    /// Shuts the writer of an answer out that goes on in a later epoch. Who still reads it here is told that, and not that it was cancelled:
    /// it may be a router that has just adopted it. Says whether it ran.
    pub(super) fn supersede(&self, record: &Record) -> bool {
        let Ok(writer) = record.journal.claim(u32::MAX) else {
            return false;
        };
        let moved = Failure::new(Reason::Moved, "this answer goes on in a later epoch");
        let running = writer.append(Entry::failed(moved)).is_ok();
        record.cancel.cancel(); // after the entry, which would else be the engine's
        self.engine.poke();
        running
    }

    /// Ends an answer. Says whether it ran.
    pub(super) fn abort_record(&self, record: &Record) -> bool {
        let running = !record.journal.is_closed() && !record.cancel.is_cancelled();
        if running {
            record.cancel.cancel();
            self.engine.poke();
        }
        running
    }

    fn find(&self, stream_id: &str) -> Option<Arc<Record>> {
        self.shelf.lock().find(stream_id)
    }

    fn attend(self: &Arc<Self>, known: &mut Known, record: Arc<Record>) -> Attendance {
        known.attend(&record);
        Attendance {
            answers: Arc::clone(self),
            record,
        }
    }

    fn leave(&self, record: &Arc<Record>) {
        self.shelf.lock().leave(record, Instant::now());
    }

    /// Puts an ended answer among those that are kept for a while.
    fn ended(&self, record: &Arc<Record>) {
        record.forget_messages();
        let mut known = self.shelf.lock();
        if known.is_current(record) {
            known.unattended.remove(&record.stream_id);
            known.answers.finish(&record.stream_id, Instant::now().into_std());
        }
        drop(known);
        self.admission.touch();
    }

    /// Takes off an answer that never began: it leaves no trace.
    fn forget(&self, record: &Arc<Record>) {
        let mut known = self.shelf.lock();
        if known.is_current(record) {
            known.unattended.remove(&record.stream_id);
            known.answers.remove(&record.stream_id);
        }
        drop(known);
        self.admission.touch();
    }

    /// Ends unattended answers when their grace time is over, and lets go of old ones. Lasts until [`Answers::drained`].
    pub(super) async fn watch_over(self: Arc<Self>) {
        let period = (self.unattended_grace / 4).clamp(WATCH_LEAST, WATCH_MOST);
        let look = async {
            loop {
                tokio::time::sleep(period).await;
                self.look(Instant::now());
            }
        };
        tokio::select! {
            () = look => {}
            () = self.drained() => {}
        }
    }

    fn look(&self, now: Instant) {
        let mut known = self.shelf.lock();
        let known = &mut *known;
        known.answers.sweep(now.into_std());
        let overdue = known
            .unattended
            .extract_if(|_, since| now.saturating_duration_since(*since) >= self.unattended_grace);
        let mut any = false;
        for (stream_id, _) in overdue {
            if let Some(record) = known.answers.get(&stream_id).map(|kept| &kept.0) {
                record.cancel.cancel();
                any = true;
            }
        }
        if any {
            self.engine.poke();
        }
    }

    /// Waits until draining has begun and no answer runs.
    pub(super) async fn drained(&self) {
        self.drain.draining().await;
        let mut changes = self.admission.watch();
        while self.shelf.lock().answers.running() > 0 {
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Whether no answer runs.
    pub(super) fn is_idle(&self) -> bool {
        self.shelf.lock().answers.running() == 0
    }

    /// Sees every change of [`Answers::load`].
    pub(super) fn watch(&self) -> tokio::sync::watch::Receiver<()> {
        self.admission.watch()
    }

    /// How busy the worker is.
    pub(super) fn load(&self) -> Load {
        let vitals = self.engine.vitals();
        let age = vitals
            .last_step_age
            .map_or(0, |age| u32::try_from(age.as_millis()).unwrap_or(u32::MAX));
        Load {
            instance: self.instance.clone(),
            slots: self.admission.seats(),
            busy: self.admission.busy(),
            queued: self.admission.queued(),
            queue_limit: self.admission.queue_limit(),
            kv_cells: vitals.kv_cells,
            kv_used: vitals.kv_used,
            last_step_age_ms: age,
            draining: self.drain.is_draining(),
            models: self.engine.models(),
        }
    }
}

fn unix_seconds() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
