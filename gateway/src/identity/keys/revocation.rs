//! Keys that are revoked: the store is asked for them every second while any key is known, so that they open no door any more, and what is
//! read with them ends, within two seconds at every gateway. Nothing of this is in the way of a token: a revocation goes to the answers,
//! and no answer looks for one.

use std::{collections::HashSet, sync::Arc};

use futures_util::{StreamExt as _, stream};
use proto::v1::{Failure, ListRevocationsRequest, Reason};
use tokio::time::{Duration, Instant, timeout};

use super::{Keys, Known, LOOKUPS, PATIENCE};

/// How often it is asked which keys were revoked.
pub(super) const ASK: Duration = Duration::from_secs(1);
/// The revocations that are asked for: of longer than a key is believed, so that clocks may differ and a reply may be lost.
const WITHIN: Duration = Duration::from_mins(2);
/// After this time without a reply the next one may lack some.
const MISSED: Duration = Duration::from_mins(1);

/// What is known of the store's replies.
#[derive(Debug, Default)]
pub(super) struct Revocations {
    /// Since when there is a key to ask for.
    since: Option<Instant>,
    /// When it was asked last to which there was a reply, and nothing was left open.
    heard: Option<Instant>,
    away: bool,
}

impl Revocations {
    /// Asks which keys were revoked, if any key is known.
    pub(super) async fn look(&mut self, keys: &Keys) {
        if self.since.is_none() && keys.known.lock().is_empty() {
            return;
        }
        let since = *self.since.get_or_insert_with(Instant::now);
        let within_ms = u32::try_from(WITHIN.as_millis()).unwrap_or(u32::MAX);
        let mut store = keys.store.clone();
        let asked = Instant::now();
        let reply = timeout(PATIENCE, store.list_revocations(ListRevocationsRequest { within_ms })).await;
        let Ok(Ok(reply)) = reply else {
            if !self.away {
                self.away = true;
                tracing::warn!(
                    "the store cannot be asked which API keys were revoked: known keys stay good, for a minute at most, and what runs goes on"
                );
            }
            return;
        };
        let revoked = reply.into_inner();
        let missed = asked - self.heard.unwrap_or(since) > MISSED;
        self.away = false;
        keys.revoke(&revoked.ids);
        if !(revoked.more || missed) || keys.check_all().await {
            self.heard = Some(asked);
        }
    }
}

impl Keys {
    /// Forgets these keys, and ends what is read with them.
    fn revoke(&self, ids: &[String]) {
        if ids.is_empty() {
            return;
        }
        {
            let mut known = self.known.lock();
            for id in ids {
                known.forget(id.as_str());
            }
        }
        self.cut(ids.iter().map(String::as_str));
    }

    /// Forgets all keys, and asks the store for each that something is read with: whichever was revoked cannot be told otherwise. Says
    /// whether it could be asked for all of them.
    async fn check_all(&self) -> bool {
        self.known.lock().clear();
        let checks = self.clients.keys().into_iter().map(|id| async move {
            let found = self.find(&id).await;
            (id, found)
        });
        let checks: Vec<_> = checks.collect();
        let checked: Vec<_> = stream::iter(checks).buffer_unordered(LOOKUPS).collect().await;
        let is_gone = |found: &Option<Arc<Known>>| found.as_ref().is_none_or(|known| known.revoked);
        let revoked = checked.iter().filter(|(_, found)| found.as_ref().is_ok_and(is_gone));
        self.cut(revoked.map(|(id, _)| &**id));
        checked.iter().all(|(_, found)| found.is_ok())
    }

    fn cut<'a>(&self, ids: impl IntoIterator<Item = &'a str>) {
        let ids: HashSet<&str> = ids.into_iter().collect();
        if !ids.is_empty() {
            let failure = Failure::new(Reason::Revoked, "the API key that this answer was asked for with was revoked");
            self.clients.cut(&ids, &failure);
        }
    }
}
