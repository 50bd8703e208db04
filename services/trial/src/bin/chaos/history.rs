//! What one client has seen, and whether that is what it was promised.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// The history of one answer at its client.
#[derive(Debug)]
pub(crate) struct History {
    /// The script's name, which begins every token.
    pub(crate) id: String,
    started: Instant,
    /// When each token came.
    times: Vec<Instant>,
    /// Tokens that were not the next one.
    wrong: Vec<String>,
    /// How connections ended before the answer did.
    breaks: Vec<String>,
    ends: u32,
}

impl History {
    pub(crate) fn new(id: String) -> Self {
        Self {
            id,
            started: Instant::now(),
            times: Vec::new(),
            wrong: Vec::new(),
            breaks: Vec::new(),
            ends: 0,
        }
    }

    /// How many tokens it has: the offset from which it wants more.
    pub(crate) fn received(&self) -> usize {
        self.times.len()
    }

    /// Takes one event. Says whether it was the end.
    pub(crate) fn event(&mut self, data: &str, now: Instant) -> anyhow::Result<bool> {
        if data == "[DONE]" {
            self.ends += 1;
            return Ok(true);
        }
        let value: Value = serde_json::from_str(data)?;
        let Some(token) = value["token"].as_str() else {
            anyhow::bail!("the answer failed: {data}");
        };
        if token == format!("{}.{} ", self.id, self.times.len()) {
            self.times.push(now);
        } else {
            self.wrong.push(format!("{token:?} at {}", self.times.len()));
        }
        Ok(false)
    }

    /// Notes that a connection broke.
    pub(crate) fn broken(&mut self, error: &anyhow::Error) {
        if self.breaks.len() < 50 {
            self.breaks.push(format!("{error:#}"));
        }
    }

    /// Whether a token came that must not.
    pub(crate) fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// The promise: every token once, in order, and one end.
    pub(crate) fn check(&self, tokens: u32) -> Result<(), String> {
        match () {
            () if self.is_wrong() => Err(format!("{}: wrong tokens {:?}", self.id, self.wrong)),
            () if self.received() != tokens as usize => {
                Err(format!("{}: {} of {tokens} tokens; {:?}", self.id, self.received(), self.breaks))
            }
            () if self.ends != 1 => Err(format!("{}: {} ends; {:?}", self.id, self.ends, self.breaks)),
            () => Ok(()),
        }
    }

    /// The longest wait between two tokens, beyond the usual one.
    pub(crate) fn stall(&self, gap: Duration) -> Duration {
        let gaps = self.times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default().saturating_sub(gap)
    }

    /// One line of JSON.
    pub(crate) fn to_json(&self) -> Value {
        let times: Vec<_> = self.times.iter().map(|time| (*time - self.started).as_micros()).collect();
        json!({"id": self.id, "micros": times, "wrong": self.wrong, "breaks": self.breaks, "ends": self.ends})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn history(events: &[&str]) -> History {
        let mut history = History::new("a".to_owned());
        for event in events {
            let _ = history.event(event, Instant::now());
        }
        history
    }

    #[test]
    fn only_every_token_once_in_order_with_one_end_keeps_the_promise() {
        let (zero, one, done) = (r#"{"token":"a.0 "}"#, r#"{"token":"a.1 "}"#, "[DONE]");
        assert_eq!(history(&[zero, one, done]).check(2), Ok(()));
        assert!(history(&[zero, done]).check(2).is_err(), "lost");
        assert!(history(&[zero, zero, one, done]).check(2).is_err(), "doubled");
        assert!(history(&[one, zero, done]).check(2).is_err(), "reordered");
        assert!(history(&[zero, r#"{"token":"b.1 "}"#, done]).check(2).is_err(), "misrouted");
        assert!(history(&[zero, one]).check(2).is_err(), "no end");
        assert!(history(&[zero, one, r#"{"error":{}}"#, done, done]).check(2).is_err(), "two ends");
    }
}
