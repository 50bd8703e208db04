//! Reading the request log: page by page, the latest first, or what it says of some answers. It holds no word of what was said.

use proto::v1::{Failure, FinishedTurn, ListRequestsRequest, LogScope, LoggedRequest, Principal, Usage};

use super::Store;
use crate::{
    check,
    database::{Row, batch::select},
    error::Fault,
    scope::{Params, Scope},
};

/// Where a list of requests goes on: after the one that was logged then, of this answer, in falling order. Of one answer there are two
/// rows only where two principals chose the same name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct LogCursor {
    logged_ms: i64,
    stream_id: String,
}

impl LogCursor {
    /// Where `request` begins: at its cursor, or at the end of its time.
    ///
    /// # Errors
    /// The cursor is none.
    pub(crate) fn of(request: &ListRequestsRequest) -> Result<Self, Failure> {
        let until = if request.until_ms == 0 { i64::MAX } else { request.until_ms };
        if request.after.is_empty() {
            return Ok(Self {
                logged_ms: until,
                stream_id: String::new(),
            });
        }
        check::text("after", &request.after)?;
        let parts = request.after.split_once('.').and_then(|(ms, id)| Some((ms.parse().ok()?, id)));
        let (logged_ms, stream_id) = parts.ok_or_else(|| Failure::invalid("after", "after is not the cursor of a request"))?;
        Ok(Self {
            logged_ms,
            stream_id: stream_id.to_owned(),
        })
    }

    /// After this one.
    pub(crate) fn after(logged: &LoggedRequest) -> Self {
        Self {
            logged_ms: logged.logged_ms,
            stream_id: logged.turn.as_ref().map(|turn| turn.stream_id.clone()).unwrap_or_default(),
        }
    }
}

impl Store {
    /// The requests after `cursor`, the latest first: at most `limit`, none logged before `from_ms`.
    pub(crate) async fn list_requests(
        &self,
        (scope, wide): (&Scope, LogScope),
        from_ms: i64,
        cursor: &LogCursor,
        limit: u32,
    ) -> Result<Vec<LoggedRequest>, Fault> {
        let (at, id) = (cursor.logged_ms, cursor.stream_id.as_str());
        let mut session = self.database.read().await?;
        let rows = match wide {
            LogScope::Unspecified => {
                let sql = select!(
                    "tenant_id = $1 AND user_id = $2 AND logged_ms >= $3 AND (logged_ms, stream_id) < ($4, $5)",
                    " ORDER BY logged_ms DESC, stream_id DESC LIMIT $6"
                );
                let params = scope.params([from_ms.into(), at.into(), id.into(), limit.into()]);
                session.rows(sql, params).await?
            }
            LogScope::Tenant => {
                let sql = select!(
                    "tenant_id = $1 AND logged_ms >= $2 AND (logged_ms, stream_id) < ($3, $4)",
                    " ORDER BY logged_ms DESC, stream_id DESC LIMIT $5"
                );
                let params = Params::of_the_mesh([scope.tenant().into(), from_ms.into(), at.into(), id.into(), limit.into()]);
                session.rows(sql, params).await?
            }
            LogScope::All => {
                let sql = select!(
                    "logged_ms >= $1 AND (logged_ms, stream_id) < ($2, $3)",
                    " ORDER BY logged_ms DESC, stream_id DESC LIMIT $4"
                );
                let params = Params::of_the_mesh([from_ms.into(), at.into(), id.into(), limit.into()]);
                session.rows(sql, params).await?
            }
        };
        rows.iter().map(logged).collect()
    }

    /// What the log says of these answers of the principal; nothing of those that have not ended.
    pub(crate) async fn requests_of(&self, scope: &Scope, stream_ids: &[String]) -> Result<Vec<LoggedRequest>, Fault> {
        let is = stream_ids.len();
        if is > check::TURNS {
            let bound = check::TURNS;
            return Err(Failure::invalid("stream_ids", format!("stream_ids has {is} entries; at most {bound} were expected")).into());
        }
        let ids = serde_json::to_string(stream_ids).map_err(|error| Fault::Unreadable(error.to_string()))?;
        let sql = self.database.batch().logged;
        let mut session = self.database.read().await?;
        let rows = session.rows(sql, scope.params([(&ids).into()])).await?;
        rows.iter().map(logged).collect()
    }
}

fn logged(row: &Row) -> Result<LoggedRequest, Fault> {
    let logged_ms = row.int(20)?;
    let stream_id = row.text(2)?;
    let status = row.count(19)?;
    Ok(LoggedRequest {
        cursor: format!("{logged_ms}.{stream_id}"),
        logged_ms,
        turn: Some(FinishedTurn {
            principal: Some(Principal {
                tenant: row.text(0)?,
                user_id: row.text(1)?,
            }),
            stream_id,
            request_id: row.text(3)?,
            conversation_id: row.text(4)?,
            message: None,
            model: row.text(5)?,
            state: row.text(6)?,
            finish_reason: row.text(7)?,
            worker: row.text(8)?,
            door: row.text(9)?,
            key_id: row.text(10)?,
            usage: Some(Usage {
                prompt_tokens: row.count(11)?,
                completion_tokens: row.count(12)?,
                reasoning_tokens: row.count(13)?,
                cached_tokens: row.count(14)?,
            }),
            started_ms: row.int(15)?,
            ttft_ms: row.count(16)?,
            duration_ms: row.count(17)?,
            epoch: row.count(18)?,
            status,
            journal: Vec::new(),
        }),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_given() {
        let at = |after: &str| {
            LogCursor::of(&ListRequestsRequest {
                after: after.to_owned(),
                until_ms: 7,
                ..ListRequestsRequest::default()
            })
        };
        assert_eq!(
            at("12.a.b:c").unwrap(),
            LogCursor {
                logged_ms: 12,
                stream_id: "a.b:c".to_owned()
            }
        );
        assert_eq!(at("").unwrap().logged_ms, 7);
        for bad in ["12", "x.a", ".", "12\0.a"] {
            assert_eq!(at(bad).unwrap_err().param, "after", "{bad}");
        }
    }
}
