//! The book of one caller: the rule of the limits. Pure: it is told the time, in milliseconds since 1970. `redis/admit.lua` and
//! `redis/settle.lua` are the same rule; the contract tests hold both against each other.
//!
//! A window of 60 seconds slides over counts of whole seconds, so it holds in every 60 seconds there are, and needs no memory for each
//! request. Tokens are reserved before an answer begins, as many as it may take, and what it took is charged when it has ended: so what
//! was charged and what is reserved are together never more than the limit. An open reservation is also a stream that runs.

use std::collections::{HashMap, VecDeque};

use super::terms::{Ask, CHECK_MS, DAY_MS, Granted, HOLD_MS, Limit, Over, Settlement, Standing, Verdict};

/// Seconds of the window.
const WINDOW: u64 = 60;
/// How often the answers that may be asked for again are looked through.
const LOOK_MS: u64 = 60_000;
/// When it is worth trying again where a running answer has to end first.
const SOON_MS: u64 = 1_000;

/// One caller's book.
#[derive(Debug, Default)]
pub(super) struct Book {
    /// Requests by the second in which they came, in order.
    window: VecDeque<(u64, u32)>,
    /// The day of `used`.
    day: u64,
    /// Tokens that were charged.
    used: u64,
    open: Vec<Open>,
    /// Answers that are paid for and may be asked for again, and until when.
    ended: HashMap<String, u64>,
    /// When those are next looked through.
    look: u64,
}

/// An open reservation.
#[derive(Debug)]
struct Open {
    name: String,
    day: u64,
    tokens: u64,
    expires: u64,
    checked: u64,
}

impl Book {
    /// Judges a request, and writes it down if it may be.
    pub(super) fn admit(&mut self, ask: &Ask, now: u64) -> Verdict {
        self.forget(now);
        let stale = self.stale(now);
        let outcome = self.judge(ask, now);
        if outcome.is_ok() {
            match self.window.back_mut() {
                Some((second, count)) if *second >= now / 1000 => *count += 1,
                _ => self.window.push_back((now / 1000, 1)),
            }
        }
        if let Ok(Granted::Reserved(output)) = outcome {
            self.open.push(Open {
                name: ask.name.clone(),
                day: self.day,
                tokens: ask.prompt + output,
                expires: now + HOLD_MS,
                checked: now,
            });
        }
        Verdict {
            outcome,
            standing: self.standing(ask, now),
            stale,
        }
    }

    /// Closes a reservation, and charges what its answer took. Whether there was one, or it was owed.
    pub(super) fn settle(&mut self, end: &Settlement, now: u64) -> bool {
        self.forget(now);
        let reserved = self.open.iter().position(|open| open.name == end.name);
        let day = match (reserved, end.owed) {
            (Some(index), _) => self.open.swap_remove(index).day,
            (None, Some(day)) if !self.has_ended(&end.name, now) => day,
            (None, _) => return false,
        };
        if day == self.day {
            self.used += end.tokens;
        }
        if end.keep_ms > 0 {
            self.ended.insert(end.name.clone(), now + end.keep_ms);
        }
        true
    }

    /// Whether it says nothing that a new one would not.
    pub(super) fn is_blank(&mut self, now: u64) -> bool {
        self.forget(now);
        self.window.is_empty() && self.used == 0 && self.open.is_empty() && self.ended.values().all(|until| *until <= now)
    }

    fn judge(&self, ask: &Ask, now: u64) -> Result<Granted, Over> {
        let bounds = ask.bounds;
        if bounds.requests > 0 && self.requests() >= bounds.requests {
            let retry_ms = self.room_after(bounds.requests, now);
            return Err(Over {
                limit: Limit::Requests,
                retry_ms,
            });
        }
        if self.is_open(&ask.name) || self.has_ended(&ask.name, now) {
            return Ok(Granted::Again);
        }
        if bounds.streams > 0 && self.open.len() >= bounds.streams as usize {
            return Err(Over {
                limit: Limit::Streams,
                retry_ms: SOON_MS,
            });
        }
        if bounds.tokens == 0 {
            return Ok(Granted::Reserved(ask.output));
        }
        let least = ask.prompt + ask.least;
        let free = bounds.tokens.saturating_sub(self.used);
        let left = free.saturating_sub(self.reserved());
        if least > left {
            let retry_ms = if least <= free { SOON_MS } else { DAY_MS - now % DAY_MS };
            return Err(Over {
                limit: Limit::Tokens,
                retry_ms,
            });
        }
        Ok(Granted::Reserved(ask.output.min(left - ask.prompt)))
    }

    fn standing(&self, ask: &Ask, now: u64) -> Standing {
        let charged = self.used + self.reserved();
        Standing {
            requests: ask.bounds.requests.saturating_sub(self.requests()),
            requests_reset_ms: self.window.back().map_or(0, |(second, _)| leaves(*second, now)),
            tokens: ask.bounds.tokens.saturating_sub(charged),
            tokens_reset_ms: DAY_MS - now % DAY_MS,
        }
    }

    fn requests(&self) -> u32 {
        self.window.iter().map(|(_, count)| count).sum()
    }

    /// Tokens that are reserved, of those of today.
    fn reserved(&self) -> u64 {
        self.open.iter().filter(|open| open.day == self.day).map(|open| open.tokens).sum()
    }

    /// After how long fewer than `limit` requests are in the window.
    fn room_after(&self, limit: u32, now: u64) -> u64 {
        let mut left = self.requests();
        for (second, count) in &self.window {
            left -= count;
            if left < limit {
                return leaves(*second, now);
            }
        }
        SOON_MS
    }

    fn is_open(&self, name: &str) -> bool {
        self.open.iter().any(|open| open.name == name)
    }

    fn has_ended(&self, name: &str, now: u64) -> bool {
        self.ended.get(name).is_some_and(|until| *until > now)
    }

    /// Lets go of what is over.
    fn forget(&mut self, now: u64) {
        while self.window.front().is_some_and(|(second, _)| leaves(*second, now) == 0) {
            self.window.pop_front();
        }
        if self.day != now / DAY_MS {
            self.day = now / DAY_MS;
            self.used = 0;
        }
        self.open.retain(|open| open.expires > now);
        if self.look <= now {
            self.look = now + LOOK_MS;
            self.ended.retain(|_, until| *until > now);
        }
    }

    /// The answers of reservations that were not looked up for long.
    fn stale(&mut self, now: u64) -> Vec<String> {
        let mut stale = Vec::new();
        for open in self.open.iter_mut().filter(|open| open.checked + CHECK_MS <= now) {
            open.checked = now;
            stale.push(open.name.clone());
        }
        stale
    }
}

/// After how long the requests of `second` have left the window, wherever in it they came.
fn leaves(second: u64, now: u64) -> u64 {
    ((second + WINDOW + 1) * 1000).saturating_sub(now)
}

#[cfg(test)]
mod tests;
