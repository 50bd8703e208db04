//! API keys, and tickets that were taken. A key is looked up before anybody knows whose it is, so these statements are the mesh's; what
//! is asked on behalf of a tenant names it.

use proto::v1::{
    ApiKey, CreateKeyRequest, Failure, KeyRole, KeyUse, ListRevocationsResponse, Principal, Reason, RevokeKeyRequest, TakeTicketRequest,
};
use serde_json::{Value, json};

use super::{Store, now_ms};
use crate::{check, database::Row, error::Fault, scope::Params};

/// Revocations that are told at once.
const REVOCATIONS: usize = 1_000;
/// For how long a ticket that was taken is known after its time, in milliseconds: the clocks of several stores may differ by as much, and one
/// whose clock is ahead must not forget what another still takes for good.
const CLOCKS_DIFFER_MS: i64 = 5 * 60 * 1000;

/// Where a list of keys goes on: after the one that was made then, in falling order.
#[derive(Clone, Debug)]
pub(crate) struct KeyCursor {
    created_ms: i64,
    id: String,
}

impl KeyCursor {
    /// Before the first.
    pub(crate) fn start() -> Self {
        Self {
            created_ms: i64::MAX,
            id: String::new(),
        }
    }

    /// After this one.
    pub(crate) fn after(key: &ApiKey) -> Self {
        Self {
            created_ms: key.created_ms,
            id: key.id.clone(),
        }
    }
}

