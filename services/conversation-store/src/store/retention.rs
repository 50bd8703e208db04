//! Letting old things go: the request log, claims, and answers that belong to no conversation. Conversations stay until their owner
//! deletes them.

use super::Store;
use crate::{error::Fault, scope::Params};

/// Rows that one transaction deletes: few enough that a turn that waits for the writer does not notice.
const ROWS: i64 = 1_000;

/// What goes with age.
const STATEMENTS: [&str; 3] = [
    "DELETE FROM request_log WHERE (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM request_log WHERE logged_ms < $1 ORDER BY logged_ms LIMIT $2)",
    "DELETE FROM answers WHERE (tenant_id, user_id, stream_id) IN
        (SELECT tenant_id, user_id, stream_id FROM answers WHERE conversation_id = '' AND updated_ms < $1 ORDER BY updated_ms LIMIT $2)",
    "DELETE FROM claims WHERE stream_id IN (SELECT stream_id FROM claims WHERE claimed_ms < $1 LIMIT $2)",
];

impl Store {
    /// Deletes what is older than `before`, in milliseconds since 1970, and says how many rows that were.
    pub(crate) async fn forget(&self, before: i64) -> Result<u64, Fault> {
        let mut gone = 0;
        for statement in STATEMENTS {
            loop {
                let mut session = self.database.write().await?;
                let rows = session.run(statement, Params::of_the_mesh([before.into(), ROWS.into()])).await?;
                session.commit().await?;
                gone += rows;
                if rows < ROWS.unsigned_abs() {
                    break;
                }
            }
        }
        Ok(gone)
    }
}
