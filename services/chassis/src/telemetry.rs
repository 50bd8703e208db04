//! Logs and traces. A log line says who, what model, how many tokens and how long; never a word of a prompt, an answer or a key. Should
//! one stand in a text from elsewhere all the same (an upstream's error), addresses, numbers and keys in it are [masked](crate::mask).
//!
//! Logs go to standard error: text for a person at a terminal, JSON lines for anybody else. Traces go out by OTLP over gRPC
//! where `OTEL_EXPORTER_OTLP_ENDPOINT` is set, under the SDK's standard variables
//! (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>).

mod masked;

use std::{env, io::IsTerminal as _};

use clap::ValueEnum;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::SpanExporter;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tracing_subscriber::{
    EnvFilter, Layer, Registry,
    filter::{FilterExt as _, LevelFilter, filter_fn},
    layer::SubscriberExt as _,
    util::SubscriberInitExt as _,
};

/// How log lines look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// Text at a terminal, else JSON.
    #[default]
    Auto,
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// What others would log of content, whatever the filter says: every WebSocket message, at `trace`.
const SILENCED: [&str; 2] = ["tungstenite=info", "tungstenite::protocol=info"];

/// Telemetry cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The filter cannot be read.
    #[error("UNBROKEN_LOG is not a filter such as `info` or `info,router=debug`: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// The exporter cannot be made.
    #[error("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used: {0}")]
    Exporter(#[from] opentelemetry_otlp::ExporterBuildError),
}

/// Flushes what was traced when it goes; keep it until the very end.
#[derive(Debug, Default)]
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends what is left. Blocks, for as long as the exporter's own timeout at most.
    pub fn flush(self) {
        if let Some(traces) = self.traces
            && let Err(error) = traces.shutdown()
        {
            tracing::warn!(%error, "the last spans could not be sent");
        }
    }
}

/// Sets up logs and traces for this process. Must be called inside a Tokio runtime if traces go out.
///
/// # Errors
/// See [`Error`].
pub fn start(service: &'static str, filter: &str, format: LogFormat) -> Result<Telemetry, Error> {
    let mut filter = EnvFilter::try_new(filter)?;
    for silenced in SILENCED {
        filter = filter.add_directive(silenced.parse()?);
    }
    let json = match format {
        LogFormat::Auto => !std::io::stderr().is_terminal(),
        LogFormat::Text => false,
        LogFormat::Json => true,
    };
    let traces = if wants_traces() { Some(provider(service)?) } else { None };
    // A layer that is none would count as one that wants everything.
    let mut layers = vec![logs(filter, json)];
    if let Some(traces) = &traces {
        let spans = tracing_opentelemetry::layer()
            .with_tracer(traces.tracer(service))
            .with_threads(false)
            .with_location(false);
        layers.push(spans.with_filter(LevelFilter::INFO).boxed());
    }
    Registry::default().with(layers).init();
    Ok(Telemetry { traces })
}

/// The layer that writes log lines. A JSON line names no spans, so they are nobody's and are not even made, where no traces go out.
fn logs(filter: EnvFilter, json: bool) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer().with_writer(|| masked::Lines(std::io::stderr()));
    if !json {
        return lines.with_target(false).with_filter(filter).boxed();
    }
    #[expect(
        clippy::redundant_closure_for_method_calls,
        reason = "the method by itself is not general enough in its lifetime"
    )]
    let events = filter_fn(|about| about.is_event()).with_max_level_hint(LevelFilter::TRACE);
    let lines = lines.json().flatten_event(true).with_current_span(false).with_span_list(false);
    lines.with_filter(filter.and(events)).boxed()
}

fn wants_traces() -> bool {
    ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"]
        .iter()
        .any(|name| env::var(name).is_ok_and(|value| !value.is_empty()))
}

fn provider(service: &'static str) -> Result<SdkTracerProvider, Error> {
    let exporter = SpanExporter::builder().with_tonic().build()?;
    let name = env::var("OTEL_SERVICE_NAME").unwrap_or_else(|_| service.to_owned());
    let resource = Resource::builder().with_service_name(name).build();
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(masked::Spans(exporter))
        .with_resource(resource)
        .build())
}

#[cfg(test)]
mod tests {
    use tracing::{info_span, subscriber::with_default};

    use super::*;

    #[test]
    fn spans_are_made_only_where_somebody_names_them() {
        let made = |filter: &str, json| {
            let layers = vec![logs(EnvFilter::new(filter), json)];
            with_default(Registry::default().with(layers), || !info_span!("request").is_disabled())
        };
        assert!(made("info", false), "lines for a person name them");
        assert!(!made("warn", false));
        assert!(!made("info", true) && !made("trace", true));
    }
}
