//! Limits of what a caller may ask for: requests per minute, tokens per day, answers at once, by tier.
//!
//! A request for an answer passes [`Limits::admit`] once, in [`crate::door`], when all of it is known: its tokens are reserved, as many as
//! it may take, also where it asks for several answers. It gets a [`Grant`], which the request's [account](crate::account) keeps and which
//! is settled when that is dropped, with what the journal says the answer took; whoever saw the end of the answer settles, and the ledger
//! takes the first only. Where nobody saw it (the client has gone, a gateway died), the request log knows: [`settler`] looks there.
//!
//! [`judge`] puts a request before the ledger; [`book`] is the rule, [`memory`] and [`redis`] keep books by it (the trait [`Ledger`]),
//! [`shared`] is what holds while Redis is away.
//! A request that reads on, or that is repeated with its `Idempotency-Key`, costs nothing. Who comes by gRPC is not limited: those are
//! services.

mod book;
mod estimate;
mod grant;
mod judge;
mod memory;
mod names;
mod quota;
mod redis;
mod settler;
mod shared;
mod terms;
mod tier;

#[cfg(test)]
mod contract;

use std::{
    sync::{Arc, OnceLock},
    time::{SystemTime, UNIX_EPOCH},
};

use chassis::drain::Drain;
use proto::v1::{ChatRequest, EmbedRequest, Principal, conversation_service_client::ConversationServiceClient};
use sha2::{Digest as _, Sha256};
use tonic::transport::Channel;

pub(crate) use self::{
    grant::Grant,
    names::nth as nth_name,
    quota::{HEADERS, Quota},
    tier::{DEFAULT, Tiers},
};
use self::{
    grant::Reservation,
    memory::Memory,
    redis::Redis,
    settler::Settler,
    shared::Shared,
    terms::{Ask, Settlement, Verdict},
};
use crate::{Error, Settings, clients::Clients, failure::Refusal, identity::Caller, metrics::Metrics};

/// Where a request's quota is left for [`crate::stack`], which writes it into the response's headers.
pub(crate) type Slot = Arc<OnceLock<Quota>>;

/// Whom limits hold for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Mode {
    /// For callers that have said who they are.
    Auto,
    /// For everybody; those who have not are one caller together, in the least tier.
    On,
    /// For nobody.
    Off,
}

/// Books by which requests are judged. `now` is in milliseconds since 1970; 0 is the ledger's own clock.
#[tonic::async_trait]
trait Ledger: Send + Sync {
    /// Judges a request, and reserves what it may take.
    async fn admit(&self, ask: &Ask, now: u64) -> Result<Verdict, LedgerGone>;
    /// Closes a reservation, and charges what its answer took. Says whether it was open, or owed: only then anything changes.
    async fn settle(&self, end: &Settlement, now: u64) -> Result<bool, LedgerGone>;
}

/// A ledger cannot be reached.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct LedgerGone(String);

/// The limits of a gateway. Cloning shares.
#[derive(Clone)]
pub(crate) struct Limits(Arc<Inner>);

struct Inner {
    mode: Mode,
    tiers: Tiers,
    /// Tokens of output that are reserved where the client gives no bound.
    output: u32,
    /// How long an answer may be asked for again.
    keep_ms: u64,
    books: Books,
    settler: Settler,
    metrics: Arc<Metrics>,
    drain: Drain,
}

/// The ledgers of a gateway.
enum Books {
    Memory(Box<Memory>),
    Shared(Arc<Shared>),
}

impl Limits {
    /// As the settings say.
    ///
    /// # Errors
    /// The address of Redis is not one.
    pub(crate) fn start(settings: &Settings, clients: &Clients, metrics: &Arc<Metrics>, drain: &Drain) -> Result<Self, Error> {
        let books = match settings.redis.as_ref().and_then(|address| address.get()) {
            None => Books::Memory(Box::new(Memory::new())),
            Some(address) => {
                let redis = Redis::new(address, settings.redis_timeout).map_err(|error| Error::Redis(error.to_string()))?;
                Books::Shared(Shared::new(redis, settings.gateways, metrics, drain))
            }
        };
        let (settler, pending) = Settler::new(metrics);
        let limits = Self(Arc::new(Inner {
            mode: settings.limits,
            tiers: settings.tiers.clone(),
            output: settings.limits_output,
            keep_ms: u64::try_from(settings.limits_retention.as_millis()).unwrap_or(u64::MAX),
            books,
            settler,
            metrics: Arc::clone(metrics),
            drain: drain.clone(),
        }));
        drain.spawn_last(limits.clone().keep_books(clients.store(), pending));
        Ok(limits)
    }

