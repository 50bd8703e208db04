//! What the gateway counts, under the names that dashboards expect. [`crate::account`] feeds it, `GET /metrics` shows it.
//!
//! Labels are bounded: `model` is one that a router knows, else `unknown`; `tier` one of the settings; the others are words of ours.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Registry,
};

/// Seconds to the first token: the buckets of OpenTelemetry's GenAI conventions, as Envoy has them.
const TTFT: [f64; 21] = [
    0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0, 15.0, 20.0, 30.0, 45.0, 60.0,
];
/// Seconds for each token after the first, likewise.
const TPOT: [f64; 13] = [0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5];
/// Seconds for a whole answer, likewise.
const DURATION: [f64; 16] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84, 327.68,
];

/// The label of a model that no router knows.
pub(crate) const UNKNOWN: &str = "unknown";

type Families<K, M> = Family<K, M, fn() -> M>;

/// All that is counted.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    /// From the request's arrival to its first token.
    pub(crate) ttft: Families<ByModel, Histogram>,
    /// For each token after the first.
    pub(crate) tpot: Families<ByModel, Histogram>,
    /// From a stream's head to its end.
    pub(crate) stream_duration: Families<ByModel, Histogram>,
    /// Answers that are read now.
    pub(crate) streams: Gauge,
    /// Clients that went before the end.
    pub(crate) drops: Counter,
    /// Tokens, by their type.
    pub(crate) tokens: Family<ByType, Counter>,
    /// Requests that wait at the routers.
    pub(crate) queue_depth: Gauge,
    /// Failures, by their reason.
    pub(crate) errors: Family<ByError, Counter>,
    /// Requests for an answer, by how they ended.
    pub(crate) requests: Family<ByStatus, Counter>,
    /// And how long they took.
    pub(crate) request_duration: Families<ByModel, Histogram>,
    /// Requests that met a limit.
    pub(crate) limits_refused: Family<ByLimit, Counter>,
    /// Whether limits are shared with other gateways now.
    pub(crate) limits_shared: Gauge,
    /// How often they ceased to be.
    pub(crate) limits_fallbacks: Counter,
    /// Answers whose settling was put off until their caller comes again.
    pub(crate) limits_unsettled: Counter,
    /// Requests that were too many for the request log, or that the store could not take.
    pub(crate) requests_unlogged: Counter,
}

/// A series for each model.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByModel {
    pub(crate) model: String,
}

/// A series for each model and type of token: `input` or `output`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByType {
    pub(crate) model: String,
    pub(crate) r#type: &'static str,
}

/// A series for each model and reason.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByError {
    pub(crate) model: String,
    pub(crate) error_type: &'static str,
}

/// A series for each model and outcome.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByStatus {
    pub(crate) model: String,
    pub(crate) status: &'static str,
}

/// A series for each limit and tier.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct ByLimit {
    pub(crate) limit: &'static str,
    pub(crate) tier: String,
}

impl Metrics {
    /// All at zero.
    pub(crate) fn new() -> Self {
        let mut metrics = Self {
            registry: Registry::default(),
            ttft: Family::new_with_constructor(|| Histogram::new(TTFT)),
            tpot: Family::new_with_constructor(|| Histogram::new(TPOT)),
            stream_duration: Family::new_with_constructor(|| Histogram::new(DURATION)),
            streams: Gauge::default(),
            drops: Counter::default(),
            tokens: Family::default(),
            queue_depth: Gauge::default(),
            errors: Family::default(),
            requests: Family::default(),
            request_duration: Family::new_with_constructor(|| Histogram::new(DURATION)),
            limits_refused: Family::default(),
            limits_shared: Gauge::default(),
            limits_fallbacks: Counter::default(),
            limits_unsettled: Counter::default(),
            requests_unlogged: Counter::default(),
        };
        metrics.register();
        metrics
    }

    // The exporter adds `_total` to counters by itself.
    fn register(&mut self) {
        let to = &mut self.registry;
        to.register("llm_ttft_seconds", "Time from the request to the first token", self.ttft.clone());
        to.register("llm_tpot_seconds", "Time per token after the first", self.tpot.clone());
        to.register(
            "llm_stream_duration_seconds",
            "How long streams lasted",
            self.stream_duration.clone(),
        );
        to.register("llm_concurrent_streams", "Answers that are being read", self.streams.clone());
        to.register(
            "llm_connection_drops",
            "Clients that went before the end of their answer",
            self.drops.clone(),
        );
        to.register("llm_tokens", "Tokens, by type: input or output", self.tokens.clone());
        to.register(
            "llm_queue_depth",
            "Requests that wait for a slot at the routers",
            self.queue_depth.clone(),
        );
        to.register("llm_errors", "Failures, by reason", self.errors.clone());
        to.register("chat_requests", "Requests for an answer, by outcome", self.requests.clone());
        to.register("chat_request_duration_seconds", "How long they took", self.request_duration.clone());
        self.register_limits();
    }

    fn register_limits(&mut self) {
        let to = &mut self.registry;
        to.register(
            "unbroken_limits_refused",
            "Requests that met a limit: requests, streams or tokens",
            self.limits_refused.clone(),
        );
        to.register(
            "unbroken_limits_shared",
            "1 while limits are shared through Redis; 0 without Redis, or while it is away and each gateway grants its own share",
            self.limits_shared.clone(),
        );
        to.register(
            "unbroken_limits_fallbacks",
            "How often Redis went away",
            self.limits_fallbacks.clone(),
        );
        to.register(
            "unbroken_limits_unsettled",
            "Answers whose settling was put off until their caller comes again",
            self.limits_unsettled.clone(),
        );
        to.register(
            "unbroken_requests_unlogged",
            "Requests that were too many for the request log, or that the store could not take",
            self.requests_unlogged.clone(),
        );
    }

    /// A request was refused before its model was known.
    pub(crate) fn refused(&self, code: &'static str) {
        let series = ByError {
            model: UNKNOWN.to_owned(),
            error_type: code,
        };
        self.errors.get_or_create(&series).inc();
    }

    /// Everything in the text format of OpenMetrics.
    pub(crate) fn encode(&self) -> String {
        let mut text = String::new();
        // Writing into a string cannot fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}

/// A counter that is fed for each batch of tokens.
pub(crate) type TokenCounter = Counter<u64, AtomicU64>;
