//! Records: what was asked, kept beside the answer, so that the door that took it can show it again. A record is opened before its answer
//! begins; outside of a conversation the answer's row is opened with it, so that nothing that runs is unknown here.

use proto::v1::{Failure, OpenRecordRequest, Reason, Record};

use super::{Store, answers, must_exist, no_answer, now_ms};
use crate::{
    check,
    database::{Row, Session},
    error::Fault,
    scope::Scope,
};

/// The most bytes of the documents and the texts of a list of records: it goes into a model's context, which is far smaller.
const LIST_BYTES: usize = 8 * 1024 * 1024;

impl Store {
    /// Opens a record, and says whether this call did. The same name for something else is a conflict.
    pub(crate) async fn open_record(&self, scope: &Scope, request: &OpenRecordRequest) -> Result<bool, Fault> {
        let nothing = Record::default();
        let record = request.record.as_ref().unwrap_or(&nothing);
        check::name("record.stream_id", &record.stream_id)?;
        check::text("record.previous_id", &record.previous_id)?;
        check::text("record.conversation_id", &record.conversation_id)?;
        check::document(&record.document)?;
        let now = now_ms();
        let mut session = self.database.write().await?;
        if !record.conversation_id.is_empty() {
            must_exist(&mut *session, scope, &record.conversation_id).await?;
        }
        let opened = session
            .run(
                "INSERT INTO records (tenant_id, user_id, stream_id, previous_id, conversation_id, document, fingerprint, created_ms)
                VALUES ($1, $2, $3, $4, $5, $6, $7, $8) ON CONFLICT DO NOTHING",
                scope.params([
                    (&record.stream_id).into(),
                    (&record.previous_id).into(),
                    (&record.conversation_id).into(),
                    record.document.as_slice().into(),
                    record.fingerprint.as_slice().into(),
                    now.into(),
                ]),
            )
            .await?;
        if opened == 0 {
            let first = read(&mut *session, scope, &record.stream_id).await?;
            return if first.fingerprint == record.fingerprint {
                Ok(false)
            } else {
                Err(other())
            };
        }
        if record.conversation_id.is_empty() {
            // The turn of a conversation is opened by the router.
            session
                .run(
                    "INSERT INTO answers (tenant_id, user_id, stream_id, conversation_id, first_seq, state, epoch, position, model, text,
                        reasoning, tool_calls, resume, request, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
                        cached_tokens, created_ms, updated_ms, lease_ms)
                    VALUES ($1, $2, $3, '', 0, 'running', 1, 0, $4, '', '', '', $5, $5, '', 0, 0, 0, 0, $6, $6, $7)
                    ON CONFLICT DO NOTHING",
                    scope.params([
                        (&record.stream_id).into(),
                        (&*check::clipped(&request.model)).into(),
                        [].as_slice().into(),
                        now.into(),
                        self.lease_until(now).into(),
                    ]),
                )
                .await?;
        }
        session.commit().await?;
        Ok(true)
    }

    /// A record, with what is known of its answer.
    pub(crate) async fn get_record(&self, scope: &Scope, stream_id: &str) -> Result<Record, Fault> {
        check::name("stream_id", stream_id)?;
        let record = {
            let mut session = self.database.read().await?;
            read(&mut *session, scope, stream_id).await?
        };
        match self.get_answer(scope, stream_id).await {
            Ok(answer) => Ok(Record {
                answer: Some(answer),
                ..record
            }),
            Err(Fault::Told(failure)) if failure.reason() == Reason::NotFound => Ok(record),
            Err(fault) => Err(fault),
        }
    }

    /// A record and those that it goes on from, the last first: at most `limit`, and as many as may be sent together. One that was deleted
    /// ends the list.
    pub(crate) async fn list_records(&self, scope: &Scope, stream_id: &str, limit: u32) -> Result<Vec<Record>, Fault> {
        check::name("stream_id", stream_id)?;
        let mut session = self.database.read().await?;
        let mut records = vec![with_text(&mut *session, scope, stream_id).await?];
        let mut bytes = 0;
        while let Some(last) = records.last() {
            let said = last.answer.as_ref().and_then(|answer| answer.message.as_ref());
            bytes += last.document.len() + said.map_or(0, |message| message.text.len() + message.reasoning.len());
            if last.previous_id.is_empty() || bytes > LIST_BYTES || records.len() >= limit as usize {
                break;
            }
            let previous = last.previous_id.clone();
            match with_text(&mut *session, scope, &previous).await {
                Ok(record) => records.push(record),
                Err(Fault::Told(_)) => break,
                Err(fault) => return Err(fault),
            }
        }
        Ok(records)
    }

    /// Deletes a record, and its answer unless that belongs to a conversation.
    pub(crate) async fn delete_record(&self, scope: &Scope, stream_id: &str) -> Result<(), Fault> {
        check::name("stream_id", stream_id)?;
        let mut session = self.database.write().await?;
        let deleted = session
            .run(
                "DELETE FROM records WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
                scope.params([stream_id.into()]),
            )
            .await?;
        if deleted == 0 {
            return Err(no_answer());
        }
        session
            .run(
                "DELETE FROM answers WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 AND conversation_id = ''",
                scope.params([stream_id.into()]),
            )
            .await?;
        session.commit().await
    }
}

fn other() -> Fault {
    let failure = Failure::new(Reason::Conflict, "this stream_id (or idempotency key) was used for another request");
    let param = "fingerprint".to_owned();
    Failure { param, ..failure }.into()
}

async fn read(session: &mut dyn Session, scope: &Scope, stream_id: &str) -> Result<Record, Fault> {
    let row = session
        .row(
            "SELECT stream_id, previous_id, conversation_id, document, fingerprint, created_ms FROM records
            WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
            scope.params([stream_id.into()]),
        )
        .await?;
    record(&row.ok_or_else(no_answer)?)
}

async fn with_text(session: &mut dyn Session, scope: &Scope, stream_id: &str) -> Result<Record, Fault> {
    let record = read(session, scope, stream_id).await?;
    let answer = answers::known(session, scope, stream_id).await?;
    Ok(Record { answer, ..record })
}

fn record(row: &Row) -> Result<Record, Fault> {
    Ok(Record {
        stream_id: row.text(0)?,
        previous_id: row.text(1)?,
        conversation_id: row.text(2)?,
        document: row.blob(3)?,
        fingerprint: row.blob(4)?,
        created_ms: row.int(5)?,
        answer: None,
    })
}
