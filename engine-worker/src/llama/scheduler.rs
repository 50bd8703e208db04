//! Continuous batching: one thread owns the context, its sequences and all running answers, and does one decode step at a time for
//! all of them. Answers join and leave between any two steps.
//!
//! What goes into a step is decided in [`super::batch`], which slot an answer begins in by [`super::slots`], which token comes next by
//! [`super::sample`], and what of it is said by [`super::choice`]; [`join`] lets answers in. This file is the shell around them that calls llama.cpp.

mod join;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, SyncSender, TryRecvError},
    },
    thread,
};

use llama_cpp_2::{DecodeError, context::LlamaContext, llama_batch::LlamaBatch};
use proto::v1::{Failure, Reason};

use super::{
    Error, Loaded,
    batch::{self, Chunk},
    cache,
    embed::{self, Embed},
    gauges::Gauges,
    request::Work,
    running::{Lane, Over, Running, lanes},
    sample::Sampler,
    slots::Slots,
    tokens::native,
};
use crate::answer::Answer;

/// What the scheduler is asked to do.
pub(super) enum Command {
    /// Make an answer.
    Start(Box<Start>),
    /// Turn texts into vectors.
    Embed(Embed),
    /// End.
    Stop,
}

/// An answer to begin.
pub(super) struct Start {
    pub(super) work: Work,
    pub(super) answer: Answer,
}

