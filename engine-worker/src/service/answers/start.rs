//! How an answer starts: entered, prepared, seated, begun. Whatever goes wrong on the way, and whoever lets go of it, nothing
//! stays behind.

use std::sync::Arc;

use chassis::trace;
use journal::Writer;
use proto::v1::{ChatRequest, Entry, Failure, GenerateRequest, Head, Usage};
use tokio::time::Instant;
use tracing::{Span, info_span};

use super::{Answers, Attached, Record, known::Entered};
use crate::{
    admission::Seats,
    answer::{Answer, Ending},
    engine::Prepared,
    request,
};

/// The most bytes of an answer's name.
const STREAM_ID_BYTES: usize = 256;

/// An answer that has its place on the shelf and a reader, and not yet its seats. Dropping it gives it up.
pub(in crate::service) struct Starting {
    place: Place,
    attached: Attached,
    request: GenerateRequest,
    log: Log,
}

impl Answers {
    /// Enters an answer: from here on it can be found, and ended.
    ///
    /// # Errors
    /// The request is wrong, the name is taken, too many are on their way, or the worker is draining.
    pub(in crate::service) fn enter(self: &Arc<Self>, mut request: GenerateRequest) -> Result<Starting, Failure> {
        self.refuse_if_draining()?;
        let stream_id = name(&mut request)?;
        let chat = request.request.as_ref().ok_or_else(missing)?;
        request::check(chat)?;
        request::check_sight(chat, || self.engine.models())?;
        let log = Log::new(&request, chat);
        let mut known = self.shelf.lock();
        let Entered { record, writer, replaced } = known.enter(&mut request, stream_id, || self.admission.full())?;
        let reader = record.journal.reader(record.journal.len()); // what came along, the router has
        let attendance = self.attend(&mut known, Arc::clone(&record));
        drop(known);
        if let Some(replaced) = replaced {
            self.supersede(&replaced);
        }
        let place = Place {
            answers: Arc::clone(self),
            record,
            writer: Some(writer),
        };
        Ok(Starting {
            place,
            attached: Attached { attendance, reader },
            request,
            log,
        })
    }

    /// Brings the engine's cache to where an answer stands that is about to move here. It has no place on the shelf: it is not here yet.
    ///
    /// # Errors
    /// What the engine says against it, there is no room, or the worker is draining.
    pub(in crate::service) async fn warm(&self, request: GenerateRequest) -> Result<(), Failure> {
        self.refuse_if_draining()?;
        request::check(request.request.as_ref().ok_or_else(missing)?)?;
        let prepared = self.engine.prepare(request).await?;
        let _seats = self.admission.admit(prepared.seats()).await?;
        prepared.warm().await
    }

    /// Prepares first, so that a wrong request is refused before it waits.
    async fn seat(&self, request: GenerateRequest) -> Result<(GenerateRequest, Box<dyn Prepared>, Seats), Failure> {
        let kept = GenerateRequest {
            request: request.request.as_ref().map(|chat| ChatRequest {
                conversation_id: chat.conversation_id.clone(),
                ..ChatRequest::default()
            }),
            resume: request.resume.clone(),
            ..GenerateRequest::default()
        };
        let prepared = self.engine.prepare(request).await?;
        let seats = self.admission.admit(prepared.seats()).await?;
        Ok((kept, prepared, seats))
    }
}

impl Starting {
    /// The answer, to end it meanwhile.
    pub(in crate::service) fn record(&self) -> Arc<Record> {
        Arc::clone(&self.place.record)
    }

