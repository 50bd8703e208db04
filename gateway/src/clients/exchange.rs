//! One exchange with one router: a `BiStreamChat` call that carries many answers and is opened again whenever it breaks.
//!
//! [`crate::turn`] opens calls on it and reads their slots. It knows nothing of what an answer means; it only sorts messages by
//! call. Nothing here waits for a client.

use std::{
    collections::{HashSet, VecDeque},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use foldhash::HashMap;
use futures_util::Stream;
use parking_lot::Mutex;
use proto::v1::{Cancel, ChatCommand, ChatResponse, Detach, Failure, chat_command::Command, chat_service_client::ChatServiceClient};
use tokio::time::sleep;
use tonic::transport::Channel;

use super::{
    Bearer,
    slot::{End, Slot},
};

/// Commands that may wait to be sent before new answers are refused. Ends of answers are always taken: there is one for each
/// open call at most.
const OUTBOX: usize = 4096;
/// How soon a broken exchange is opened again, at first.
const BACKOFF_FIRST: Duration = Duration::from_millis(20);
/// And at last: short, as one attempt costs little and a router that comes back should be used at once.
const BACKOFF_LAST: Duration = Duration::from_millis(500);

/// The calls of one exchange, and the commands that wait to be sent.
#[derive(Debug, Default)]
pub(crate) struct Exchange(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    live: bool,
    /// Counts the openings; the sending half of an earlier one ends.
    generation: u64,
    last_call: u32,
    slots: HashMap<u32, Arc<Slot>>,
    outbox: VecDeque<ChatCommand>,
    sender: Option<Waker>,
}

/// An answer that is read on an exchange. Dropped before its end, it tells the router that its reader has gone.
#[derive(Debug)]
pub(crate) struct Call {
    exchange: Arc<Exchange>,
    slot: Arc<Slot>,
    number: u32,
}

impl Exchange {
    /// Whether the router takes commands on it.
    pub(crate) fn is_live(&self) -> bool {
        self.0.lock().live
    }

    /// How many answers are read on it.
    pub(crate) fn calls(&self) -> usize {
        self.0.lock().slots.len()
    }

    /// Sends `command`, and reads what comes for it from the position `next` on, for `bearer`. `None` if the exchange takes nothing now.
    pub(crate) fn open(self: &Arc<Self>, command: Command, next: u32, bearer: Bearer) -> Option<Call> {
        let slot = Arc::new(Slot::new(next, bearer));
        let mut state = self.0.lock();
        if !state.live || state.outbox.len() >= OUTBOX {
            return None;
        }
        let number = state.free_number();
        state.slots.insert(number, Arc::clone(&slot));
        let sender = state.send(number, command);
        drop(state);
        wake(sender);
        Some(Call {
            exchange: Arc::clone(self),
            slot,
            number,
        })
    }

    /// Keeps the exchange open for ever.
    pub(crate) async fn run(self: Arc<Self>, router: String, mut client: ChatServiceClient<Channel>) {
        let mut backoff = BACKOFF_FIRST;
        loop {
            let outgoing = self.renew();
            match client.bi_stream_chat(outgoing).await {
                Ok(response) => {
                    tracing::info!(router, "exchange opened");
                    backoff = BACKOFF_FIRST;
                    self.0.lock().live = true;
                    let mut incoming = response.into_inner();
                    let broken = loop {
                        match incoming.message().await {
                            Ok(Some(message)) => self.deliver(message),
                            Ok(None) => break None,
                            Err(status) => break Some(status),
                        }
                    };
                    let lost = self.break_off();
                    let reason = broken.map(|status| status.to_string()).unwrap_or_default();
                    tracing::warn!(router, lost, reason, "exchange closed");
                }
                Err(status) => tracing::debug!(router, %status, "exchange not opened"),
            }
            sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF_LAST);
        }
    }

    fn deliver(&self, message: ChatResponse) {
        let call = message.call;
        let mut state = self.0.lock();
        let Some(slot) = state.slots.get(&call) else { return };
        let put = slot.put(message);
        let mut sender = None;
        if put.closed {
            state.slots.remove(&call);
            if put.behind {
                sender = state.send(call, Command::Detach(Detach { lagging: true }));
            }
        }
        drop(state);
        wake(put.waker);
        wake(sender);
    }

    /// A fresh sending half; commands for the one before are void.
    fn renew(self: &Arc<Self>) -> Outgoing {
        let mut state = self.0.lock();
        state.generation += 1;
        state.outbox.clear();
        Outgoing {
            exchange: Arc::clone(self),
            generation: state.generation,
        }
    }

    /// Sends all readers whose answers have begun elsewhere. The router is told that they are not gone: it keeps their answers until
    /// another router has taken them over.
    pub(crate) fn send_away(&self) {
        let (mut sender, mut away) = (None, Vec::new());
        {
            let mut state = self.0.lock();
            let calls: Vec<u32> = state
                .slots
                .iter()
                .filter(|(_, slot)| slot.has_begun())
                .map(|(call, _)| *call)
                .collect();
            for call in calls {
                away.extend(state.slots.remove(&call));
                sender = state.send(call, Command::Detach(Detach { lagging: true })).or(sender);
            }
        }
        wake(sender);
        for slot in away {
            wake(slot.close(End::Broken));
        }
    }

    /// Adds the keys with which its answers are read.
    pub(super) fn keys(&self, keys: &mut HashSet<Arc<str>>) {
        let state = self.0.lock();
        keys.extend(state.slots.values().filter_map(|slot| slot.bearer().key().cloned()));
    }

    /// Ends what is read with these keys, and tells how much that was. The router stops answers that a key has started; of the others it
    /// hears that their reader has gone.
    pub(super) fn cut(&self, keys: &HashSet<&str>, failure: &Failure) -> usize {
        let (mut sender, mut cut) = (None, Vec::new());
        {
            let mut state = self.0.lock();
            let theirs = |slot: &Slot| slot.bearer().key().is_some_and(|key| keys.contains(&**key));
            let calls: Vec<u32> = state.slots.iter().filter(|(_, slot)| theirs(slot)).map(|(call, _)| *call).collect();
            for call in calls {
                let Some(slot) = state.slots.remove(&call) else { continue };
                if slot.bearer().has_started() {
                    sender = state.send(call, Command::Cancel(Cancel {})).or(sender);
                }
                sender = state.send(call, Command::Detach(Detach { lagging: false })).or(sender);
                cut.push(slot);
            }
        }
        wake(sender);
        for slot in &cut {
            wake(slot.close(End::Refused(Box::new(failure.clone()))));
        }
        cut.len()
    }

    /// Tells all readers that the exchange broke. Returns how many there were.
    fn break_off(&self) -> usize {
        let slots = {
            let mut state = self.0.lock();
            state.live = false;
            state.generation += 1;
            std::mem::take(&mut state.slots)
        };
        for slot in slots.values() {
            wake(slot.close(End::Broken));
        }
        slots.len()
    }
}

