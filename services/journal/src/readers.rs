//! Many readers of many journals, read as one: the sending side of an exchange.
//!
//! One decode step makes a token for every running answer. Whoever drains the set after it finds all of them ready and can
//! send them in one write, where a task for each answer would make a write for each.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};

use parking_lot::Mutex;

use crate::{Entry, Reader};

/// Readers by the number of the call that they serve.
#[derive(Debug)]
pub struct Readers<E: Entry> {
    members: HashMap<u32, Member<E>>,
    ready: Arc<Ready>,
}

#[derive(Debug)]
struct Member<E: Entry> {
    reader: Reader<E>,
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

impl<E: Entry> Default for Readers<E> {
    fn default() -> Self {
        Self {
            members: HashMap::new(),
            ready: Arc::default(),
        }
    }
}

impl<E: Entry> Readers<E> {
    /// Adds a reader for `call`. One that served that call before is returned.
    pub fn insert(&mut self, call: u32, reader: Reader<E>) -> Option<Reader<E>> {
        let bell = Arc::new(Bell {
            call,
            queued: AtomicBool::new(true),
            ready: Arc::clone(&self.ready),
        });
        let waker = Waker::from(Arc::clone(&bell));
        let before = self.members.insert(call, Member { reader, bell, waker });
        self.ready.push(call);
        before.map(|member| member.reader)
    }

    /// Takes a reader out.
    pub fn remove(&mut self, call: u32) -> Option<Reader<E>> {
        self.members.remove(&call).map(|member| member.reader)
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
    /// that has taken its terminal entry is removed, with `done` said. Pending while nobody has anything.
    pub fn poll_read<R>(&mut self, context: &Context<'_>, most: usize, mut take: impl FnMut(u32, u32, &[E]) -> R) -> Poll<Delivered<R>> {
        while let Some(call) = self.ready.pop(context) {
            let Some(member) = self.members.get_mut(&call) else { continue };
            member.bell.queued.store(false, Ordering::Release);
            match member
                .reader
                .poll_read(&Context::from_waker(&member.waker), most, |first, entries| {
                    let done = entries.last().is_some_and(Entry::is_terminal);
                    (take(call, first, entries), done)
                }) {
                Poll::Ready(Some((taken, done))) => {
                    if done {
                        self.members.remove(&call);
                    } else if member.reader.is_ready() {
                        member.waker.wake_by_ref(); // `most` left some behind
                    }
                    return Poll::Ready(Delivered {
                        call,
                        taken: Some(taken),
                        done,
                    });
                }
                Poll::Ready(None) => {
                    self.members.remove(&call);
                    return Poll::Ready(Delivered {
                        call,
                        taken: None,
                        done: true,
                    });
                }
                Poll::Pending => {}
            }
        }
        Poll::Pending
    }
}

/// What was ready for one call.
#[derive(Debug, PartialEq, Eq)]
pub struct Delivered<R> {
    /// The call.
    pub call: u32,
    /// What `take` made of its entries. `None` if the reader began past the terminal entry.
    pub taken: Option<R>,
    /// Whether that was its end.
    pub done: bool,
}
