//! What a client is told of its limits: the headers, in OpenAI's names (<https://platform.openai.com/docs/guides/rate-limits>), and the
//! refusal. Pure.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::terms::{Ask, Bounds, Limit, Over, Standing};
use crate::failure::Refusal;

const LIMIT_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-limit-requests");
const REMAINING_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-requests");
const RESET_REQUESTS: HeaderName = HeaderName::from_static("x-ratelimit-reset-requests");
const LIMIT_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-limit-tokens");
const REMAINING_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-remaining-tokens");
const RESET_TOKENS: HeaderName = HeaderName::from_static("x-ratelimit-reset-tokens");
/// All of them, for pages of other origins.
pub(crate) const HEADERS: [HeaderName; 6] = [
    LIMIT_REQUESTS,
    REMAINING_REQUESTS,
    RESET_REQUESTS,
    LIMIT_TOKENS,
    REMAINING_TOKENS,
    RESET_TOKENS,
];

/// The limits that hold for a request, and how its caller stands after it.
#[derive(Clone, Debug)]
pub(crate) struct Quota {
    pub(super) tier: String,
    pub(super) bounds: Bounds,
    pub(super) standing: Standing,
}

impl Quota {
    /// Says it in a response's headers. Of what has no limit, nothing is said.
    pub(crate) fn write(&self, headers: &mut HeaderMap) {
        let Self { bounds, standing, .. } = self;
        if bounds.requests > 0 {
            headers.insert(LIMIT_REQUESTS, bounds.requests.into());
            headers.insert(REMAINING_REQUESTS, standing.requests.into());
            set_time(headers, RESET_REQUESTS, standing.requests_reset_ms);
        }
        if bounds.tokens > 0 {
            headers.insert(LIMIT_TOKENS, bounds.tokens.into());
            headers.insert(REMAINING_TOKENS, standing.tokens.into());
            set_time(headers, RESET_TOKENS, standing.tokens_reset_ms);
        }
    }

    /// The refusal of a request that might have taken `asked` tokens.
    pub(super) fn refuse(&self, over: Over, asked: u64) -> Refusal {
        let Self { tier, bounds, standing } = self;
        let wait = written(over.retry_ms.next_multiple_of(1000));
        let (kind, code, message) = match over.limit {
            Limit::Requests => (
                "rate_limit_error",
                "rate_limit_exceeded",
                format!(
                    "the limit of {} requests per minute (tier {tier}) is met: try again in {wait}",
                    bounds.requests
                ),
            ),
            Limit::Streams => (
                "rate_limit_error",
                "too_many_streams",
                format!(
                    "the limit of {} answers at once (tier {tier}) is met: wait until one of them has ended",
                    bounds.streams
                ),
            ),
            // Running answers will give back what they don't take.
            Limit::Tokens if over.retry_ms < standing.tokens_reset_ms => (
                "rate_limit_error",
                "tokens_reserved",
                format!(
                    "this request may take {asked} tokens, and of the {} tokens per day (tier {tier}) {} are neither used nor reserved by \
                     answers that run: ask for a smaller max_tokens, or wait until one of them has ended",
                    bounds.tokens, standing.tokens
                ),
            ),
            Limit::Tokens => (
                "insufficient_quota",
                "insufficient_quota",
                format!(
                    "this request may take {asked} tokens, and of the {} tokens per day (tier {tier}) {} are left: ask for a smaller \
                     max_tokens, or try again in {wait}",
                    bounds.tokens, standing.tokens
                ),
            ),
        };
        Refusal::new(StatusCode::TOO_MANY_REQUESTS, code, message)
            .of_kind(kind)
            .after(Duration::from_millis(over.retry_ms))
    }

    /// The refusal of a request that does not even fit into a whole day of these. It is the request's fault, and no client shall try it
    /// again: SDKs do so after each 429.
    pub(super) fn refuse_for_ever(&self, bounds: Bounds, ask: &Ask) -> Refusal {
        let message = format!(
            "this request may take {} tokens, more than the {} tokens per day (tier {}) in all: ask for a smaller max_tokens, or shorten its \
             input",
            ask.prompt + ask.least,
            bounds.tokens,
            self.tier
        );
        Refusal::new(StatusCode::BAD_REQUEST, "request_too_large", message)
    }
}

fn set_time(headers: &mut HeaderMap, name: HeaderName, ms: u64) {
    if let Ok(value) = HeaderValue::from_str(&written(ms)) {
        headers.insert(name, value);
    }
}

/// A time as OpenAI writes it: `850ms`, `12s`, `6m0s`, `1h0m12s`.
fn written(ms: u64) -> String {
    if ms < 1000 {
        return format!("{ms}ms");
    }
    let seconds = ms / 1000;
    match (seconds / 3600, seconds / 60 % 60, seconds % 60) {
        (0, 0, seconds) => format!("{seconds}s"),
        (0, minutes, seconds) => format!("{minutes}m{seconds}s"),
        (hours, minutes, seconds) => format!("{hours}h{minutes}m{seconds}s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn quota() -> Quota {
        Quota {
            tier: "free".to_owned(),
            bounds: Bounds {
                requests: 10,
                tokens: 50_000,
                streams: 4,
            },
            standing: Standing {
                requests: 0,
                requests_reset_ms: 60_500,
                tokens: 123,
                tokens_reset_ms: 3_612_000,
            },
        }
    }

    #[test]
    fn every_refusal_names_its_limit_and_when_to_come_back() {
        let refused = |limit, retry_ms| quota().refuse(Over { limit, retry_ms }, 2000);
        let cases = [
            (refused(Limit::Requests, 12_001), "10 requests per minute", "rate_limit_error", 13),
            (refused(Limit::Streams, 1000), "4 answers at once", "rate_limit_error", 1),
            (refused(Limit::Tokens, 1000), "50000 tokens per day", "rate_limit_error", 1),
            (
                refused(Limit::Tokens, 3_612_000),
                "50000 tokens per day",
                "insufficient_quota",
                3612,
            ),
        ];
        for (refusal, limit, kind, seconds) in cases {
            assert_eq!(refusal.status(), StatusCode::TOO_MANY_REQUESTS);
            assert!(refusal.message().contains(limit), "{}", refusal.message());
            assert_eq!(refusal.object()["type"], kind);
            assert_eq!(refusal.retry_after_seconds(), Some(seconds));
        }
    }

    #[test]
    fn headers_say_how_the_caller_stands() {
        let mut headers = HeaderMap::new();
        quota().write(&mut headers);
        let written: Vec<_> = HEADERS.iter().map(|name| headers[name].to_str().unwrap()).collect();
        assert_eq!(written, ["10", "0", "1m0s", "50000", "123", "1h0m12s"]);
    }

    #[test]
    fn times_are_written_as_openai_does() {
        let times = [(0, "0ms"), (999, "999ms"), (1000, "1s"), (360_000, "6m0s"), (86_400_000, "24h0m0s")];
        for (ms, text) in times {
            assert_eq!(written(ms), text);
        }
    }
}
