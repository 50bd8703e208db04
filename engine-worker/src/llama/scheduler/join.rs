//! How an answer joins those that run: it waits until there are slots for all its choices, and begins with what the cache has of its prompt.

use proto::v1::{ChoiceEnd, Failure, Reason};

use super::{Scheduler, Start};
use crate::llama::{
    cache,
    request::Work,
    running::{Lane, Over, Running},
};

/// Answers that may wait for a slot. The service gives none out before there is a seat, so they never should.
const MAX_WAITING: usize = 64;

impl Scheduler<'_> {
    /// Lets an answer in, or has it wait for slots.
    pub(super) fn join(&mut self, start: Start) {
        if self.waiting.len() >= MAX_WAITING {
            start
                .answer
                .fail(Failure::new(Reason::QueueFull, "the engine has no slot for the answer"));
            return;
        }
        self.waiting.push_back(start);
        self.admit();
    }

    /// Lets those in who wait, in their order, as far as there are slots.
    pub(super) fn admit(&mut self) {
        while let Some(start) = self.waiting.front() {
            let live = start.work.choices.iter().filter(|choice| choice.end.is_none()).count();
            if live > self.slots.free() {
                return;
            }
            let Some(start) = self.waiting.pop_front() else { return };
            if !start.answer.is_cancelled() {
                self.begin(start);
            }
        }
    }

    fn begin(&mut self, Start { work, mut answer }: Start) {
        let Work {
            prompt,
            choices,
            sampling,
            logprobs,
            warms,
            pending,
        } = work;
        let many = choices.len() > 1;
        let (mut lanes, mut ended): (Vec<Lane>, Vec<ChoiceEnd>) = (Vec::new(), Vec::new());
        let shared = prompt.len() - 1;
        for choice in choices {
            if let Some(end) = choice.end {
                ended.push(end);
                continue;
            }
            let tokens = [prompt.as_slice(), choice.made.as_slice()].concat();
            let Some((slot, kept)) = self.place(&tokens) else {
                tracing::error!("an answer was begun without a slot");
                break;
            };
            if lanes.is_empty() {
                answer.set_cached_tokens(u32::try_from(kept.min(prompt.len())).unwrap_or(u32::MAX));
            }
            let waits = !lanes.is_empty() && kept < shared;
            lanes.push(Lane {
                choice,
                slot,
                tokens,
                waits,
            });
        }
        let over = lanes.is_empty().then_some(Over::Finished);
        let mut running = Running {
            answer,
            lanes,
            ended,
            sampling,
            logprobs,
            warms,
            many,
            shared,
            over: None,
        };
        if !warms {
            running.write(pending);
        }
        running.over = running.over.or(over);
        self.running.push(running);
        self.sweep();
    }

    /// Takes a slot for these tokens and makes the cache so. Says how many of them are in it.
    fn place(&mut self, tokens: &[u32]) -> Option<(usize, usize)> {
        let place = self.slots.place(tokens)?;
        let kept = match place.copy_from {
            Some(donor) => cache::share(&mut self.context, self.loaded.exact, donor, place.slot, place.keep),
            None => cache::truncate(&mut self.context, place.slot, place.keep),
        };
        self.slots.truncate(place.slot, kept);
        Some((place.slot, kept))
    }
}
