//! Telling others that something has changed: a slot may be free, or the status is another. Everybody may ring, under any lock.

use tokio::sync::{Notify, watch};

/// What rings.
#[derive(Debug)]
pub(crate) struct Pulse {
    slots: Notify,
    status: watch::Sender<()>,
}

impl Default for Pulse {
    fn default() -> Self {
        Self {
            slots: Notify::new(),
            status: watch::Sender::new(()),
        }
    }
}

impl Pulse {
    /// A slot may be free, or have gone.
    pub(crate) fn slots_changed(&self) {
        self.slots.notify_one();
        self.status_changed();
    }

    /// What operators see is another.
    pub(crate) fn status_changed(&self) {
        self.status.send_modify(|()| ());
    }

    /// Waits until a slot may be free. For the one dispatcher.
    pub(crate) async fn slots(&self) {
        self.slots.notified().await;
    }

    /// Watches the status.
    pub(crate) fn status(&self) -> watch::Receiver<()> {
        self.status.subscribe()
    }
}