impl Store {
    /// Keeps a key. An id is there once.
    pub(crate) async fn create_key(&self, request: &CreateKeyRequest) -> Result<ApiKey, Fault> {
        let key = request.key.clone().unwrap_or_default();
        check::key(&key)?;
        let principal = key.principal.clone().unwrap_or_default();
        let made = ApiKey {
            role: key.role().max(KeyRole::User).into(),
            created_ms: now_ms(),
            revoked_ms: 0,
            last_used_ms: 0,
            ..key
        };
        let mut session = self.database.write().await?;
        let kept = session
            .run(
                "INSERT INTO api_keys (id, hash, secret_id, tenant_id, user_id, role, tier, name, created_ms, expires_ms, revoked_ms,
                    last_used_ms)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, 0, 0) ON CONFLICT DO NOTHING",
                Params::of_the_mesh([
                    (&made.id).into(),
                    made.hash.as_slice().into(),
                    (&made.secret_id).into(),
                    (&principal.tenant).into(),
                    (&principal.user_id).into(),
                    i64::from(made.role).into(),
                    (&made.tier).into(),
                    (&made.name).into(),
                    made.created_ms.into(),
                    made.expires_ms.into(),
                ]),
            )
            .await?;
        if kept == 0 {
            let failure = Failure::new(Reason::Conflict, "key.id is the id of another key");
            let param = "key.id".to_owned();
            return Err(Failure { param, ..failure }.into());
        }
        session.commit().await?;
        Ok(made)
    }

    /// The key of this id, revoked or not.
    pub(crate) async fn find_key(&self, id: &str) -> Result<ApiKey, Fault> {
        check::name("id", id)?;
        let mut session = self.database.read().await?;
        let row = session
            .row(
                "SELECT id, secret_id, tenant_id, user_id, role, tier, name, created_ms, expires_ms, revoked_ms, last_used_ms, hash
                FROM api_keys WHERE id = $1",
                Params::of_the_mesh([id.into()]),
            )
            .await?
            .ok_or_else(no_key)?;
        Ok(ApiKey {
            hash: row.blob(11)?,
            ..key(&row)?
        })
    }

    /// Where a list goes on that has come to this key. Empty: at the first.
    pub(crate) async fn key_cursor(&self, tenant: Option<&str>, after_id: &str) -> Result<KeyCursor, Fault> {
        if after_id.is_empty() {
            return Ok(KeyCursor::start());
        }
        let after = self.find_key(after_id).await?;
        let of = after.principal.as_ref().map(|principal| principal.tenant.as_str());
        if tenant.is_some_and(|tenant| of != Some(tenant)) {
            return Err(no_key());
        }
        Ok(KeyCursor::after(&after))
    }

    /// The next keys after `cursor`, the newest first: of one tenant, or of all.
    pub(crate) async fn list_keys(&self, tenant: Option<&str>, cursor: &KeyCursor, limit: u32) -> Result<Vec<ApiKey>, Fault> {
        check::text("tenant", tenant.unwrap_or_default())?;
        let mut session = self.database.read().await?;
        let rows = session
            .rows(
                "SELECT id, secret_id, tenant_id, user_id, role, tier, name, created_ms, expires_ms, revoked_ms, last_used_ms
                FROM api_keys
                WHERE ($1 = 0 OR tenant_id = $2) AND (created_ms < $3 OR (created_ms = $3 AND id < $4))
                ORDER BY created_ms DESC, id DESC LIMIT $5",
                Params::of_the_mesh([
                    i64::from(tenant.is_some()).into(),
                    tenant.unwrap_or_default().into(),
                    cursor.created_ms.into(),
                    (&cursor.id).into(),
                    limit.into(),
                ]),
            )
            .await?;
        rows.iter().map(key).collect()
    }

    /// Revokes a key: of the tenant, where one is named. The first revocation stays.
    pub(crate) async fn revoke_key(&self, request: &RevokeKeyRequest) -> Result<ApiKey, Fault> {
        check::name("id", &request.id)?;
        check::text("tenant", request.tenant())?;
        let mut session = self.database.write().await?;
        let row = session
            .row(
                "UPDATE api_keys SET revoked_ms = CASE WHEN revoked_ms > 0 THEN revoked_ms ELSE $4 END
                WHERE id = $1 AND ($2 = 0 OR tenant_id = $3)
                RETURNING id, secret_id, tenant_id, user_id, role, tier, name, created_ms, expires_ms, revoked_ms, last_used_ms",
                Params::of_the_mesh([
                    (&request.id).into(),
                    i64::from(request.tenant.is_some()).into(),
                    request.tenant().into(),
                    now_ms().into(),
                ]),
            )
            .await?;
        let revoked = key(&row.ok_or_else(no_key)?)?;
        session.commit().await?;
        Ok(revoked)
    }

    /// Which keys were revoked within the last `within_ms`.
    pub(crate) async fn list_revocations(&self, within_ms: u32) -> Result<ListRevocationsResponse, Fault> {
        let mut session = self.database.read().await?;
        let limit = i64::try_from(REVOCATIONS).unwrap_or(i64::MAX) + 1;
        let rows = session
            .rows(
                "SELECT id FROM api_keys WHERE revoked_ms > 0 AND revoked_ms >= $1 ORDER BY revoked_ms DESC LIMIT $2",
                Params::of_the_mesh([(now_ms() - i64::from(within_ms)).into(), limit.into()]),
            )
            .await?;
        Ok(ListRevocationsResponse {
            more: rows.len() > REVOCATIONS,
            ids: rows.iter().take(REVOCATIONS).map(|row| row.text(0)).collect::<Result<_, _>>()?,
        })
    }

    /// Notes when keys were used. Those that are not there, or were used later, stay as they are.
    pub(crate) async fn note_key_uses(&self, uses: &[KeyUse]) -> Result<(), Fault> {
        check::key_uses(uses)?;
        let rows: Vec<_> = uses.iter().map(|used| json!({"id": used.id, "used_ms": used.used_ms})).collect();
        let rows = Value::from(rows).to_string();
        let mut session = self.database.write().await?;
        session
            .run(self.database.batch().used, Params::of_the_mesh([(&rows).into()]))
            .await?;
        session.commit().await
    }

    /// Takes a ticket, and says whether it was there to take.
    pub(crate) async fn take_ticket(&self, request: &TakeTicketRequest) -> Result<bool, Fault> {
        check::name("id", &request.id)?;
        let now = now_ms();
        if request.expires_ms <= now {
            return Ok(false);
        }
        let mut session = self.database.write().await?;
        let taken = session
            .run(
                "INSERT INTO taken_tickets (id, expires_ms) VALUES ($1, $2) ON CONFLICT DO NOTHING",
                Params::of_nobody([(&request.id).into(), request.expires_ms.into()]),
            )
            .await?;
        session
            .run(
                "DELETE FROM taken_tickets WHERE expires_ms < $1",
                Params::of_nobody([(now - CLOCKS_DIFFER_MS).into()]),
            )
            .await?;
        session.commit().await?;
        Ok(taken > 0)
    }
}

fn no_key() -> Fault {
    Failure::new(Reason::NotFound, "there is no such key").into()
}

/// The eleven columns that every statement reads.
fn key(row: &Row) -> Result<ApiKey, Fault> {
    Ok(ApiKey {
        id: row.text(0)?,
        secret_id: row.text(1)?,
        principal: Some(Principal {
            tenant: row.text(2)?,
            user_id: row.text(3)?,
        }),
        role: i32::try_from(row.int(4)?).unwrap_or_default(),
        tier: row.text(5)?,
        name: row.text(6)?,
        created_ms: row.int(7)?,
        expires_ms: row.int(8)?,
        revoked_ms: row.int(9)?,
        last_used_ms: row.int(10)?,
        hash: Vec::new(),
    })
}
