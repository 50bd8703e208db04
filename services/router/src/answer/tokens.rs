//! The tokens that an answer has so far, and where it stands for the engine that goes on with it.

use std::sync::atomic::AtomicU32;

use parking_lot::Mutex;
use proto::v1::{Entry, ResumePoint};
use smallvec::SmallVec;
use tokio::time::Instant;

use super::Answer;
use crate::request::MAX_CHOICES;

/// The ids of the generated tokens: what an engine needs to go on. Kept out of the journal, so that no reader's copy carries them.
#[derive(Debug, Default)]
pub(super) struct Tokens {
    /// In which they come: the leg's.
    pub(super) epoch: u32,
    /// The position of the next entry.
    pub(super) next: u32,
    /// Of each choice.
    pub(super) choices: SmallVec<[Vec<u32>; 1]>,
}

/// What each token touches, side by side: with hundreds of answers at a time, nothing of one is in the processor's cache when its next
/// token comes, and each line of memory has to be waited for.
#[repr(align(64))]
pub(super) struct Progress {
    pub(super) started: Instant,
    /// When the last entry came, in milliseconds since then.
    pub(super) last_ms: AtomicU32,
    pub(super) tokens: Mutex<Tokens>,
}

impl Progress {
    /// None yet, of an answer that starts now and whose leg writes in this epoch.
    pub(super) fn new(now: Instant, epoch: u32) -> Self {
        Self {
            started: now,
            last_ms: AtomicU32::new(0),
            tokens: Mutex::new(Tokens::new(epoch)),
        }
    }
}

impl Answer {
    /// Where each choice stands, for an engine that goes on.
    pub(crate) fn resume_points(&self) -> Vec<ResumePoint> {
        let mut points: Vec<ResumePoint> = (0..self.seats)
            .map(|choice| ResumePoint {
                choice,
                ..ResumePoint::default()
            })
            .collect();
        let tokens = self.progress.tokens.lock();
        for (point, ids) in points.iter_mut().zip(&tokens.choices) {
            point.token_ids.clone_from(ids);
        }
        self.journal.with_entries(|entries| {
            for entry in entries {
                if let Some(point) = points.get_mut(entry.choice as usize) {
                    point.text.push_str(&entry.token);
                    if let Some(end) = &entry.end {
                        point.end = Some((**end).clone());
                    }
                }
            }
        });
        points
    }

    /// All entries so far, each with the ids of its tokens again: for the journal of the worker that goes on.
    pub(crate) fn made(&self) -> Vec<Entry> {
        let tokens = self.progress.tokens.lock();
        let mut rest: Vec<&[u32]> = tokens.choices.iter().map(Vec::as_slice).collect();
        let with_ids = |entry: &Entry| {
            let rest = rest.get_mut(entry.choice as usize);
            let ids = rest.map_or(&[][..], |rest| {
                rest.split_off(..(entry.tokens as usize).min(rest.len())).unwrap_or_default()
            });
            Entry {
                token_ids: ids.into(),
                ..entry.clone()
            }
        };
        self.journal.with_entries(|entries| entries.iter().map(with_ids).collect())
    }
}

impl Tokens {
    /// None yet, of a leg that writes in this epoch.
    pub(super) fn new(epoch: u32) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Moves the ids out of entries that are new, and stamps them with their time.
    pub(super) fn take(&mut self, position: u32, entries: &mut [Entry], latency_ms: u32) {
        for (at, entry) in (position..).zip(entries) {
            entry.latency_ms = latency_ms;
            let ids = std::mem::take(&mut entry.token_ids);
            if at < self.next {
                continue;
            }
            self.next = at + 1;
            let choice = entry.choice as usize;
            if !ids.is_empty() && choice < MAX_CHOICES as usize {
                if self.choices.len() <= choice {
                    self.choices.resize_with(choice + 1, Vec::new);
                }
                self.choices[choice].extend_from_slice(&ids);
            }
        }
    }
}
