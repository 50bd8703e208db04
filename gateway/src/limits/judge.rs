//! How a request is judged: what it may take is put before the ledger, and what that says becomes a grant or a refusal.

use std::sync::Arc;

use proto::v1::Principal;

use super::{
    Books, Grant, Limits, Quota, Slot,
    grant::Reservation,
    now_ms,
    terms::{Ask, Granted, Limit, Over, Settlement, Standing, Verdict},
};
use crate::{failure::Refusal, idempotency, identity::Caller, metrics::ByLimit, outlive::outlive};

/// What is put before a ledger, and for whom.
struct Asked {
    principal: Principal,
    ask: Ask,
    /// The request's id, and whether it may be repeated.
    id: (String, bool),
}

/// What came of it.
struct Judged {
    ask: Ask,
    /// The grant, and how much output it allows where the ledger knows a bound.
    outcome: Result<(Grant, Option<u64>), Over>,
    standing: Standing,
}

impl Limits {
    /// A grant for the request of this id, which may be repeatable, and how much output it allows where the ledger knows a bound.
    pub(super) async fn judge(
        &self,
        (caller, slot): (&Caller, &Slot),
        ask: Ask,
        id: (String, bool),
    ) -> Result<(Grant, Option<u64>), Refusal> {
        let bounds = ask.bounds;
        let asked = Asked {
            principal: caller.principal().clone(),
            ask,
            id,
        };
        let judged = match &self.0.books {
            Books::Memory(memory) => {
                let verdict = memory.judge(&asked.ask, now_ms());
                self.take(asked, verdict, true)
            }
            Books::Shared(shared) => {
                let (limits, shared, mut asked) = (self.clone(), Arc::clone(shared), asked);
                // Only the ledger's word tells whether there is something to close should the client go meanwhile, so that is waited for.
                let judging = async move {
                    let (verdict, own) = shared.judge(&mut asked.ask).await;
                    limits.take(asked, verdict, own)
                };
                outlive(&self.0.drain, judging).await
            }
        };
        let quota = Quota {
            tier: self.0.tiers.name(caller.tier()).to_owned(),
            bounds: judged.ask.bounds,
            standing: judged.standing,
        };
        let granted = judged.outcome.map_err(|over| {
            let series = ByLimit {
                limit: over.limit.word(),
                tier: quota.tier.clone(),
            };
            self.0.metrics.limits_refused.get_or_create(&series).inc();
            match over.limit {
                Limit::Tokens if judged.ask.prompt + judged.ask.least > bounds.tokens => quota.refuse_for_ever(bounds, &judged.ask),
                _ => quota.refuse(over, judged.ask.prompt + judged.ask.output),
            }
        });
        let _ = slot.set(quota); // a WebSocket judges many requests, and has sent its headers
        granted
    }

    /// Takes what a ledger says: from here on, what it has reserved is closed with the grant.
    fn take(&self, Asked { principal, ask, id }: Asked, verdict: Verdict, own: bool) -> Judged {
        for name in verdict.stale {
            let end = Settlement {
                who: Arc::clone(&ask.who),
                tokens: 0,
                keep_ms: if idempotency::is_of_key(&name) { self.0.keep_ms } else { 0 },
                name,
                owed: None,
            };
            self.0.settler.look_up(&principal, end, own);
        }
        let (request_id, repeatable) = id;
        let outcome = verdict.outcome.map(|granted| {
            let output = match granted {
                Granted::Reserved(output) if ask.bounds.tokens > 0 => Some(output),
                Granted::Reserved(_) | Granted::Again => None,
            };
            let of = Reservation {
                principal,
                who: Arc::clone(&ask.who),
                name: ask.name.clone(),
                request_id,
                own,
                repeatable,
                reserved: granted != Granted::Again,
            };
            (Grant::new(self, of), output)
        });
        Judged {
            ask,
            outcome,
            standing: verdict.standing,
        }
    }
}
