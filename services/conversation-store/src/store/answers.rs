//! An answer's own rows: what it has so far, and what is known of it.

use prost::Message as _;
use proto::v1::{ChatRequest, CheckpointRequest, CheckpointResponse, Failure, Message, Reason, ResumePoint, Role, StoredAnswer, Usage};

use super::{
    Store, calls_from_text, calls_to_text,
    claims::{FIRST_EPOCH, claimed},
    no_answer, now_ms, orphans,
};
use crate::{
    check,
    database::{Row, Session},
    error::Fault,
    scope::Scope,
};

/// How a list of resume points is kept: a checkpoint of which all else is empty.
fn encode_resume(resume: &[ResumePoint]) -> Vec<u8> {
    if resume.is_empty() {
        return Vec::new();
    }
    StoredAnswer {
        resume: resume.to_vec(),
        ..StoredAnswer::default()
    }
    .encode_to_vec()
}

fn decode_resume(bytes: &[u8]) -> Result<Vec<ResumePoint>, Fault> {
    StoredAnswer::decode(bytes)
        .map(|kept| kept.resume)
        .map_err(|error| Fault::Unreadable(format!("resume: {error}")))
}

impl Store {
    /// Saves what an answer has so far. One that is closed, or further on in the same epoch, stays as it is. One that the store does not
    /// know is taken in if the request comes with it (a background answer outside of conversations), and is not found otherwise.
    pub(crate) async fn checkpoint(&self, scope: &Scope, request: &CheckpointRequest) -> Result<CheckpointResponse, Fault> {
        check::name("stream_id", &request.stream_id)?;
        let epoch = request.epoch.max(FIRST_EPOCH);
        let now = now_ms();
        let mut session = self.database.write().await?;
        if claimed(&mut *session, &request.stream_id).await? > epoch {
            return Err(fenced());
        }
        if let Some(asked) = request.request.as_ref().filter(|asked| asked.conversation_id.is_empty()) {
            session
                .run(
                    "INSERT INTO answers (tenant_id, user_id, stream_id, conversation_id, first_seq, state, epoch, position, model, text,
                        reasoning, tool_calls, resume, request, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
                        cached_tokens, created_ms, updated_ms)
                    VALUES ($1, $2, $3, '', 0, 'running', $4, 0, $5, '', '', '', $6, $6, '', 0, 0, 0, 0, $7, $7)
                    ON CONFLICT DO NOTHING",
                    scope.params([
                        (&request.stream_id).into(),
                        epoch.into(),
                        (&*check::clipped(&asked.model)).into(),
                        [].as_slice().into(),
                        now.into(),
                    ]),
                )
                .await?;
        }
        let row = session
            .row(
                "SELECT epoch, position FROM answers WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
                scope.params([(&request.stream_id).into()]),
            )
            .await?
            .ok_or_else(no_answer)?;
        if row.count(0)? > epoch {
            return Err(fenced());
        }
        let saved = Saved {
            position: if request.entries.is_empty() {
                request.position
            } else {
                orphans::append(&mut *session, scope, request, row.count(1)?).await?
            },
            now,
            lease_until: if request.release { 0 } else { self.lease_until(now) },
        };
        let response = CheckpointResponse {
            position: saved.position,
            lease_ms: u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX),
        };
        if save(&mut *session, scope, request, saved).await? > 0 {
            session.commit().await?; // else it is closed, or further on: then nothing of this counts
        }
        Ok(response)
    }

    /// What is known of an answer. Of one that was only logged, all but what it said.
    pub(crate) async fn get_answer(&self, scope: &Scope, stream_id: &str) -> Result<StoredAnswer, Fault> {
        check::name("stream_id", stream_id)?;
        let mut session = self.database.read().await?;
        let mut answer = if let Some(answer) = known(&mut *session, scope, stream_id).await? {
            answer
        } else {
            let logged = session
                .row(
                    "SELECT stream_id, conversation_id, model, state, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
                        cached_tokens, epoch, started_ms
                    FROM request_log WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
                    scope.params([stream_id.into()]),
                )
                .await?;
            outline(&logged.ok_or_else(no_answer)?)?
        };
        answer.epoch = answer.epoch.max(claimed(&mut *session, stream_id).await?);
        answer.orphan &= answer.state == "running" && self.knows_orphans();
        answer.entries = orphans::entries(&mut *session, scope, stream_id).await?;
        Ok(answer)
    }
}

