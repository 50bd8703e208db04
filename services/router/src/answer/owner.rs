//! Whose an answer is. One router *owns* it: it moves it when its worker dies, cancels it when its readers have gone, and stores its turn. A
//! router whose answer another one has adopted goes on reading for its own readers, and does nothing of that any more.

use std::sync::atomic::Ordering;

use super::{Answer, Phase};

impl Answer {
    /// Whether it is this router's.
    pub(crate) fn is_owned(&self) -> bool {
        self.owned.load(Ordering::Acquire)
    }

    /// Another router has taken it over. Says whether somebody still reads it here.
    pub(crate) fn disown(&self) -> bool {
        let mut state = self.state.lock();
        self.owned.store(false, Ordering::Release);
        if let Phase::Running(_, call) = &mut state.phase {
            call.disown();
        }
        state.readers > 0
    }

    /// It was another router's, and is this one's from now on: its worker is told so.
    pub(crate) fn own(&self) {
        let mut state = self.state.lock();
        let epoch = state.writer.epoch();
        if let Phase::Running(_, call) = &mut state.phase {
            call.own(epoch);
        }
    }

    /// The store has given this epoch to this router.
    pub(crate) fn give(&self, epoch: u32) {
        let mut state = self.state.lock();
        state.given = state.given.max(epoch);
    }

    /// The last epoch that is this router's beyond doubt.
    pub(crate) fn given(&self) -> u32 {
        self.state.lock().given
    }
}
