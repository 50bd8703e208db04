//! Where logs and traces leave the process: through [`mask`].

use std::{
    fmt,
    future::Future,
    io::{self, Write},
    time::Duration,
};

use opentelemetry::{KeyValue, StringValue, Value};
use opentelemetry_sdk::{
    Resource,
    error::OTelSdkResult,
    trace::{SpanData, SpanExporter},
};

use crate::mask::mask;

/// A writer of whole lines, masked. What is not UTF-8 is written as it is: no log line of ours is.
#[derive(Debug)]
pub(super) struct Lines<W>(pub(super) W);

impl<W: Write> Write for Lines<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(mask(text).as_bytes())?,
            Err(_) => self.0.write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// An exporter of spans, masked.
pub(super) struct Spans<E>(pub(super) E);

impl<E: SpanExporter> SpanExporter for Spans<E> {
    fn export(&self, mut batch: Vec<SpanData>) -> impl Future<Output = OTelSdkResult> + Send {
        for span in &mut batch {
            span.attributes.iter_mut().for_each(value);
            for event in &mut span.events.events {
                event.name = mask(&event.name).into_owned().into();
                event.attributes.iter_mut().for_each(value);
            }
        }
        self.0.export(batch)
    }

    fn shutdown_with_timeout(&self, timeout: Duration) -> OTelSdkResult {
        self.0.shutdown_with_timeout(timeout)
    }

    fn force_flush(&self) -> OTelSdkResult {
        self.0.force_flush()
    }

    fn set_resource(&mut self, resource: &Resource) {
        self.0.set_resource(resource);
    }
}

impl<E: fmt::Debug> fmt::Debug for Spans<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

fn value(pair: &mut KeyValue) {
    if let Value::String(text) = &pair.value {
        let masked = mask(text.as_str());
        if masked != text.as_str() {
            pair.value = Value::String(StringValue::from(masked.into_owned()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_written_masked() {
        let mut written = Lines(Vec::new());
        written.write_all(b"{\"user\":\"ann@example.com\"}\n").unwrap();
        assert_eq!(written.0, b"{\"user\":\"[email]\"}\n");
    }
}
