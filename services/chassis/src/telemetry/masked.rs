//! Where logs and traces leave the process: through [`mask`].

use std::{
    borrow::Cow,
    fmt,
    future::Future,
    io::{self, Write},
    time::Duration,
};

use opentelemetry::{Array, KeyValue, StringValue, Value, trace::Status};
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
            words(&mut span.name);
            span.attributes.iter_mut().for_each(attribute);
            for event in &mut span.events.events {
                words(&mut event.name);
                event.attributes.iter_mut().for_each(attribute);
            }
            for link in &mut span.links.links {
                link.attributes.iter_mut().for_each(attribute);
            }
            if let Status::Error { description } = &mut span.status {
                words(description);
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

fn attribute(pair: &mut KeyValue) {
    match &mut pair.value {
        Value::String(text) => value(text),
        Value::Array(Array::String(texts)) => texts.iter_mut().for_each(value),
        _ => {} // numbers, and whether
    }
}

fn value(text: &mut StringValue) {
    let masked = match mask(text.as_str()) {
        Cow::Owned(masked) => masked,
        Cow::Borrowed(_) => return,
    };
    *text = masked.into();
}

fn words(text: &mut Cow<'static, str>) {
    let masked = match mask(text) {
        Cow::Owned(masked) => masked,
        Cow::Borrowed(_) => return,
    };
    *text = masked.into();
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use opentelemetry::trace::{Span as _, Tracer as _, TracerProvider as _};
    use opentelemetry_sdk::trace::SdkTracerProvider;

    use super::*;

    /// Keeps what would leave.
    #[derive(Clone, Debug, Default)]
    struct Kept(Arc<Mutex<Vec<SpanData>>>);

    impl SpanExporter for Kept {
        async fn export(&self, batch: Vec<SpanData>) -> OTelSdkResult {
            self.0.lock().unwrap().extend(batch);
            Ok(())
        }
    }

    #[test]
    fn all_that_a_span_says_is_masked() {
        let kept = Kept::default();
        let provider = SdkTracerProvider::builder().with_simple_exporter(Spans(kept.clone())).build();
        let mail = "ann@example.com";
        let mut span = provider.tracer("test").start(mail);
        span.set_attribute(KeyValue::new("one", mail));
        span.set_attribute(KeyValue::new(
            "many",
            Value::Array(Array::String(vec![mail.into(), "count".into()])),
        ));
        span.add_event(
            mail,
            vec![KeyValue::new("many", Value::Array(vec![StringValue::from(mail)].into()))],
        );
        span.set_status(Status::error(mail));
        span.end();
        let told = format!("{:?}", kept.0.lock().unwrap());
        assert_eq!(told.matches("[email]").count(), 6, "{told}");
        assert!(!told.contains(mail) && told.contains("count"), "{told}");
    }

    #[test]
    fn a_line_is_written_masked() {
        let mut written = Lines(Vec::new());
        written.write_all(b"{\"user\":\"ann@example.com\"}\n").unwrap();
        assert_eq!(written.0, b"{\"user\":\"[email]\"}\n");
    }
}