    /// Prepares it, waits for its seats, and begins. An answer that is ended meanwhile has only its end to read.
    ///
    /// # Errors
    /// What the engine says against it, or the queue is full.
    pub(in crate::service) async fn begin(self) -> Result<Attached, Failure> {
        let Self {
            mut place,
            attached,
            request,
            mut log,
        } = self;
        let (answers, record) = (Arc::clone(&place.answers), Arc::clone(&place.record));
        let seated = tokio::select! {
            biased;
            () = record.cancel.cancelled() => return Ok(attached), // its place goes, and closes the journal
            seated = answers.seat(request) => seated?,
        };
        let (request, prepared, seats) = seated;
        let head = Head {
            model: prepared.model(),
            prompt_tokens: prepared.prompt_tokens(),
            ..head_of(&record, request.request.as_ref())
        };
        log.begun(&head);
        let prompt_tokens = head.prompt_tokens;
        let _ = record.head.set(head);
        if let Some(writer) = place.writer.take() {
            let cancel = record.cancel.clone();
            let answer = Answer::new(writer, cancel, prompt_tokens, &request.resume, Some(seats)).on_end(move |ending| {
                answers.ended(&record);
                log.ended(&ending);
            });
            prepared.begin(answer);
        }
        Ok(attached)
    }
}

/// The place of an answer that has not begun. Dropped before it began, the answer is taken off the shelf and its journal closed.
struct Place {
    answers: Arc<Answers>,
    record: Arc<Record>,
    writer: Option<Writer<Entry>>,
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(writer) = self.writer.take() {
            let _ = self.record.head.set(head_of(&self.record, None));
            let _ = writer.append(Entry::cancelled(Usage::default()));
            self.answers.forget(&self.record);
        }
    }
}

fn head_of(record: &Record, request: Option<&ChatRequest>) -> Head {
    Head {
        stream_id: record.stream_id.to_string(),
        created: record.created,
        epoch: record.epoch(),
        conversation_id: request.map(|request| request.conversation_id.clone()).unwrap_or_default(),
        ..Head::default()
    }
}

fn missing() -> Failure {
    Failure::invalid("request", "request is missing")
}

/// The answer's name: what the router called it, or a new one for a person who did not care.
fn name(request: &mut GenerateRequest) -> Result<Arc<str>, Failure> {
    if request.stream_id.len() > STREAM_ID_BYTES {
        let message = format!(
            "stream_id has {} bytes; at most {STREAM_ID_BYTES} are taken",
            request.stream_id.len()
        );
        return Err(Failure::invalid("stream_id", message));
    }
    if request.stream_id.is_empty() {
        request.stream_id = uuid::Uuid::new_v4().to_string();
    }
    Ok(request.stream_id.as_str().into())
}

/// The span and the one log line of an answer.
struct Log {
    span: Span,
    stream_id: String,
    request_id: String,
    model: String,
    arrived: Instant,
}

impl Log {
    fn new(request: &GenerateRequest, chat: &ChatRequest) -> Self {
        let span = info_span!(
            "generate",
            stream_id = request.stream_id,
            request_id = chat.request_id,
            epoch = request.epoch,
            model = tracing::field::Empty,
            outcome = tracing::field::Empty,
            prompt_tokens = tracing::field::Empty,
            completion_tokens = tracing::field::Empty,
        );
        trace::continue_from(&span, &chat.traceparent);
        Self {
            span,
            stream_id: request.stream_id.clone(),
            request_id: chat.request_id.clone(),
            model: String::new(),
            arrived: Instant::now(),
        }
    }

    fn begun(&mut self, head: &Head) {
        self.span.record("model", head.model.as_str());
        self.model.clone_from(&head.model);
    }

    fn ended(&self, ending: &Ending) {
        let usage = ending.usage;
        self.span.record("outcome", ending.outcome);
        self.span.record("prompt_tokens", usage.prompt_tokens);
        self.span.record("completion_tokens", usage.completion_tokens);
        let ttft_ms = ending.first_entry.map(|first| millis(first - self.arrived));
        tracing::info!(
            parent: &self.span,
            stream_id = self.stream_id,
            request_id = self.request_id,
            model = self.model,
            outcome = ending.outcome,
            prompt_tokens = usage.prompt_tokens,
            cached_tokens = usage.cached_tokens,
            completion_tokens = usage.completion_tokens,
            ttft_ms,
            duration_ms = millis(self.arrived.elapsed()),
            "an answer has ended"
        );
    }
}

fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
