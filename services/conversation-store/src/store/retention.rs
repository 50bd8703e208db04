//! Letting old things go: the request log, claims, records, and answers that belong to no conversation. Conversations stay until their
//! owner deletes them.

use super::Store;
use crate::{error::Fault, scope::Params};

/// Rows that one transaction deletes: few enough that a turn that waits for the writer does not notice.
const ROWS: i64 = 1_000;

/// What goes with the age of the request log. An answer that has a record goes with that.
const STATEMENTS: [&str; 3] = [
    "DELETE FROM request_log WHERE (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM request_log WHERE logged_ms < $1 ORDER BY logged_ms LIMIT $2)",
    "DELETE FROM answers WHERE (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM answers a WHERE conversation_id = '' AND updated_ms < $1
            AND NOT EXISTS (SELECT 1 FROM records r WHERE r.tenant_id = a.tenant_id AND r.user_id = a.user_id AND r.stream_id = a.stream_id)
            ORDER BY updated_ms LIMIT $2)",
    "DELETE FROM claims WHERE stream_id IN (SELECT stream_id FROM claims WHERE claimed_ms < $1 LIMIT $2)",
];

/// The answers of records that go, and then the records themselves.
const RECORDS: [&str; 2] = [
    "DELETE FROM answers WHERE conversation_id = '' AND (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM records WHERE created_ms < $1 ORDER BY created_ms LIMIT $2)",
    "DELETE FROM records WHERE (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM records WHERE created_ms < $1 ORDER BY created_ms LIMIT $2)",
];

impl Store {
    /// Deletes what is older than `before`, in milliseconds since 1970, and records that are older than `records_before`, and says how
    /// many rows that were.
    pub(crate) async fn forget(&self, before: i64, records_before: i64) -> Result<u64, Fault> {
        let mut gone = self.forget_in_turns(&RECORDS, records_before).await?;
        for statement in STATEMENTS {
            gone += self.forget_in_turns(&[statement], before).await?;
        }
        Ok(gone)
    }

    /// Runs these statements together, again and again until the last of them finds fewer rows than it may take.
    async fn forget_in_turns(&self, statements: &[&'static str], before: i64) -> Result<u64, Fault> {
        let mut gone = 0;
        loop {
            let mut rows = 0;
            let mut session = self.database.write().await?;
            for statement in statements {
                rows = session.run(statement, Params::of_the_mesh([before.into(), ROWS.into()])).await?;
                gone += rows;
            }
            session.commit().await?;
            if rows < ROWS.unsigned_abs() {
                return Ok(gone);
            }
        }
    }
}
