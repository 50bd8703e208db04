//! What one client has seen, and whether that is what it was promised.
//!
//! A scripted token is `id.n@e `: the answer's name, its number, and the epoch of the worker that wrote it. So the text alone tells
//! which token is lost, doubled, reordered or misrouted, and which was written by a worker that had been replaced.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::Instant;

/// The history of one answer at its client.
#[derive(Debug)]
pub struct History {
    /// The script's name, which begins every token.
    pub id: String,
    /// The answer's name in the mesh, once it was told: the last one, if the client had to ask anew before the first was told.
    pub stream_id: Option<String>,
    /// The id of the last event that had one.
    pub last_event: Option<String>,
    /// The conversation in which it was asked.
    pub conversation: Option<String>,
    started: Instant,
    /// When each token came.
    times: Vec<Instant>,
    /// The text so far.
    text: String,
    /// The writer of the last token.
    epoch: u32,
    /// Tokens that were not the next one.
    wrong: Vec<String>,
    /// How connections ended before the answer did.
    breaks: Vec<String>,
    ends: u32,
}

impl History {
    /// Nothing yet.
    pub fn new(id: String) -> Self {
        Self {
            id,
            stream_id: None,
            last_event: None,
            conversation: None,
            started: Instant::now(),
            times: Vec::new(),
            text: String::new(),
            epoch: 0,
            wrong: Vec::new(),
            breaks: Vec::new(),
            ends: 0,
        }
    }

    /// How many tokens it has: the offset from which it wants more.
    pub fn received(&self) -> usize {
        self.times.len()
    }

    /// All tokens in the order of their coming.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Takes one event. Says whether it was the end.
    pub fn event(&mut self, data: &str, now: Instant) -> anyhow::Result<bool> {
        if data == "[DONE]" {
            self.ends += 1;
            return Ok(true);
        }
        let value: Value = serde_json::from_str(data)?;
        match (value["token"].as_str(), value["choices"].as_array()) {
            (Some(token), _) => self.token(token, now),
            (None, Some(choices)) => {
                let texts = choices.iter().filter_map(|choice| choice["delta"]["content"].as_str());
                texts.filter(|text| !text.is_empty()).for_each(|text| self.token(text, now));
            }
            (None, None) => anyhow::bail!("the answer failed: {data}"),
        }
        Ok(false)
    }

    fn token(&mut self, token: &str, now: Instant) {
        match self.epoch_of(token) {
            Some(epoch) if epoch >= self.epoch && self.ends == 0 => {
                self.epoch = epoch;
                self.times.push(now);
                self.text.push_str(token);
            }
            _ => self
                .wrong
                .push(format!("{token:?} at {} in epoch {}", self.times.len(), self.epoch)),
        }
    }

    /// Who wrote the next token, if it is that.
    fn epoch_of(&self, token: &str) -> Option<u32> {
        let rest = token.strip_prefix(&self.id)?.strip_prefix('.')?.strip_suffix(' ')?;
        let (number, epoch) = rest.split_once('@')?;
        (number == self.times.len().to_string()).then(|| epoch.parse().ok())?
    }

    /// Notes that a connection broke.
    pub fn broken(&mut self, error: &anyhow::Error) {
        if self.breaks.len() < 50 {
            self.breaks.push(format!("{} ms: {error:#}", self.started.elapsed().as_millis()));
        }
    }

    /// Whether a token came that must not.
    pub fn is_wrong(&self) -> bool {
        !self.wrong.is_empty()
    }

    /// The promise: every token once, in order, none by a worker that had been replaced, and one end.
    pub fn check(&self, tokens: u32) -> Result<(), String> {
        match () {
            () if self.is_wrong() => Err(format!("{}: wrong tokens {:?}; {:?}", self.id, self.wrong, self.breaks)),
            () if self.received() != tokens as usize => {
                Err(format!("{}: {} of {tokens} tokens; {:?}", self.id, self.received(), self.breaks))
            }
            () if self.ends != 1 => Err(format!("{}: {} ends; {:?}", self.id, self.ends, self.breaks)),
            () => Ok(()),
        }
    }

    /// How often another writer went on with it.
    pub fn moves(&self) -> u32 {
        self.epoch.saturating_sub(1)
    }

    /// The longest wait between two tokens, beyond the usual one.
    pub fn stall(&self, gap: Duration) -> Duration {
        let gaps = self.times.windows(2).map(|pair| pair[1] - pair[0]);
        gaps.max().unwrap_or_default().saturating_sub(gap)
    }

    /// One line of JSON.
    pub fn to_json(&self) -> Value {
        let times: Vec<_> = self.times.iter().map(|time| (*time - self.started).as_micros()).collect();
        json!({"id": self.id, "stream_id": self.stream_id, "micros": times, "epoch": self.epoch, "wrong": self.wrong, "breaks": self.breaks, "ends": self.ends})
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
    fn only_every_token_once_in_order_by_its_writer_with_one_end_keeps_the_promise() {
        let (zero, one, done) = (r#"{"token":"a.0@1 "}"#, r#"{"token":"a.1@1 "}"#, "[DONE]");
        assert_eq!(history(&[zero, one, done]).check(2), Ok(()));
        assert_eq!(history(&[zero, r#"{"token":"a.1@2 "}"#, done]).check(2), Ok(()), "moved");
        let chunk = r#"{"choices":[{"delta":{"content":"a.1@1 "}}]}"#;
        assert_eq!(history(&[zero, chunk, done]).check(2), Ok(()), "a chunk of the other door");
        assert!(history(&[zero, done]).check(2).is_err(), "lost");
        assert!(history(&[zero, zero, one, done]).check(2).is_err(), "doubled");
        assert!(history(&[one, zero, done]).check(2).is_err(), "reordered");
        assert!(history(&[zero, r#"{"token":"b.1@1 "}"#, done]).check(2).is_err(), "misrouted");
        assert!(history(&[r#"{"token":"a.0@2 "}"#, one, done]).check(2).is_err(), "by a zombie");
        assert!(history(&[zero, one]).check(2).is_err(), "no end");
        assert!(history(&[zero, done, one]).check(2).is_err(), "more after the end");
        assert!(history(&[zero, one, r#"{"error":{}}"#, done, done]).check(2).is_err(), "two ends");
    }
}
