//! API keys as a gateway knows them: what the store says of a key is believed for a while. [`revocation`] forgets it as soon as the store says
//! that it was revoked, and ends what is read with it. Used by [`super::Identity`].

mod revocation;
mod uses;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::StatusCode;
use parking_lot::Mutex;
use proto::v1::{
    ApiKey, Failure, FindKeyRequest, KeyRole, NoteKeyUsesRequest, Reason, conversation_service_client::ConversationServiceClient,
};
use tokio::{
    sync::Semaphore,
    time::{Instant, sleep, timeout},
};
use tonic::transport::Channel;

use self::{revocation::Revocations, uses::Uses};
use super::{Caller, Role, Who, cache::Cache, key, secret::Secret};
use crate::{clients::Clients, failure::Refusal};

/// Keys that are known at once, some hundred bytes each.
const KNOWN: usize = 10_000;
/// How long a key is believed: also when the store is away.
const BELIEVED: Duration = Duration::from_mins(1);
/// How long it is believed that there is no such key: whoever guesses ids asks the store no more often.
const UNKNOWN: Duration = Duration::from_secs(5);
/// Keys that are asked for at the store at once: the others wait, so that guessing is no flood there.
const LOOKUPS: usize = 64;
/// How long the store may take, and how long it may be waited for.
const PATIENCE: Duration = Duration::from_secs(2);
/// How often the store hears which keys were used.
const NOTE: Duration = Duration::from_mins(1);

type Store = ConversationServiceClient<Channel>;

/// The keys that are known.
#[derive(Debug)]
pub(super) struct Keys {
    secret: Secret,
    environment: String,
    store: Store,
    clients: Clients,
    known: Mutex<Cache<String, Option<Arc<Known>>>>,
    used: Mutex<Uses>,
    lookups: Semaphore,
}

/// What the store says of a key.
#[derive(Debug)]
struct Known {
    hash: Vec<u8>,
    caller: Caller,
    /// In milliseconds since 1970; 0: never.
    expires_ms: i64,
    revoked: bool,
}

impl Keys {
    /// Those of this environment, which the store keeps.
    pub(super) fn new(secret: Secret, environment: String, clients: Clients) -> Self {
        Self {
            secret,
            environment,
            store: clients.store(),
            clients,
            known: Mutex::new(Cache::new(KNOWN)),
            used: Mutex::default(),
            lookups: Semaphore::new(LOOKUPS),
        }
    }

    /// Whose key this is.
    ///
    /// # Errors
    /// It is none, or good no more; or the store cannot be asked.
    pub(super) async fn caller(&self, text: &str) -> Result<Caller, Refusal> {
        let parts = key::parse(text).ok_or_else(unknown)?;
        if parts.environment != self.environment {
            let expected = &self.environment;
            return Err(invalid(format!(
                "this API key is not for this environment; its keys begin with ub_{expected}_"
            )));
        }
        let known = self.find(parts.id).await?.ok_or_else(unknown)?;
        if !self.secret.is_hash_of_key(&known.hash, text) {
            return Err(unknown());
        }
        known.check()?;
        self.used.lock().note(parts.id, now_ms());
        Ok(known.caller.clone())
    }

    /// Whether the key of this id is still good: for credentials that were got with it, and sockets that were opened with it.
    ///
    /// # Errors
    /// It is good no more; or the store cannot be asked.
    pub(super) async fn still_good(&self, id: &str) -> Result<(), Refusal> {
        self.find(id).await?.ok_or_else(unknown)?.check()
    }

    async fn find(&self, id: &str) -> Result<Option<Arc<Known>>, Refusal> {
        if let Some(known) = self.known.lock().get(id, Instant::now()) {
            return Ok(known);
        }
        timeout(PATIENCE, self.look_up(id)).await.unwrap_or_else(|_| Err(store_is_away()))
    }

    async fn look_up(&self, id: &str) -> Result<Option<Arc<Known>>, Refusal> {
        let _turn = self.lookups.acquire().await.map_err(|_| store_is_away())?;
        // Somebody may have asked for it meanwhile.
        if let Some(known) = self.known.lock().get(id, Instant::now()) {
            return Ok(known);
        }
        let asked = Instant::now();
        let (known, until) = match self.store.clone().find_key(FindKeyRequest { id: id.to_owned() }).await {
            Ok(found) => (Some(Arc::new(self.known(found.into_inner()))), asked + BELIEVED),
            Err(status) if Failure::from_status(&status).reason() == Reason::NotFound => (None, asked + UNKNOWN),
            Err(status) => {
                tracing::warn!(reason = status.message(), "the store cannot be asked for an API key");
                return Err(store_is_away());
            }
        };
        self.known.lock().put(id.to_owned(), known.clone(), until);
        Ok(known)
    }

    fn known(&self, key: ApiKey) -> Known {
        if key.secret_id != self.secret.id() {
            tracing::warn!(
                key = key.id,
                "this API key was made under another UNBROKEN_KEY_SECRET than this gateway's, so it is refused"
            );
        }
        let role = match key.role() {
            KeyRole::Admin => Role::Admin,
            KeyRole::Unspecified | KeyRole::User => Role::User,
        };
        let who = Who {
            principal: key.principal.unwrap_or_default(),
            role,
            tier: Some(key.tier).filter(|tier| !tier.is_empty()),
            key: Some(key.id),
            ..Who::default()
        };
        Known {
            hash: key.hash,
            caller: Caller(Arc::new(who)),
            expires_ms: key.expires_ms,
            revoked: key.revoked_ms > 0,
        }
    }

    /// Forgets keys as they are revoked, and tells the store which were used, for ever. Neither waits for the other: a store that takes its
    /// time to write must not hold up a revocation.
    pub(super) async fn keep_up(self: Arc<Self>) {
        tokio::join!(self.forget_revoked(), self.tell_uses());
    }

    async fn forget_revoked(&self) {
        let mut revocations = Revocations::default();
        loop {
            sleep(revocation::ASK).await;
            revocations.look(self).await;
        }
    }

    async fn tell_uses(&self) {
        loop {
            sleep(NOTE).await;
            let uses = self.used.lock().take();
            if uses.is_empty() {
                continue;
            }
            let note = NoteKeyUsesRequest { uses: uses.clone() };
            if !matches!(timeout(PATIENCE, self.store.clone().note_key_uses(note)).await, Ok(Ok(_))) {
                self.used.lock().give_back(&uses);
            }
        }
    }
}

impl Known {
    fn check(&self) -> Result<(), Refusal> {
        if self.revoked {
            return Err(invalid("this API key was revoked"));
        }
        if self.expires_ms > 0 && now_ms() >= self.expires_ms {
            return Err(invalid("this API key has expired"));
        }
        Ok(())
    }
}

fn unknown() -> Refusal {
    invalid("this API key is not known here")
}

fn invalid(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_api_key", message)
}

fn store_is_away() -> Refusal {
    Failure::new(
        Reason::StoreUnavailable,
        "the API key cannot be checked now: the conversation store cannot be reached",
    )
    .into()
}

/// Milliseconds since 1970.
pub(super) fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