/// Runs until it is told to stop, or nobody is left to tell it. Says through `ready` whether it could begin.
pub(super) fn run(loaded: &Loaded, gauges: &Gauges, commands: &Receiver<Command>, ready: &SyncSender<Result<(), Error>>) {
    let mut scheduler = match Scheduler::new(loaded, gauges) {
        Ok(scheduler) => scheduler,
        Err(error) => {
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    thread::scope(|scope| {
        let mut embedder: Option<SyncSender<Embed>> = None;
        while let Some(command) = scheduler.next(commands) {
            match command {
                Next::Step => scheduler.step(),
                Next::Do(Command::Start(start)) => scheduler.join(*start),
                Next::Do(Command::Embed(request)) => embed::forward(loaded, scope, &mut embedder, request),
                Next::Do(Command::Stop) => break,
            }
        }
    });
}

enum Next {
    Do(Command),
    Step,
}

struct Scheduler<'model> {
    loaded: &'model Loaded,
    gauges: &'model Gauges,
    context: LlamaContext<'model>,
    batch: LlamaBatch<'static>,
    slots: Slots,
    running: Vec<Running>,
    waiting: VecDeque<Start>,
    sampler: Sampler,
    // Kept from step to step for their memory alone.
    lanes: Vec<batch::Lane>,
    chunks: Vec<Chunk>,
    asked: Vec<Asked>,
}

/// A row of the batch whose logits bring a lane's next token.
struct Asked {
    answer: usize,
    lane: usize,
    row: i32,
}

impl<'model> Scheduler<'model> {
    fn new(loaded: &'model Loaded, gauges: &'model Gauges) -> Result<Self, Error> {
        let context = loaded
            .model
            .new_context(&loaded.backend, cache::parameters(loaded))
            .map_err(|_| Error::Context {
                said: super::log::last_error(),
            })?;
        Ok(Self {
            loaded,
            gauges,
            context,
            batch: LlamaBatch::new(loaded.limits().tokens, 1),
            slots: Slots::new(loaded.seats as usize),
            running: Vec::new(),
            waiting: VecDeque::new(),
            sampler: Sampler::default(),
            lanes: Vec::new(),
            chunks: Vec::new(),
            asked: Vec::new(),
        })
    }

    /// What comes next: a command if there is one, else a step if anything runs; else it waits for a command.
    fn next(&self, commands: &Receiver<Command>) -> Option<Next> {
        if self.running.is_empty() {
            self.gauges.idle();
            return commands.recv().ok().map(Next::Do);
        }
        match commands.try_recv() {
            Ok(command) => Some(Next::Do(command)),
            Err(TryRecvError::Empty) => Some(Next::Step),
            Err(TryRecvError::Disconnected) => None,
        }
    }

    /// One decode step for everything that runs.
    fn step(&mut self) {
        for running in &mut self.running {
            if running.answer.is_cancelled() {
                running.over = Some(Over::Dropped);
            }
        }
        self.sweep();
        self.admit();
        self.share();
        self.plan();
        if self.chunks.is_empty() || !self.decode() {
            self.sweep();
            return;
        }
        self.gauges.stepped(self.slots.used());
        for asked in std::mem::take(&mut self.asked) {
            let logits = self.context.get_logits_ith(asked.row);
            self.running[asked.answer].advance(asked.lane, logits, &self.loaded.vocabulary, &mut self.sampler);
        }
        self.sweep();
    }

    /// Gives the prompt to the lanes that wait for it, where the first lane of their answer has it.
    fn share(&mut self) {
        for running in &mut self.running {
            let Some((leader, followers)) = running.lanes.split_first_mut() else {
                continue;
            };
            if self.slots.held(leader.slot) < running.shared {
                continue;
            }
            for lane in followers.iter_mut().filter(|lane| lane.waits) {
                lane.waits = false;
                let kept = cache::share(&mut self.context, self.loaded.exact, leader.slot, lane.slot, running.shared);
                self.slots.truncate(lane.slot, 0);
                self.slots.extend(lane.slot, &lane.tokens[..kept]);
            }
        }
    }

    /// Plans the step and fills the batch.
    fn plan(&mut self) {
        self.lanes.clear();
        for (answer, running) in self.running.iter().enumerate() {
            self.lanes.extend(running.lanes.iter().map(|lane| batch::Lane {
                answer,
                backlog: lane.tokens.len() - self.slots.held(lane.slot),
                made: lane.choice.made.len(),
                waits: lane.waits,
            }));
        }
        batch::plan(&self.lanes, self.loaded.limits(), &mut self.chunks);
        let lanes: Vec<(usize, usize, &Lane)> = lanes(&self.running).collect();
        // Sequences with neighbouring numbers go through the model together where each has its own part of the cache.
        self.chunks.sort_unstable_by_key(|chunk| lanes[chunk.lane].2.slot);
        self.batch.clear();
        self.asked.clear();
        for chunk in &self.chunks {
            let (answer, index, lane) = lanes[chunk.lane];
            let from = self.slots.held(lane.slot);
            let sequence = i32::try_from(lane.slot).unwrap_or(i32::MAX);
            for (offset, &token) in lane.tokens[from..from + chunk.tokens].iter().enumerate() {
                let last = offset + 1 == chunk.tokens;
                let position = i32::try_from(from + offset).unwrap_or(i32::MAX);
                if self.batch.add(native(token), position, &[sequence], chunk.logits && last).is_err() {
                    tracing::error!("the plan is larger than the batch"); // cannot be: `Limits::tokens` is its size
                    return;
                }
            }
            if chunk.logits {
                let row = self.batch.n_tokens() - 1;
                self.asked.push(Asked { answer, lane: index, row });
            }
        }
        self.asked.sort_unstable_by_key(|asked| (asked.answer, asked.lane));
    }

    /// Runs the batch through the model. `false` if that failed: then nothing is in the cache that was not before.
    fn decode(&mut self) -> bool {
        let result = self.context.decode(&mut self.batch);
        match result {
            Ok(()) => {
                let lanes: Vec<&Lane> = lanes(&self.running).map(|(_, _, lane)| lane).collect();
                for chunk in &self.chunks {
                    let lane = lanes[chunk.lane];
                    let from = self.slots.held(lane.slot);
                    self.slots.extend(lane.slot, &lane.tokens[from..from + chunk.tokens]);
                }
                true
            }
            Err(DecodeError::NoKvCacheSlot) => {
                self.make_room();
                false
            }
            Err(error) => {
                tracing::error!(%error, "a decode step failed");
                for running in &mut self.running {
                    running.over = Some(Over::Failed(Failure::new(Reason::Internal, format!("llama.cpp: {error}"))));
                    for lane in &running.lanes {
                        let kept = cache::truncate(&mut self.context, lane.slot, 0);
                        self.slots.truncate(lane.slot, kept);
                    }
                }
                false
            }
        }
    }

    /// The cache is full: forgets what was kept for a next turn, else ends the answer that came last.
    fn make_room(&mut self) {
        if let Some(oldest) = self.slots.oldest() {
            let kept = cache::truncate(&mut self.context, oldest, 0);
            self.slots.truncate(oldest, kept);
        } else if let Some(last) = self.running.last_mut() {
            last.over = Some(Over::Failed(Failure::new(Reason::Limit, "the engine's KV cache is full")));
        }
    }

    /// Takes out the lanes that have ended and the answers that are over. Their slots are free at once.
    fn sweep(&mut self) {
        let slots = &mut self.slots;
        for running in &mut self.running {
            let over = running.over.is_some();
            let ended = &mut running.ended;
            running.lanes.retain_mut(|lane| {
                let end = lane.choice.end.take();
                if end.is_none() && !over {
                    return true;
                }
                ended.extend(end);
                slots.release(lane.slot);
                false
            });
            if running.lanes.is_empty() && !over {
                running.over = Some(Over::Finished);
            }
        }
        for running in self.running.extract_if(.., |running| running.over.is_some()) {
            let Running {
                answer, mut ended, over, ..
            } = running;
            match over {
                Some(Over::Finished) => {
                    ended.sort_by_key(|end| end.choice);
                    answer.finish(ended);
                }
                Some(Over::Failed(failure)) => answer.fail(failure),
                Some(Over::Dropped) | None => drop(answer),
            }
        }
    }
}

/// Starts the thread.
///
/// # Errors
/// The context could not be made, or the thread not be started.
pub(super) fn spawn(loaded: Arc<Loaded>, gauges: Arc<Gauges>, commands: Receiver<Command>) -> Result<thread::JoinHandle<()>, Error> {
    let (ready, begun) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new()
        .name("llama".into())
        .spawn(move || run(&loaded, &gauges, &commands, &ready))
        .map_err(Error::Thread)?;
    begun.recv().unwrap_or(Err(Error::Context {
        said: super::log::last_error(),
    }))?;
    Ok(thread)
}
