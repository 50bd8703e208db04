//! Answers that nobody makes any more: they run as far as the store knows, but their lease is over. And the entries of background answers,
//! from which they can go on.
//!
//! A lease begins with the turn and is renewed by every checkpoint. While the store was away nobody could renew any, so for one lease
//! after its start it knows of no orphan.

use proto::v1::{CheckpointRequest, Entry, GenerateResponse, Principal, StoredAnswer};

use prost::Message as _;

use super::{Store, now_ms};
use crate::{
    database::Session,
    error::Fault,
    scope::{Params, Scope},
};

impl Store {
    /// The orphans, the oldest first, without what they have said.
    pub(crate) async fn list_orphans(&self, limit: u32) -> Result<Vec<StoredAnswer>, Fault> {
        if !self.knows_orphans() {
            return Ok(Vec::new());
        }
        let mut session = self.database.read().await?;
        let rows = session
            .rows(
                "SELECT tenant_id, user_id, stream_id, conversation_id, model, created_ms FROM answers
                WHERE state = 'running' AND lease_ms < $1 ORDER BY lease_ms LIMIT $2",
                Params::of_the_mesh([now_ms().into(), limit.into()]),
            )
            .await?;
        rows.iter()
            .map(|row| {
                Ok(StoredAnswer {
                    principal: Some(Principal {
                        tenant: row.text(0)?,
                        user_id: row.text(1)?,
                    }),
                    stream_id: row.text(2)?,
                    conversation_id: row.text(3)?,
                    model: row.text(4)?,
                    created_ms: row.int(5)?,
                    state: "running".to_owned(),
                    orphan: true,
                    ..StoredAnswer::default()
                })
            })
            .collect()
    }

    /// When a lease that begins now is over, in milliseconds since 1970.
    pub(super) fn lease_until(&self, now: i64) -> i64 {
        now.saturating_add(i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX))
    }

    /// When a lease began that is over now, likewise.
    pub(super) fn lease_before(&self, now: i64) -> i64 {
        now.saturating_sub(i64::try_from(self.lease.as_millis()).unwrap_or(i64::MAX))
    }

    /// Whether every router that lives has had the time to renew its leases since the store began.
    pub(super) fn knows_orphans(&self) -> bool {
        self.born.elapsed() >= self.lease
    }
}

/// Appends the entries that are new to those that are kept, `stored` in number. Says how many there are then.
pub(super) async fn append(session: &mut dyn Session, scope: &Scope, request: &CheckpointRequest, stored: u32) -> Result<u32, Fault> {
    let count = u32::try_from(request.entries.len()).unwrap_or(u32::MAX);
    let known = stored.checked_sub(request.position.saturating_sub(count));
    let Some(new) = known
        .and_then(|known| request.entries.get(known as usize..))
        .filter(|new| !new.is_empty())
    else {
        return Ok(stored); // there are none, or some before them are missing: the router is told what is there
    };
    let piece = GenerateResponse {
        entries: new.to_vec(),
        ..GenerateResponse::default()
    };
    let piece = piece.encode_to_vec();
    session
        .run(
            "INSERT INTO answer_entries (tenant_id, user_id, stream_id, position, entries) VALUES ($1, $2, $3, $4, $5)
            ON CONFLICT DO NOTHING",
            scope.params([(&request.stream_id).into(), stored.into(), piece.as_slice().into()]),
        )
        .await?;
    Ok(request.position)
}

/// The entries that are kept of an answer, from the first on without a gap.
pub(super) async fn entries(session: &mut dyn Session, scope: &Scope, stream_id: &str) -> Result<Vec<Entry>, Fault> {
    let rows = session
        .rows(
            "SELECT position, entries FROM answer_entries WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 ORDER BY position",
            scope.params([stream_id.into()]),
        )
        .await?;
    let mut entries: Vec<Entry> = Vec::new();
    for row in rows {
        if usize::try_from(row.int(0)?).is_ok_and(|position| position != entries.len()) {
            break;
        }
        let piece = GenerateResponse::decode(row.blob(1)?.as_slice()).map_err(|error| Fault::Unreadable(format!("entries: {error}")))?;
        entries.extend(piece.entries);
    }
    Ok(entries)
}
