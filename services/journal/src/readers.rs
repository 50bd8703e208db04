//! Many readers of many journals, read as one: the sending side of an exchange.
//!
//! One decode step makes a token for every running answer. Whoever drains the set after it finds all of them ready and can
//! send them in one write, where a task for each answer would make a write for each.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use foldhash::{HashMap, HashMapExt as _};
use parking_lot::Mutex;

use crate::{Entry, Reader};

/// Readers by the number of the call that they serve, each with what its owner wants to find with it.
#[derive(Debug)]
pub struct Readers<E: Entry, T = ()> {
    members: HashMap<u32, Member<E, T>>,
    ready: Arc<Ready>,
}

#[derive(Debug)]
struct Member<E: Entry, T> {
    reader: Reader<E>,
    with: T,
    bell: Arc<Bell>,
    waker: Waker,
}

/// The calls that may have something, in the order in which it came, and the task that drains them.
#[derive(Debug, Default)]
struct Ready {
    queue: Mutex<Queue>,
}

#[derive(Debug, Default)]
struct Queue {
    calls: VecDeque<u32>,
    task: Option<Waker>,
}

/// Rung by a journal when it has an entry for one call.
#[derive(Debug)]
struct Bell {
    call: u32,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.push(self.call);
        }
    }
}

impl Ready {
    fn push(&self, call: u32) {
        let task = {
            let mut queue = self.queue.lock();
            queue.calls.push_back(call);
            queue.task.take()
        };
        if let Some(task) = task {
            task.wake();
        }
    }

    fn pop(&self, context: &Context<'_>) -> Option<u32> {
        let mut queue = self.queue.lock();
        let call = queue.calls.pop_front();
        if call.is_none() {
            match &mut queue.task {
                Some(task) => task.clone_from(context.waker()),
                none => *none = Some(context.waker().clone()),
            }
        }
        call
    }
}

impl<E: Entry, T> Default for Readers<E, T> {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            ready: Arc::default(),
        }
    }
}

impl<E: Entry, T> Readers<E, T> {
    /// Adds a reader for `call`. One that served that call before is returned.
    pub fn insert(&mut self, call: u32, reader: Reader<E>, with: T) -> Option<(Reader<E>, T)> {
        let bell = Arc::new(Bell {
            call,
            queued: AtomicBool::new(true),
            ready: Arc::clone(&self.ready),
        });
        let waker = Waker::from(Arc::clone(&bell));
        let member = Member { reader, with, bell, waker };
        let before = self.members.insert(call, member);
        self.ready.push(call);
        before.map(|member| (member.reader, member.with))
    }

    /// Takes a reader out.
    pub fn remove(&mut self, call: u32) -> Option<(Reader<E>, T)> {
        self.members.remove(&call).map(|member| (member.reader, member.with))
    }

    /// Takes all readers out.
    pub fn drain(&mut self) -> impl Iterator<Item = (u32, T)> {
        self.members.drain().map(|(call, member)| (call, member.with))
    }

    /// What is with the reader of `call`.
    pub fn get(&self, call: u32) -> Option<&T> {
        self.members.get(&call).map(|member| &member.with)
    }

    /// The same, to be changed.
    pub fn get_mut(&mut self, call: u32) -> Option<&mut T> {
        self.members.get_mut(&call).map(|member| &mut member.with)
    }

    /// How many readers there are.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// Hands what is ready for one call, `most` entries at most, to `take`; see [`Reader::poll_read`]. Calls have turns. A reader
    /// that has taken its terminal entry is removed. Pending while nobody has anything.
    pub fn poll_read<R>(
        &mut self,
        context: &Context<'_>,
        most: usize,
        mut take: impl FnMut(u32, u32, &[E], &T) -> R,
    ) -> Poll<Delivered<R, T>> {
        while let Some(call) = self.ready.pop(context) {
            let Some(member) = self.members.get_mut(&call) else { continue };
            member.bell.queued.store(false, Ordering::Release);
            let Member { reader, with, waker, .. } = member;
            let (taken, ended) = match reader.poll_read(&Context::from_waker(waker), most, |first, entries| {
                let ended = entries.last().is_some_and(Entry::is_terminal);
                (take(call, first, entries, with), ended)
            }) {
                Poll::Pending => continue,
                Poll::Ready(None) => (None, true),
                Poll::Ready(Some((taken, ended))) => (Some(taken), ended),
            };
            if !ended && reader.is_ready() {
                waker.wake_by_ref(); // `most` left some behind
            }
            let done = if ended { self.remove(call) } else { None };
            return Poll::Ready(Delivered {
                call,
                taken,
                done: done.map(|(_, with)| with),
            });
        }
        Poll::Pending
    }
}

/// What was ready for one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered<R, T = ()> {
    /// The call.
    pub call: u32,
    /// What `take` made of its entries. `None` if the reader began past the terminal entry.
    pub taken: Option<R>,
    /// If that was its end: what was with the reader.
    pub done: Option<T>,
}