    /// Closes what is left to be closed, for as long as anything else runs.
    async fn keep_books(self, store: ConversationServiceClient<Channel>, pending: settler::Receiver) {
        let settling = settler::run(&self, store, &self.0.drain, pending);
        match &self.0.books {
            Books::Memory(_) => tokio::select! {
                () = settling => {}
                () = self.0.drain.over() => {} // the books go with the process
            },
            Books::Shared(shared) => {
                tokio::join!(settling, shared.look());
                shared.flush_last().await;
            }
        }
    }

    /// Lets a request for answers pass, all of them or none, and bounds their output where that must be. `context` is that of their model, in
    /// tokens; 0 where it is not known. `None`: no limit holds.
    ///
    /// # Errors
    /// A limit is met.
    pub(crate) async fn admit(
        &self,
        (caller, slot): (&Caller, &Slot),
        requests: &mut [ChatRequest],
        context: u32,
    ) -> Result<Option<Grant>, Refusal> {
        let Some(first) = requests.first().filter(|_| self.hold_for(caller)) else {
            return Ok(None);
        };
        let mut ask = self.nothing(caller, names::of(&first.stream_id, requests.len()));
        for request in requests.iter() {
            let prompt = estimate::prompt(request);
            let (output, least) = estimate::output(request, prompt, self.0.output, context);
            ask.prompt += prompt;
            ask.output += output;
            ask.least += least;
        }
        let choices: u64 = requests.iter().map(estimate::choices).sum();
        let id = (first.request_id.clone(), !first.fingerprint.is_empty());
        let (grant, output) = self.judge((caller, slot), ask, id).await?;
        if let Some(output) = output {
            let each = u32::try_from(output / choices).unwrap_or(u32::MAX);
            for request in requests {
                request.max_tokens.get_or_insert(each);
            }
        }
        Ok(Some(grant))
    }

    /// Lets a request for vectors pass.
    ///
    /// # Errors
    /// A limit is met.
    pub(crate) async fn admit_embedding(&self, (caller, slot): (&Caller, &Slot), request: &EmbedRequest) -> Result<Option<Grant>, Refusal> {
        if !self.hold_for(caller) {
            return Ok(None);
        }
        let ask = Ask {
            prompt: estimate::texts(request),
            ..self.nothing(caller, uuid::Uuid::now_v7().simple().to_string())
        };
        let (grant, _) = self.judge((caller, slot), ask, (String::new(), false)).await?;
        Ok(Some(grant))
    }

    /// For who reads on an answer that was admitted before: settles it, if nobody has, should this reader see its end.
    pub(crate) fn reading(&self, caller: &Caller, stream_id: &str) -> Option<Grant> {
        let of = || Reservation {
            principal: caller.principal().clone(),
            who: who(caller.principal()),
            name: stream_id.to_owned(),
            request_id: String::new(),
            own: false,
            repeatable: true,
            reserved: false,
        };
        self.hold_for(caller).then(|| Grant::new(self, of()))
    }

    /// A request of the caller's that takes nothing yet.
    fn nothing(&self, caller: &Caller, name: String) -> Ask {
        Ask {
            who: who(caller.principal()),
            name,
            prompt: 0,
            output: 0,
            least: 0,
            bounds: self.0.tiers.bounds(caller.tier()),
        }
    }

    fn hold_for(&self, caller: &Caller) -> bool {
        match self.0.mode {
            Mode::On => true,
            Mode::Off => false,
            Mode::Auto => caller.key().is_some() || *caller.principal() != Principal::default(),
        }
    }

    fn close(&self, end: Settlement, own: bool) {
        match &self.0.books {
            Books::Memory(memory) => {
                memory.close(&end, now_ms());
            }
            Books::Shared(shared) => shared.close(end, own),
        }
    }
}

impl std::fmt::Debug for Limits {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Limits").field("mode", &self.0.mode).finish_non_exhaustive()
    }
}

/// A caller in a ledger: a hash, so that no ledger holds a name, which may be somebody's address.
fn who(principal: &Principal) -> Arc<str> {
    let mut hash = Sha256::new();
    for part in [principal.tenant.as_str(), principal.user_id.as_str()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut bytes = [0; 16];
    for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
        *byte = hashed;
    }
    let name = uuid::Builder::from_custom_bytes(bytes).into_uuid().simple();
    Arc::from(&*name.encode_lower(&mut [0; uuid::fmt::Simple::LENGTH]))
}

fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
