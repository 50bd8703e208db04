//! One answer on a call of its own: an entry a message, with what a person at grpcurl wants to see.

use std::{
    collections::VecDeque,
    future::poll_fn,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::Stream;
use journal::Reader;
use proto::v1::{ChatResponse, Entry, Failure, Reason, entry::Event};
use tonic::Status;

use crate::{answer::Answer, mailbox::Mailbox, reading::Reading, router::Router};

/// Entries that are taken out of the journal at once.
const BATCH: usize = 64;

/// The stream of one answer.
pub(crate) struct Solo {
    reader: Reader<Entry>,
    reading: Reading,
    ready: VecDeque<ChatResponse>,
    head_sent: bool,
}

impl Solo {
    /// Reads `answer` from a position. Returns once a worker has taken it.
    ///
    /// # Errors
    /// It was refused.
    pub(crate) async fn open(router: &Arc<Router>, answer: Arc<Answer>, position: u32) -> Result<Self, Failure> {
        let mailbox = Arc::new(Mailbox::default());
        let reader = answer.journal.reader(position);
        let reading = Reading::new(router, answer, &mailbox, 0);
        poll_fn(|context| match mailbox.poll(context) {
            Some(_) => Poll::Ready(()),
            None => Poll::Pending,
        })
        .await;
        if let Some(failure) = refusal(reading.answer()) {
            return Err(failure);
        }
        Ok(Self {
            reader,
            reading,
            ready: VecDeque::new(),
            head_sent: false,
        })
    }
}

/// Why an answer was refused, if it was: it ended before any worker took it.
pub(crate) fn refusal(answer: &Answer) -> Option<Failure> {
    if answer.head().is_some() {
        return None;
    }
    answer.journal.with_entries(|entries| match &entries.last()?.event {
        Some(Event::Failed(failure)) if entries.len() == 1 => Some((**failure).clone()),
        Some(Event::Cancelled(_)) if entries.len() == 1 => Some(Failure::new(Reason::Conflict, "the answer was cancelled before it began")),
        _ => None,
    })
}

impl Stream for Solo {
    type Item = Result<ChatResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = &mut *self;
        if this.ready.is_empty() {
            let (ready, id) = (&mut this.ready, &this.reading.answer().id);
            let taken = this.reader.poll_read(context, BATCH, |first, entries| {
                ready.extend((first..).zip(entries).map(|(position, entry)| response(id, position, entry)));
            });
            match taken {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Ready(Some(())) => {}
            }
        }
        let mut next = this.ready.pop_front();
        if let Some(response) = &mut next
            && !this.head_sent
        {
            this.head_sent = true;
            response.head = this.reading.answer().head().map(Box::new);
        }
        Poll::Ready(next.map(Ok))
    }
}

/// An entry as its own message. `entries` holds it only where it says more than text.
fn response(id: &str, position: u32, entry: &Entry) -> ChatResponse {
    let plain = entry.event.is_none() && entry.logprobs.is_empty() && entry.choice == 0;
    ChatResponse {
        token: Some(entry.token.to_string()),
        done: Some(entry.is_terminal()),
        latency_ms: Some(entry.latency_ms),
        stream_id: Some(id.to_owned()),
        position: Some(position),
        entries: if plain { Vec::new() } else { vec![entry.clone()] },
        ..ChatResponse::default()
    }
}
