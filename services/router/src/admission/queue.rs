//! The queue of one model: the higher priority goes first; within a priority the tenants have turns, so that one who sends a thousand
//! requests delays another's next one by a single turn. It knows no bound.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, VecDeque},
    sync::Arc,
};

use super::Claim;

/// Requests that wait for one model.
#[derive(Debug)]
pub(super) struct Queue<T> {
    /// Those that were admitted before and lost their worker: before all others, in no turns.
    again: VecDeque<T>,
    levels: BTreeMap<Reverse<i32>, Level<T>>,
    len: usize,
}

/// The requests of one priority.
#[derive(Debug)]
struct Level<T> {
    /// The tenants that have requests here, in the order of their turns.
    turns: VecDeque<Arc<str>>,
    waiting: HashMap<Arc<str>, VecDeque<T>>,
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self {
            again: VecDeque::new(),
            levels: BTreeMap::new(),
            len: 0,
        }
    }
}

impl<T> Default for Level<T> {
    fn default() -> Self {
        Self {
            turns: VecDeque::new(),
            waiting: HashMap::new(),
        }
    }
}

impl<T> Queue<T> {
    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Waits for its turn.
    pub(super) fn push(&mut self, claim: &Claim, item: T) {
        self.len += 1;
        let level = self.levels.entry(Reverse(claim.priority)).or_default();
        let waiting = level.waiting.entry(Arc::clone(&claim.tenant)).or_default();
        if waiting.is_empty() {
            level.turns.push_back(Arc::clone(&claim.tenant));
        }
        waiting.push_back(item);
    }

    /// Waits before all others.
    pub(super) fn push_again(&mut self, item: T) {
        self.len += 1;
        self.again.push_back(item);
    }

    /// The first of those that were admitted before.
    pub(super) fn first_again(&self) -> Option<&T> {
        self.again.front()
    }

    /// Whose turn it is among the others.
    pub(super) fn first(&self) -> Option<&T> {
        let level = self.levels.values().next()?;
        level.waiting.get(level.turns.front()?)?.front()
    }

    /// Takes [`Queue::first`] out.
    pub(super) fn pop(&mut self) -> Option<T> {
        let mut level = self.levels.first_entry()?;
        let item = level.get_mut().pop();
        if level.get().turns.is_empty() {
            level.remove();
        }
        self.len -= usize::from(item.is_some());
        item
    }

    /// Takes [`Queue::first_again`] out.
    pub(super) fn pop_again(&mut self) -> Option<T> {
        let item = self.again.pop_front();
        self.len -= usize::from(item.is_some());
        item
    }

    /// Takes out those that `leaves` says of.
    pub(super) fn remove(&mut self, leaves: &mut impl FnMut(&T) -> bool, gone: &mut Vec<T>) {
        let before = gone.len();
        take(&mut self.again, leaves, gone);
        self.levels.retain(|_, level| {
            level.waiting.retain(|_, waiting| {
                take(waiting, leaves, gone);
                !waiting.is_empty()
            });
            level.turns.retain(|tenant| level.waiting.contains_key(tenant));
            !level.turns.is_empty()
        });
        self.len -= gone.len() - before;
    }
}

impl<T> Level<T> {
    /// The first of the tenant whose turn it is; the tenant then goes to the end.
    fn pop(&mut self) -> Option<T> {
        let tenant = self.turns.pop_front()?;
        let waiting = self.waiting.get_mut(&tenant)?;
        let item = waiting.pop_front();
        if waiting.is_empty() {
            self.waiting.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        item
    }
}

fn take<T>(from: &mut VecDeque<T>, leaves: &mut impl FnMut(&T) -> bool, into: &mut Vec<T>) {
    for item in std::mem::take(from) {
        if leaves(&item) {
            into.push(item);
        } else {
            from.push_back(item);
        }
    }
}
