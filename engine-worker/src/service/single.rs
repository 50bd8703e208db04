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
    opening::Opening,
};

/// The responses of a call that reads one answer.
pub struct Single {
    reader: Reader<Entry>,
    attendance: Attendance,
    /// Whether this call started the answer, and ends it when it is dropped.
    owns: bool,
    opening: Opening,
}

impl Single {
    pub(super) fn starting(attached: Attached) -> Self {
        Self::new(attached, true, Opening::Head)
    }

    pub(super) fn attached(attached: Attached, opening: Opening) -> Self {
        Self::new(attached, false, opening)
    }

    fn new(attached: Attached, owns: bool, opening: Opening) -> Self {
        Self {
            reader: attached.reader,
            attendance: attached.attendance,
            owns,
            opening,
        }
    }

    fn response(&mut self, entries: Vec<Entry>) -> GenerateResponse {
        let first = self.reader.next() - u32::try_from(entries.len()).unwrap_or(0);
        let record = self.attendance.record();
        let mut response = GenerateResponse {
            position: record.position(first),
            entries,
            ..GenerateResponse::default()
        };
        self.opening.write(record, &mut response);
        response
    }
}

impl Stream for Single {
    type Item = Result<GenerateResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.opening != Opening::Told && self.attendance.record().has_begun() {
            return Poll::Ready(Some(Ok(self.response(Vec::new()))));
        }
        let entries = ready!(self.reader.poll_read(context, BATCH, |_, entries| entries.to_vec()));
        Poll::Ready(entries.map(|entries| Ok(self.response(entries))))
    }
}

impl Drop for Single {
    fn drop(&mut self) {
        if self.owns {
            self.attendance.abort();
        }
    }
}
