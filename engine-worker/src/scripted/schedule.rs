//! The one task that owns all answers that run: it sleeps until the next token is due, then makes all that are.
//!
//! No task and no timer per answer, so that thousands of answers cost one wake for each common step. An answer that fell behind
//! catches up; one without a pace makes tokens in bounded bursts, and lets others run in between.

use std::{
    cmp::{Ordering, Reverse},
    collections::BinaryHeap,
    sync::{Arc, atomic::Ordering as Atomic},
    time::Duration,
};

use proto::v1::{Entry, Failure, Reason};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{beat::Beat, plan::Plan};
use crate::answer::Answer;

/// Tokens that an answer without a pace makes in its turn.
const BURST: u32 = 32;
/// Tokens that are made before other tasks of the process have their turn.
const TURN: u32 = 2048;
/// From a step to the next one: what is due in between comes with that. Where thousands run, a wake for each would cost more than what it
/// is for; an exchange gathers for as long ([`chassis::pace`]).
const REST: Duration = chassis::pace::MADE;
/// Where nothing is due: looked at again after this.
const FAR: Duration = Duration::from_hours(1);

/// What the engine asks of its task.
pub(super) enum Order {
    /// Make this answer.
    Begin(Box<(Plan, Answer)>),
    /// Nothing runs any more: end.
    Stop,
}

/// An answer that runs.
struct Running {
    plan: Plan,
    answer: Answer,
    /// The position of its next entry.
    next: u32,
    /// The token that each choice makes in the next step, and the first choice that does.
    index: u32,
    choice: u32,
}

/// When an answer has its turn. The time lies here and not with the answer: to compare two answers would be to fetch both.
struct Due {
    at: Instant,
    running: Box<Running>,
}

pub(super) struct Scheduler {
    inbox: mpsc::Receiver<Order>,
    beat: Arc<Beat>,
    /// The next due one first.
    running: BinaryHeap<Reverse<Due>>,
    /// Those that a fault has stalled: they wait to be cancelled.
    stalled: Vec<Running>,
    /// When tokens were made last.
    stepped: Option<Instant>,
}

impl Scheduler {
    pub(super) fn new(inbox: mpsc::Receiver<Order>, beat: Arc<Beat>) -> Self {
        Self {
            inbox,
            beat,
            running: BinaryHeap::new(),
            stalled: Vec::new(),
            stepped: None,
        }
    }

    /// Runs until it is told to stop, or nobody can give orders any more.
    pub(super) async fn run(mut self) {
        loop {
            if self.beat.cancelled.swap(false, Atomic::AcqRel) {
                self.let_go();
            }
            self.make_due(Instant::now());
            self.tell();
            let due = self.running.peek().map_or_else(|| Instant::now() + FAR, |first| first.0.at);
            if due <= Instant::now() {
                // Orders and cancels have their turn too, and so has the rest of the process.
                tokio::task::yield_now().await;
                while let Ok(order) = self.inbox.try_recv() {
                    if !self.obey(order) {
                        return;
                    }
                }
                continue;
            }
            tokio::select! {
                biased;
                () = self.beat.woken.notified() => {}
                order = self.inbox.recv() => {
                    let Some(order) = order else { return };
                    if !self.obey(order) {
                        return;
                    }
                    while let Ok(order) = self.inbox.try_recv() {
                        if !self.obey(order) {
                            return;
                        }
                    }
                }
                () = sleep_until(self.stepped.map_or(due, |stepped| due.max(stepped + REST))) => {}
            }
        }
    }

    /// Says whether to go on.
    fn obey(&mut self, order: Order) -> bool {
        let Order::Begin(order) = order else { return false };
        let (plan, answer) = *order;
        if answer.is_cancelled() {
            return true; // on its way here, so that no look at the running ones has found it
        }
        let now = Instant::now();
        if self.running.is_empty() {
            self.beat.stepped(now);
        }
        let mut due = now + plan.prefill;
        if plan.step {
            due = self.next_step(due, plan.gap);
        }
        let next = plan.position;
        let (index, choice) = plan.place(next);
        let running = Box::new(Running {
            plan,
            answer,
            next,
            index,
            choice,
        });
        self.running.push(Reverse(Due { at: due, running }));
        true
    }

    /// The first step of the grid of this gap at or after `time`: all answers of one gap share it.
    fn next_step(&self, time: Instant, gap: Duration) -> Instant {
        let gap = u64::try_from(gap.as_micros()).unwrap_or(u64::MAX).max(1);
        let since = u64::try_from((time - self.beat.born).as_micros()).unwrap_or(u64::MAX);
        self.beat.born + Duration::from_micros(since.div_ceil(gap).saturating_mul(gap))
    }

    /// Makes the tokens that are due, within one turn.
    fn make_due(&mut self, now: Instant) {
        let mut left = TURN;
        while left > 0 {
            let Some(Reverse(first)) = self.running.peek() else { return };
            if first.at > now {
                return;
            }
            let Some(Reverse(Due { at, mut running })) = self.running.pop() else {
                return;
            };
            let burst = if running.plan.gap.is_zero() { BURST } else { 1 };
            left = left.saturating_sub(burst);
            match running.steps(burst) {
                Step::Next => {
                    let gap = running.plan.gap;
                    let at = if gap.is_zero() { Instant::now() } else { at + gap };
                    self.running.push(Reverse(Due { at, running }));
                }
                Step::Stalled => self.stalled.push(*running),
                Step::Broken => running.answer.fail(Failure::new(Reason::Upstream, "the script breaks off here")),
                Step::Whole => running.answer.finish(running.plan.ends()),
                Step::Over => {}
            }
            if left == TURN - burst {
                self.beat.stepped(now);
                self.stepped = Some(now);
            }
        }
    }

    /// Drops the answers that were cancelled.
    fn let_go(&mut self) {
        self.running.retain(|running| !running.0.running.answer.is_cancelled());
        self.stalled.retain(|running| !running.answer.is_cancelled());
    }

    fn tell(&self) {
        let running = self.running.len() + self.stalled.len();
        self.beat.running.store(u32::try_from(running).unwrap_or(u32::MAX), Atomic::Relaxed);
    }
}

/// What became of an answer in its turn.
enum Step {
    Next,
    Stalled,
    Broken,
    Whole,
    Over,
}

impl Running {
    /// Makes the next token of every choice, `times` times at most.
    fn steps(&mut self, times: u32) -> Step {
        for _ in 0..times {
            match self.step() {
                Step::Next => {}
                other => return other,
            }
        }
        Step::Next
    }

    /// A last step that makes the answer whole ends it at once: no token is due after it.
    fn step(&mut self) -> Step {
        let entries = self.plan.entries();
        if self.next < entries {
            let index = self.index;
            let faults = self.plan.faults;
            if faults.die == Some(index) {
                std::process::abort();
            }
            if faults.stall == Some(index) {
                return Step::Stalled;
            }
            if faults.fail == Some(index) {
                return Step::Broken;
            }
            for choice in self.choice..self.plan.choices {
                if index >= self.plan.length(choice) {
                    continue;
                }
                let entry: Entry = self.plan.entry(index, choice);
                if self.answer.push(entry).is_err() {
                    return Step::Over;
                }
                self.next += 1;
            }
            self.index += 1;
            self.choice = 0;
        }
        if self.next >= entries { Step::Whole } else { Step::Next }
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Due {}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// By the time alone.
impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        self.at.cmp(&other.at)
    }
}
