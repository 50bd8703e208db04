//! An answer as a stream of server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): the body of a
//! response that takes all entries that are ready, writes each as whole events into one buffer, and hands that on as one frame.
//!
//! What the events are is the door's [`Projection`]. Dropping the body lets go of the answer.

use std::{
    convert::Infallible,
    future::Future as _,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::Body,
    response::{IntoResponse as _, Response},
};
use bytes::{Bytes, BytesMut};
use http::{HeaderValue, header};
use http_body::Frame;
use proto::v1::Entry;
use tokio::time::{Instant, Sleep, sleep};

use crate::{account::Account, stack::STREAM_ID, turn::Answer};

/// How a door writes an answer. A pure function of the head and the request, and of each entry and its position, so that the same
/// position gives the same bytes whenever it is read.
pub(crate) trait Projection: Send + Unpin + 'static {
    /// What comes before the entry at position 0.
    fn open(&self, out: &mut BytesMut);
    /// What stands for this entry: any number of whole events.
    fn entry(&self, position: u32, entry: &Entry, out: &mut BytesMut);
    /// What says that the stream is still there.
    fn ping(&self, out: &mut BytesMut) {
        out.extend_from_slice(b": ping\n\n");
    }
}

/// A response that streams `answer`, after `keepalive` of silence with pings.
pub(crate) fn response(answer: Answer, projection: impl Projection, account: Account, keepalive: Duration) -> Response {
    let stream_id = HeaderValue::from_str(&answer.head().stream_id);
    let stream = Stream {
        opened: answer.position() > 0,
        answer,
        projection,
        account,
        batch: Vec::new(),
        out: BytesMut::new(),
        ended: false,
        keepalive,
        written: Instant::now(),
        alarm: Box::pin(sleep(keepalive)),
    };
    let mut response = Body::new(stream).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    if let Ok(stream_id) = stream_id {
        headers.insert(STREAM_ID, stream_id);
    }
    response
}

/// The body.
struct Stream<P> {
    answer: Answer,
    projection: P,
    account: Account,
    batch: Vec<Entry>,
    out: BytesMut,
    opened: bool,
    ended: bool,
    keepalive: Duration,
    /// When something was last written.
    written: Instant,
    alarm: Pin<Box<Sleep>>,
}

impl<P: Projection> Stream<P> {
    /// Writes all entries that are ready.
    fn write(&mut self, context: &mut Context<'_>) {
        if !self.opened {
            self.opened = true;
            self.projection.open(&mut self.out);
        }
        self.batch.clear();
        match self.answer.poll_read(context, &mut self.batch) {
            Poll::Ready(Some(first)) => {
                for (position, entry) in (first..).zip(&self.batch) {
                    self.projection.entry(position, entry, &mut self.out);
                }
                self.written = Instant::now();
                self.account.note(&self.batch, self.written);
                self.ended = self.batch.last().is_some_and(Entry::is_terminal);
            }
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
    }

    /// Writes a ping once nothing was written for long enough. The alarm is set again only when it goes off, not for each token.
    fn ping(&mut self, context: &mut Context<'_>) {
        while self.alarm.as_mut().poll(context).is_ready() {
            let due = self.written + self.keepalive;
            let now = Instant::now();
            if due <= now {
                self.projection.ping(&mut self.out);
                self.written = now;
            }
            self.alarm.as_mut().reset(self.written + self.keepalive);
        }
    }
}

impl<P: Projection> http_body::Body for Stream<P> {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let stream = &mut *self;
        if !stream.ended {
            stream.write(context);
        }
        if stream.out.is_empty() && !stream.ended {
            stream.ping(context);
        }
        if !stream.out.is_empty() {
            return Poll::Ready(Some(Ok(Frame::data(stream.out.split().freeze()))));
        }
        if stream.ended { Poll::Ready(None) } else { Poll::Pending }
    }

    fn is_end_stream(&self) -> bool {
        self.ended && self.out.is_empty()
    }
}
