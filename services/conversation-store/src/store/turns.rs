//! Opening a turn: once per answer, whole or not at all.

use proto::v1::{BeginTurnRequest, BeginTurnResponse, Failure, Message, Reason};

use super::{
    Store,
    messages::{self, NewMessages},
    no_conversation, now_ms,
};
use crate::{check, database::Session, error::Fault, scope::Scope};

impl Store {
    /// Stores the turn's messages and its answer as running, and returns what was said before. The same answer again stores nothing
    /// and returns the history before its turn.
    pub(crate) async fn begin_turn(&self, scope: &Scope, request: &BeginTurnRequest) -> Result<BeginTurnResponse, Fault> {
        check::name("conversation_id", &request.conversation_id)?;
        check::name("stream_id", &request.stream_id)?;
        check::text("model", &request.model)?;
        check::messages(&request.messages)?;

        let now = now_ms();
        let mut session = self.database.write().await?;
        let turn = Turn {
            conversation: &request.conversation_id,
            stream_id: &request.stream_id,
            model: &request.model,
            messages: &request.messages,
            now,
            lease_until: self.lease_until(now),
        };
        let Some(first) = open(&mut *session, scope, turn).await? else {
            // Opened before: dropping the session takes the places back.
            drop(session);
            self.renew(scope, request, now).await?;
            return self.opened_turn(scope, request).await;
        };
        let history = messages::history(&mut *session, scope, &request.conversation_id, first).await?;
        session.commit().await?;
        Ok(BeginTurnResponse { history })
    }

    /// Whoever opens a turn once more is about to make its answer: the lease of who opened it first may be over by now.
    async fn renew(&self, scope: &Scope, request: &BeginTurnRequest, now: i64) -> Result<(), Fault> {
        let mut session = self.database.write().await?;
        session
            .run(
                "UPDATE answers SET lease_ms = $4 WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 AND state = 'running'",
                scope.params([(&request.stream_id).into(), self.lease_until(now).into()]),
            )
            .await?;
        session.commit().await
    }

    /// The history of a turn that is open or closed.
    async fn opened_turn(&self, scope: &Scope, request: &BeginTurnRequest) -> Result<BeginTurnResponse, Fault> {
        let mut session = self.database.read().await?;
        let row = session
            .row(
                "SELECT first_seq FROM answers WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3 AND conversation_id = $4",
                scope.params([(&request.stream_id).into(), (&request.conversation_id).into()]),
            )
            .await?;
        let Some(row) = row else {
            let failure = Failure::new(Reason::Conflict, "stream_id names an answer outside of this conversation");
            let param = "stream_id".to_owned();
            return Err(Failure { param, ..failure }.into());
        };
        let history = messages::history(&mut *session, scope, &request.conversation_id, row.int(0)?).await?;
        Ok(BeginTurnResponse { history })
    }
}

/// A turn to open.
pub(super) struct Turn<'a> {
    /// In which conversation.
    pub(super) conversation: &'a str,
    /// Its answer.
    pub(super) stream_id: &'a str,
    /// The model that is asked.
    pub(super) model: &'a str,
    /// Its messages.
    pub(super) messages: &'a [Message],
    /// When, in milliseconds since 1970.
    pub(super) now: i64,
    /// And when its first lease is over, likewise.
    pub(super) lease_until: i64,
}

/// Gives a turn its place in its conversation, and returns the number of its first message. Nothing if the answer is known:
/// then the session must be dropped.
///
/// The conversation's row is changed first: that locks it, so the turns of one conversation are opened one after the other.
pub(super) async fn open(session: &mut dyn Session, scope: &Scope, turn: Turn<'_>) -> Result<Option<i64>, Fault> {
    // One place more, for the answer.
    let places = i64::try_from(turn.messages.len()).unwrap_or(i64::MAX - 1) + 1;
    let row = session
        .row(
            "UPDATE conversations
            SET messages = messages + $4, updated_ms = CASE WHEN updated_ms < $5 THEN $5 ELSE updated_ms END
            WHERE tenant_id = $1 AND user_id = $2 AND id = $3
            RETURNING messages - $4",
            scope.params([turn.conversation.into(), places.into(), turn.now.into()]),
        )
        .await?;
    let first = row.ok_or_else(no_conversation)?.int(0)?;
    let opened = session
        .run(
            "INSERT INTO answers (tenant_id, user_id, stream_id, conversation_id, first_seq, state, epoch, position, model, text,
                reasoning, tool_calls, resume, request, finish_reason, prompt_tokens, completion_tokens, reasoning_tokens, cached_tokens,
                created_ms, updated_ms, lease_ms)
            VALUES ($1, $2, $3, $4, $5, 'running', 1, 0, $6, '', '', '', $7, $7, '', 0, 0, 0, 0, $8, $8, $9)
            ON CONFLICT DO NOTHING",
            scope.params([
                turn.stream_id.into(),
                turn.conversation.into(),
                first.into(),
                turn.model.into(),
                [].as_slice().into(),
                turn.now.into(),
                turn.lease_until.into(),
            ]),
        )
        .await?;
    if opened == 0 {
        return Ok(None);
    }
    let new = NewMessages {
        conversation: turn.conversation,
        stream_id: turn.stream_id,
        first,
        now: turn.now,
        messages: turn.messages,
    };
    let place = messages::insert(session, scope, new).await?;
    messages::insert_answer(session, scope, new, place).await?;
    Ok(Some(first))
}
