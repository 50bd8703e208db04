//! One answer on one call: `Generate` and `Attach`. An exchange with one reader, and no commands.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use futures_util::Stream;
use journal::Reader;
use proto::v1::{Entry, GenerateResponse};
use tonic::Status;

use super::{
    answers::{Attached, Attendance},
    exchange::BATCH,
};

/// The responses of a call that reads one answer.
pub struct Single {
    reader: Reader<Entry>,
    attendance: Attendance,
    /// Whether this call started the answer, and ends it when it is dropped.
    owns: bool,
    head_sent: bool,
}

impl Single {
    pub(super) fn starting(attached: Attached) -> Self {
        Self::new(attached, true)
    }

    pub(super) fn attached(attached: Attached) -> Self {
        Self::new(attached, false)
    }

    fn new(attached: Attached, owns: bool) -> Self {
        Self {
            reader: attached.reader,
            attendance: attached.attendance,
            owns,
            head_sent: false,
        }
    }

    fn response(&self, entries: Vec<Entry>) -> GenerateResponse {
        let first = self.reader.next() - u32::try_from(entries.len()).unwrap_or(0);
        GenerateResponse {
            position: self.attendance.record().position(first),
            head: if self.head_sent {
                None
            } else {
                self.attendance.record().head().cloned()
            },
            entries,
            ..GenerateResponse::default()
        }
    }
}

impl Stream for Single {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.head_sent && self.attendance.record().head().is_some() {
            let response = self.response(Vec::new());
            self.head_sent = true;
            return Poll::Ready(Some(Ok(response)));
        }
        let entries = ready!(self.reader.poll_read(context, BATCH, |_, entries| entries.to_vec()));
        Poll::Ready(entries.map(|entries| {
            let response = self.response(entries);
            self.head_sent = true;
            Ok(response)
        }))
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        if self.owns {
            self.attendance.abort();
        }
    }
}
