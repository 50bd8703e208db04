//! An answer as a stream of server-sent events (<https://html.spec.whatwg.org/multipage/server-sent-events.html>): the body of a
//! response that takes all entries that are ready, writes each as whole events into one buffer, and hands that on as one frame.
//!
//! What the events are is the door's [`Projection`]; a stream that can be resumed gives them [`Ids`]. Dropping the body lets go of the
//! answer. When the gateway stops, the stream ends between two events, and says so ([`crate::leave`]).

mod ids;

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
use proto::v1::{Entry, Failure, Reason};
use tokio::time::{Instant, Sleep, sleep};

pub(crate) use self::ids::Ids;
use crate::{
    account::Account,
    app::App,
    leave::{self, Leaving},
    stack::STREAM_ID,
    turn::Answer,
};

/// The most room that is made for events before they are written, in bytes: some hundred small ones. Larger ones make their own.
const ROOM: usize = 64 * 1024;

/// How a door writes an answer. Where a client can come back, it is a pure function of the head and the request, and of each entry, so
/// that the same position gives the same bytes whenever it is read. Other doors may remember what came before.
pub(crate) trait Projection: Send + Unpin + 'static {
    /// What comes before the entry at position 0.
    fn open(&mut self, out: &mut BytesMut);
    /// What stands for this entry: any number of whole events.
    fn entry(&mut self, entry: &Entry, out: &mut BytesMut);
    /// What stands for an end that is ours and not the answer's: the client may come back for the rest.
    fn broken(&mut self, entry: &Entry, out: &mut BytesMut) {
        self.entry(entry, out);
    }
    /// What says that the stream is still there. Among events with ids it is a line before the next event: some clients take any
    /// blank line for the end of an event once they have an id.
    fn ping(&self, with_ids: bool, out: &mut BytesMut) {
        out.extend_from_slice(if with_ids { b": ping\n" } else { b": ping\n\n" });
    }
}

/// A response that streams `answer`, after some silence with pings; with `ids`, one that can be resumed.
pub(crate) fn response(app: &App, account: Account, answer: Answer, projection: impl Projection, ids: Option<Ids>) -> Response {
    let stream_id = HeaderValue::from_str(&answer.head().stream_id);
    let keepalive = app.settings().sse_keepalive;
    let mut out = BytesMut::new();
    if ids.is_some() {
        out.extend_from_slice(format!("retry: {}\n", app.settings().sse_retry.as_millis()).as_bytes());
    }
    let stream = Stream {
        opened: answer.position() > 0,
        leaving: leave::when(app, &answer.head().stream_id, ids.is_some()),
        answer,
        projection,
        ids,
        account,
        batch: Vec::new(),
        out,
        ended: false,
        keepalive,
        written: Instant::now(),
        busy: false,
        armed: false,
        alarm: Box::pin(sleep(keepalive)),
    };
    let mut response = events(Body::new(stream));
    if let Ok(stream_id) = stream_id {
        response.headers_mut().insert(STREAM_ID, stream_id);
    }
    response
}

/// A response that sends a client away which wants to read on: a browser would give up for good on any other status.
pub(crate) fn come_back(client: &str) -> Response {
    events(Body::from(leave::farewell(client)))
}

/// A response whose body is events.
pub(crate) fn events(body: Body) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream; charset=utf-8"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache, no-transform"));
    headers.insert("x-accel-buffering", HeaderValue::from_static("no"));
    response
}

/// The body.
#[expect(clippy::struct_excessive_bools, reason = "each is a thing of its own that has happened or not")]
struct Stream<P> {
    answer: Answer,
    projection: P,
    ids: Option<Ids>,
    account: Account,
    batch: Vec<Entry>,
    out: BytesMut,
    opened: bool,
    ended: bool,
    keepalive: Duration,
    /// When something was last written.
    written: Instant,
    /// Something was written since the alarm was looked at.
    busy: bool,
    /// The alarm knows whom to wake.
    armed: bool,
    alarm: Pin<Box<Sleep>>,
    leaving: Leaving,
}

impl<P: Projection> Stream<P> {
    /// Writes all entries that are ready.
    fn write(&mut self, context: &mut Context<'_>) {
        if !self.opened {
            self.opened = true;
            self.open();
        }
        self.batch.clear();
        match self.answer.poll_read(context, &mut self.batch) {
            Poll::Ready(Some(first)) => {
                // An end that is ours and not the answer's gets no id: who comes back after it wants what came before it.
                let mut ids = self.ids.as_mut().filter(|_| !self.answer.is_lost());
                let before = self.out.len();
                for (position, entry) in (first..).zip(&self.batch) {
                    if position == first + 1 {
                        // The others will take about what the first one took: room for them at once, and not by doubling.
                        let others = (self.out.len() - before) * (self.batch.len() - 1);
                        self.out.reserve((others + others / 8).min(ROOM));
                    }
                    match &mut ids {
                        None if self.answer.is_lost() => self.projection.broken(entry, &mut self.out),
                        None => self.projection.entry(entry, &mut self.out),
                        Some(ids) => {
                            self.projection.entry(entry, &mut ids.scratch);
                            ids.write(position, true, &mut self.out);
                        }
                    }
                }
                self.written = Instant::now();
                self.busy = true;
                self.account.note(&self.batch, self.written);
                self.ended = self.batch.last().is_some_and(Entry::is_terminal);
            }
            Poll::Ready(None) => self.ended = true,
            Poll::Pending => {}
        }
    }

    /// Writes what comes before the first entry.
    fn open(&mut self) {
        match &mut self.ids {
            None => self.projection.open(&mut self.out),
            Some(ids) => {
                self.projection.open(&mut ids.scratch);
                ids.write(0, false, &mut self.out);
            }
        }
    }

    /// Ends the stream if the gateway stops and its time has come.
    fn leave(&mut self, context: &mut Context<'_>) {
        if Pin::new(&mut self.leaving).poll(context).is_pending() {
            return;
        }
        self.ended = true;
        if self.ids.is_some() {
            self.answer.expect_back();
            self.account.moved();
            let farewell = leave::farewell(&self.answer.head().stream_id);
            self.out.extend_from_slice(farewell.as_bytes());
        } else {
            let stopped = Entry::failed(Failure::new(Reason::Draining, "the gateway stops, and the answer took too long"));
            self.projection.broken(&stopped, &mut self.out);
            self.account.note(&[stopped], Instant::now());
        }
    }

    /// Writes a ping once nothing was written for long enough. The alarm is set again only when it goes off, not for each token, and
    /// is not even looked at right after one that came before its time.
    fn ping(&mut self, context: &mut Context<'_>) {
        if std::mem::take(&mut self.busy) && self.armed && self.written < self.alarm.deadline() {
            return;
        }
        self.armed = true;
        while self.alarm.as_mut().poll(context).is_ready() {
            let due = self.written + self.keepalive;
            let now = Instant::now();
            if due <= now {
                self.projection.ping(self.ids.is_some(), &mut self.out);
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
            stream.leave(context);
        }
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
