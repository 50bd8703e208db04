//! Limits of what a caller may ask for: requests per minute, tokens per day, answers at once, by tier.
//!
//! A request for an answer passes [`Limits::admit`] once, in [`crate::door`], when all of it is known: its tokens are reserved, as many as
//! it may take. It gets a [`Grant`], which the request's [account](crate::account) keeps and which is settled when that is dropped, with
//! what the journal says the answer took; whoever saw the end of the answer settles, and the ledger takes the first only. Where nobody saw
//! it (the client has gone, a gateway died), the request log knows: [`settler`] looks there.
//!
//! [`book`] is the rule, [`memory`] and [`redis`] keep books by it (the trait [`Ledger`]), [`shared`] is what holds while Redis is away.
//! A request that reads on, or that is repeated with its `Idempotency-Key`, costs nothing. Who comes by gRPC is not limited: those are
//! services.

mod book;
mod estimate;
mod grant;
mod memory;
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
use proto::v1::{ChatRequest, EmbedRequest, Principal};
use sha2::{Digest as _, Sha256};

pub(crate) use self::{
    grant::Grant,
    quota::{HEADERS, Quota},
    tier::{DEFAULT, Tiers},
};
use self::{
    memory::Memory,
    redis::Redis,
    settler::Settler,
    shared::Shared,
    terms::{Ask, Granted, Settlement, Verdict},
};
use crate::{
    Error, Settings,
    clients::Clients,
    failure::Refusal,
    identity::Caller,
    metrics::{ByLimit, Metrics},
};

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
                Books::Shared(Shared::start(redis, settings.gateways, metrics, drain))
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
        }));
        drain.spawn_until_draining(settler::run(limits.clone(), clients.store(), pending));
        Ok(limits)
    }

    /// Lets a request for an answer pass, and bounds its output where that must be. `context` is that of its model, in tokens; 0 where it
    /// is not known. `None`: no limit holds.
    ///
    /// # Errors
    /// A limit is met.
    pub(crate) async fn admit(
        &self,
        (caller, slot): (&Caller, &Slot),
        request: &mut ChatRequest,
        context: u32,
    ) -> Result<Option<Grant>, Refusal> {
        if !self.hold_for(caller) {
            return Ok(None);
        }
        let prompt = estimate::prompt(request);
        let (output, elastic) = estimate::output(request, prompt, self.0.output, context);
        let ask = Ask {
            who: who(caller.principal()),
            stream_id: request.stream_id.clone(),
            prompt,
            output,
            elastic,
            bounds: self.0.tiers.bounds(caller.tier()),
        };
        let repeatable = !request.fingerprint.is_empty();
        let (grant, output) = self.judge((caller, slot), ask, repeatable).await?;
        if let (Some(output), true) = (output, elastic) {
            let each = output / u64::from(request.n.max(1));
            request.max_tokens = Some(u32::try_from(each).unwrap_or(u32::MAX).max(1));
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
            who: who(caller.principal()),
            stream_id: uuid::Uuid::now_v7().simple().to_string(),
            prompt: estimate::texts(request),
            output: 0,
            elastic: false,
            bounds: self.0.tiers.bounds(caller.tier()),
        };
        let (grant, _) = self.judge((caller, slot), ask, false).await?;
        Ok(Some(grant))
    }

    /// For who reads on an answer that was admitted before: settles it, if nobody has, should this reader see its end.
    pub(crate) fn reading(&self, caller: &Caller, stream_id: &str) -> Option<Grant> {
        self.hold_for(caller)
            .then(|| Grant::reading(self, caller.principal(), who(caller.principal()), stream_id))
    }

    /// A grant, and how much output it allows where the ledger knows a bound.
    async fn judge(&self, (caller, slot): (&Caller, &Slot), mut ask: Ask, repeatable: bool) -> Result<(Grant, Option<u64>), Refusal> {
        // Made before anybody is asked: should the client go meanwhile, what the ledger has written down is closed with it.
        let mut grant = Grant::asked(self, caller.principal(), &ask, repeatable);
        let (verdict, own) = match &self.0.books {
            Books::Memory(memory) => (memory.judge(&ask, now_ms()), true),
            Books::Shared(shared) => shared.judge(&mut ask).await,
        };
        if own {
            grant.is_own();
        }
        for stream_id in verdict.stale {
            self.0.settler.look_up(caller.principal(), Arc::clone(&ask.who), stream_id, own);
        }
        let quota = Quota {
            tier: self.0.tiers.name(caller.tier()).to_owned(),
            bounds: ask.bounds,
            standing: verdict.standing,
        };
        let judged = match verdict.outcome {
            Ok(Granted::Reserved(output)) => {
                grant.reserved();
                Ok((grant, (ask.bounds.tokens > 0).then_some(output)))
            }
            Ok(Granted::Again) => {
                grant.again();
                Ok((grant, None))
            }
            Err(over) => {
                let series = ByLimit {
                    limit: over.limit.word(),
                    tier: quota.tier.clone(),
                };
                self.0.metrics.limits_refused.get_or_create(&series).inc();
                grant.refused();
                Err(quota.refuse(over, ask.prompt + ask.output))
            }
        };
        let _ = slot.set(quota); // a WebSocket judges many requests, and has sent its headers
        judged
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
