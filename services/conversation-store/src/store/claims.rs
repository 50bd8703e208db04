//! Claims: who may write an answer. Each epoch is given to one router; the one before is shut out.

use proto::v1::{ClaimAnswerRequest, ClaimAnswerResponse, Failure};

use super::{Store, now_ms};
use crate::{check, database::Session, error::Fault, scope::Params};

/// The epoch of an answer that nobody has claimed.
pub(super) const FIRST_EPOCH: u32 = 1;

impl Store {
    /// Takes the epoch after `epoch`, unless a later one holds. A router that has gone through epochs without the store (it was away, or
    /// the answer had not begun) is believed. Whoever won and did not hear it wins again by asking again.
    pub(crate) async fn claim_answer(&self, request: &ClaimAnswerRequest) -> Result<ClaimAnswerResponse, Fault> {
        check::name("stream_id", &request.stream_id)?;
        check::name("owner", &request.owner)?;
        if request.epoch == 0 {
            return self.claim_beginning(request).await;
        }
        let Some(next) = request.epoch.checked_add(1) else {
            return Err(Failure::invalid("epoch", "epoch is the last that there is").into());
        };
        let now = now_ms();
        let mut session = self.database.write().await?;
        let mut taken = session
            .run(
                "UPDATE claims SET epoch = $2, owner = $3, claimed_ms = $4 WHERE stream_id = $1 AND epoch <= $5",
                Params::of_nobody([
                    (&request.stream_id).into(),
                    next.into(),
                    (&request.owner).into(),
                    now.into(),
                    request.epoch.into(),
                ]),
            )
            .await?;
        if taken == 0 {
            taken = session
                .run(
                    "INSERT INTO claims (stream_id, epoch, owner, claimed_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                    Params::of_nobody([(&request.stream_id).into(), next.into(), (&request.owner).into(), now.into()]),
                )
                .await?;
        }
        if taken > 0 {
            session.commit().await?;
            return Ok(self.claimed_in(next, true));
        }
        let (epoch, owner) = holder(&mut *session, &request.stream_id).await?;
        Ok(self.claimed_in(epoch, epoch == next && owner == request.owner))
    }

    /// Whether the caller may begin an answer: if nobody has claimed it, if the caller has, or if whoever has lets its lease pass. The
    /// last goes on in an epoch of its own, which shuts out the one before.
    async fn claim_beginning(&self, request: &ClaimAnswerRequest) -> Result<ClaimAnswerResponse, Fault> {
        let now = now_ms();
        let lapsed = if self.knows_orphans() { self.lease_before(now) } else { 0 };
        let mut session = self.database.write().await?;
        let taken = session
            .run(
                "UPDATE claims SET epoch = CASE WHEN owner = $2 THEN epoch ELSE epoch + 1 END, owner = $2, claimed_ms = $3
                WHERE stream_id = $1 AND (owner = $2 OR claimed_ms < $4)",
                Params::of_nobody([(&request.stream_id).into(), (&request.owner).into(), now.into(), lapsed.into()]),
            )
            .await?;
        if taken == 0 {
            session
                .run(
                    "INSERT INTO claims (stream_id, epoch, owner, claimed_ms) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
                    Params::of_nobody([(&request.stream_id).into(), FIRST_EPOCH.into(), (&request.owner).into(), now.into()]),
                )
                .await?;
        }
        let (epoch, owner) = holder(&mut *session, &request.stream_id).await?;
        session.commit().await?;
        Ok(self.claimed_in(epoch, owner == request.owner))
    }

    fn claimed_in(&self, epoch: u32, won: bool) -> ClaimAnswerResponse {
        let lease_ms = u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX);
        ClaimAnswerResponse { won, epoch, lease_ms }
    }
}

/// The epoch that was claimed and who has it, or the first and nobody.
async fn holder(session: &mut dyn Session, stream_id: &str) -> Result<(u32, String), Fault> {
    let row = session
        .row(
            "SELECT epoch, owner FROM claims WHERE stream_id = $1",
            Params::of_nobody([stream_id.into()]),
        )
        .await?;
    match row {
        Some(row) => Ok((row.count(0)?, row.text(1)?)),
        None => Ok((FIRST_EPOCH, String::new())),
    }
}

/// The epoch that was claimed, or the first.
pub(super) async fn claimed(session: &mut dyn Session, stream_id: &str) -> Result<u32, Fault> {
    let row = session
        .row(
            "SELECT epoch FROM claims WHERE stream_id = $1",
            Params::of_nobody([stream_id.into()]),
        )
        .await?;
    row.map_or(Ok(FIRST_EPOCH), |row| row.count(0))
}