/// An answer that is more than logged, without its entries.
pub(super) async fn known(session: &mut dyn Session, scope: &Scope, stream_id: &str) -> Result<Option<StoredAnswer>, Fault> {
    let row = session
        .row(
            "SELECT stream_id, conversation_id, model, state, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens,
                cached_tokens, epoch, created_ms, position, text, reasoning, tool_calls, resume, request, lease_ms, updated_ms
            FROM answers WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
            scope.params([stream_id.into()]),
        )
        .await?;
    row.map(|row| with_message(outline(&row)?, &row)).transpose()
}

/// What a checkpoint comes to.
struct Saved {
    /// Entries that are saved then.
    position: u32,
    /// When, in milliseconds since 1970.
    now: i64,
    /// When the lease is over, likewise.
    lease_until: i64,
}

/// Writes a checkpoint over an older one, and says on how many rows.
async fn save(session: &mut dyn Session, scope: &Scope, request: &CheckpointRequest, saved: Saved) -> Result<u64, Fault> {
    let silent = Message::default();
    let message = request.message.as_ref().unwrap_or(&silent);
    let calls = calls_to_text(&message.tool_calls)?;
    let resume = encode_resume(&request.resume);
    let asked = request.request.as_ref().map(ChatRequest::encode_to_vec).unwrap_or_default();
    session
        .run(
            "UPDATE answers SET epoch = $4, position = $5, text = $6, reasoning = $7, tool_calls = $8, resume = $9,
                request = CASE WHEN length($10) > 0 THEN $10 ELSE request END, updated_ms = $11, lease_ms = $12
            WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 AND state = 'running'
                AND (epoch < $4 OR (epoch = $4 AND position <= $5))",
            scope.params([
                (&request.stream_id).into(),
                request.epoch.max(FIRST_EPOCH).into(),
                saved.position.into(),
                (&*check::storable(&message.text)).into(),
                (&*check::storable(&message.reasoning)).into(),
                (&calls).into(),
                resume.as_slice().into(),
                asked.as_slice().into(),
                saved.now.into(),
                saved.lease_until.into(),
            ]),
        )
        .await
}

fn fenced() -> Fault {
    let failure = Failure::new(
        Reason::Conflict,
        "epoch has ended: another writer has claimed the answer, or written it since",
    );
    let param = "epoch".to_owned();
    Failure { param, ..failure }.into()
}

/// The eleven columns that an answer and its log entry have in common.
fn outline(row: &Row) -> Result<StoredAnswer, Fault> {
    Ok(StoredAnswer {
        stream_id: row.text(0)?,
        conversation_id: row.text(1)?,
        model: row.text(2)?,
        state: row.text(3)?,
        finish_reason: row.text(4)?,
        usage: Some(Usage {
            prompt_tokens: row.count(5)?,
            completion_tokens: row.count(6)?,
            reasoning_tokens: row.count(7)?,
            cached_tokens: row.count(8)?,
        }),
        epoch: row.count(9)?,
        created_ms: row.int(10)?,
        ..StoredAnswer::default()
    })
}

/// And the eight that only an answer has.
fn with_message(outline: StoredAnswer, row: &Row) -> Result<StoredAnswer, Fault> {
    let request = row.blob(16)?;
    let request = if request.is_empty() {
        None
    } else {
        Some(ChatRequest::decode(request.as_slice()).map_err(|error| Fault::Unreadable(format!("request: {error}")))?)
    };
    Ok(StoredAnswer {
        position: row.count(11)?,
        message: Some(Message {
            role: Role::Assistant.into(),
            text: row.text(12)?,
            reasoning: row.text(13)?,
            tool_calls: calls_from_text(&row.text(14)?)?,
            ..Message::default()
        }),
        resume: decode_resume(&row.blob(15)?)?,
        request,
        orphan: row.int(17)? < now_ms(),
        updated_ms: row.int(18)?,
        ..outline
    })
}
