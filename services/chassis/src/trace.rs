//! A trace's context on its way from process to process, as W3C `traceparent` (<https://www.w3.org/TR/trace-context/>).
//!
//! Over HTTP it is a header, on a single gRPC call metadata, and in an exchange, where one call carries many answers, a field.

use std::collections::HashMap;

use opentelemetry::{propagation::TextMapPropagator as _, trace::TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// The header, metadata key and field.
pub const TRACEPARENT: &str = "traceparent";

/// Makes `span` part of the trace that `traceparent` tells of. Anything that is not one is ignored, as the standard asks.
pub fn continue_from(span: &Span, traceparent: &str) {
    if traceparent.is_empty() || span.is_disabled() {
        return;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&carrier);
    if context.span().span_context().is_valid() {
        let _ = span.set_parent(context);
    }
}

/// What tells another process of `span`'s trace. Empty if nobody traces.
pub fn context_of(span: &Span) -> String {
    if span.is_disabled() {
        return String::new();
    }
    let context = span.context();
    if !context.span().span_context().is_valid() {
        return String::new();
    }
    let mut carrier = HashMap::new();
    TraceContextPropagator::new().inject_context(&context, &mut carrier);
    carrier.remove(TRACEPARENT).unwrap_or_default()
}

/// The trace's id, to find an answer's trace from its log line. Empty if nobody traces.
pub fn id_of(span: &Span) -> String {
    if span.is_disabled() {
        return String::new();
    }
    let context = span.context();
    let span = context.span();
    if span.span_context().is_valid() {
        span.span_context().trace_id().to_string()
    } else {
        String::new()
    }
}