impl State {
    fn free_number(&mut self) -> u32 {
        loop {
            self.last_call = self.last_call.wrapping_add(1);
            if !self.slots.contains_key(&self.last_call) {
                return self.last_call;
            }
        }
    }

    fn send(&mut self, call: u32, command: Command) -> Option<Waker> {
        self.outbox.push_back(ChatCommand {
            call,
            command: Some(command),
        });
        self.sender.take()
    }
}

impl Call {
    /// Where its messages arrive.
    pub(crate) fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The exchange that it is on.
    pub(crate) fn exchange(&self) -> &Arc<Exchange> {
        &self.exchange
    }

    /// Asks for the end of the answer; its terminal entry will come.
    pub(crate) fn cancel(&self) {
        self.tell(Command::Cancel(Cancel {}), false);
    }

    /// Reads no more, and says that the reader comes back by another way, as one that lags does.
    pub(crate) fn expect_back(self) {
        self.tell(Command::Detach(Detach { lagging: true }), true);
    }

    fn tell(&self, command: Command, leave: bool) {
        let mut state = self.exchange.0.lock();
        let open = if leave {
            state.slots.remove(&self.number).is_some()
        } else {
            state.slots.contains_key(&self.number)
        };
        let sender = if open { state.send(self.number, command) } else { None };
        drop(state);
        wake(sender);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.tell(Command::Detach(Detach { lagging: false }), true);
    }
}

/// The commands of one opening, as the body of its request. All that wait leave in one write.
struct Outgoing {
    exchange: Arc<Exchange>,
    generation: u64,
}

impl Stream for Outgoing {
    type Item = ChatCommand;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<ChatCommand>> {
        let mut state = self.exchange.0.lock();
        if state.generation != self.generation {
            return Poll::Ready(None);
        }
        if let Some(command) = state.outbox.pop_front() {
            return Poll::Ready(Some(command));
        }
        state.sender = Some(context.waker().clone());
        Poll::Pending
    }
}

fn wake(waker: Option<Waker>) {
    if let Some(waker) = waker {
        waker.wake();
    }
}
