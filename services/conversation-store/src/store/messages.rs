//! Messages: a page of a conversation, and the history before a turn. What an answer says stands in `answers`; the queries here join
//! it to its place in the conversation.

use proto::v1::{Failure, Message, Role, StoredMessage, ToolCall};

use super::{Store, calls_from_text, images_from_bytes, images_to_bytes};
use crate::{
    check,
    database::{Row, Session},
    error::Fault,
    scope::Scope,
};

/// The most messages of a history.
const HISTORY: u32 = 4_096;
/// The most bytes of a history's texts: it has to fit into one gRPC message of 16 MiB, and into a model's context far sooner.
const HISTORY_BYTES: i64 = 8 * 1024 * 1024;
/// The most bytes of the texts that are read at once for a list; one message is read whatever its size.
const PIECE_BYTES: i64 = 1024 * 1024;
/// Between a conversation's id and a message's number in it.
const SEPARATOR: char = '.';

/// Where a list of messages goes on: after the one with this number.
pub(super) fn cursor(conversation: &str, after_id: &str) -> Result<i64, Failure> {
    if after_id.is_empty() {
        return Ok(-1);
    }
    let seq = after_id
        .strip_prefix(conversation)
        .and_then(|rest| rest.strip_prefix(SEPARATOR))
        .and_then(|seq| seq.parse::<u32>().ok());
    seq.map(i64::from)
        .ok_or_else(|| Failure::invalid("after_id", "after_id is not the id of a message of this conversation"))
}

/// Of a page of messages as many as fit, in the one order or the other; the first whatever its size.
macro_rules! page {
    ($beyond:literal, $order:literal) => {
        concat!(
            "SELECT seq, created_ms, stream_id, state, finish_reason, role, text, reasoning, tool_calls, tool_call_id, name, images
            FROM (
                SELECT page.*, ROW_NUMBER() OVER (ORDER BY seq ",
            $order,
            ") AS place, CAST(SUM(octet_length(text) + octet_length(reasoning) + octet_length(tool_calls) + octet_length(images))
                    OVER (ORDER BY seq ",
            $order,
            ") AS BIGINT) AS bytes
                FROM (
                    SELECT m.seq, m.created_ms, m.stream_id, COALESCE(a.state, '') AS state,
                        COALESCE(a.finish_reason, '') AS finish_reason, m.role,
                        COALESCE(a.text, m.text) AS text, COALESCE(a.reasoning, m.reasoning) AS reasoning,
                        COALESCE(a.tool_calls, m.tool_calls) AS tool_calls, m.tool_call_id, m.name, m.images
                    FROM messages m
                    LEFT JOIN answers a ON m.is_answer = 1 AND a.tenant_id = m.tenant_id AND a.user_id = m.user_id
                        AND a.stream_id = m.stream_id
                    WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3 AND m.seq ",
            $beyond,
            " $4
                    ORDER BY m.seq ",
            $order,
            " LIMIT $5
                ) AS page
            ) AS sized
            WHERE bytes <= $6 OR place = 1
            ORDER BY seq ",
            $order
        )
    };
}

/// Where a list of messages goes on, and in which order.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MessageCursor {
    /// After the message with this number.
    after: i64,
    newest_first: bool,
}

impl MessageCursor {
    /// A list that goes on after the message `after_id`. Empty: from the first.
    pub(crate) fn of(conversation: &str, after_id: &str, newest_first: bool) -> Result<Self, Failure> {
        let after = if after_id.is_empty() && newest_first {
            i64::MAX
        } else {
            cursor(conversation, after_id)?
        };
        Ok(Self { after, newest_first })
    }

    /// After this one.
    pub(crate) fn after(self, seq: i64) -> Self {
        Self { after: seq, ..self }
    }
}

impl Store {
    /// The messages after the cursor, with their numbers: at most `limit`, and fewer if they are large. Empty: no more.
    pub(crate) async fn list_messages(
        &self,
        scope: &Scope,
        conversation: &str,
        cursor: MessageCursor,
        limit: u32,
    ) -> Result<Vec<(i64, StoredMessage)>, Fault> {
        let statement = if cursor.newest_first {
            page!("<", "DESC")
        } else {
            page!(">", "ASC")
        };
        let mut session = self.database.read().await?;
        let params = scope.params([conversation.into(), cursor.after.into(), limit.into(), PIECE_BYTES.into()]);
        let rows = session.rows(statement, params).await?;
        rows.iter().map(|row| stored(conversation, row)).collect()
    }
}

/// What was said before message number `before`, oldest first. An answer that has said nothing is left out: it was interrupted at
/// once, or has not begun.
pub(super) async fn history(session: &mut dyn Session, scope: &Scope, conversation: &str, before: i64) -> Result<Vec<Message>, Fault> {
    let rows = session
        .rows(
            "SELECT role, text, reasoning, tool_calls, tool_call_id, name, images
            FROM (
                SELECT page.*, CAST(SUM(octet_length(text) + octet_length(reasoning) + octet_length(tool_calls) + octet_length(images))
                    OVER (ORDER BY seq DESC) AS BIGINT) AS bytes
                FROM (
                    SELECT m.seq, m.role, COALESCE(a.text, m.text) AS text, COALESCE(a.reasoning, m.reasoning) AS reasoning,
                        COALESCE(a.tool_calls, m.tool_calls) AS tool_calls, m.tool_call_id, m.name, m.images
                    FROM messages m
                    LEFT JOIN answers a ON m.is_answer = 1 AND a.tenant_id = m.tenant_id AND a.user_id = m.user_id
                        AND a.stream_id = m.stream_id
                    WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3 AND m.seq < $4
                        AND NOT (m.is_answer = 1 AND COALESCE(a.text, '') = '' AND COALESCE(a.tool_calls, '') = '')
                    ORDER BY m.seq DESC LIMIT $5
                ) AS page
            ) AS sized
            WHERE bytes <= $6
            ORDER BY seq",
            scope.params([conversation.into(), before.into(), HISTORY.into(), HISTORY_BYTES.into()]),
        )
        .await?;
    rows.iter()
        .map(|row| {
            let mut message = message(row, 0)?;
            message.tool_calls.retain(|call| *call != ToolCall::default()); // those that were taken out
            Ok(message)
        })
        .collect()
}

/// The id of a message.
pub(super) fn id(conversation: &str, seq: i64) -> String {
    format!("{conversation}{SEPARATOR}{seq}")
}

/// Stores messages from number `first` on, and says which number is next.
pub(super) async fn insert(session: &mut dyn Session, scope: &Scope, turn: NewMessages<'_>) -> Result<i64, Fault> {
    let mut seq = turn.first;
    for message in turn.messages {
        let calls = super::calls_to_text(&message.tool_calls)?;
        let images = images_to_bytes(&message.images);
        let (text, reasoning) = (check::storable(&message.text), check::storable(&message.reasoning));
        // What the sender left open is the user's.
        let role = if message.role() == Role::Unspecified {
            Role::User
        } else {
            message.role()
        };
        session
            .run(
                "INSERT INTO messages (tenant_id, user_id, conversation_id, seq, created_ms, stream_id, is_answer, role, text, reasoning,
                    tool_calls, tool_call_id, name, images)
                VALUES ($1, $2, $3, $4, $5, $6, 0, $7, $8, $9, $10, $11, $12, $13)",
                scope.params([
                    turn.conversation.into(),
                    seq.into(),
                    turn.now.into(),
                    turn.stream_id.into(),
                    i64::from(i32::from(role)).into(),
                    (&*text).into(),
                    (&*reasoning).into(),
                    (&calls).into(),
                    (&message.tool_call_id).into(),
                    (&message.name).into(),
                    images.as_slice().into(),
                ]),
            )
            .await?;
        seq += 1;
    }
    Ok(seq)
}

/// Gives the answer of a turn its place, after the messages that the turn brings.
pub(super) async fn insert_answer(session: &mut dyn Session, scope: &Scope, turn: NewMessages<'_>, seq: i64) -> Result<(), Fault> {
    session
        .run(
            "INSERT INTO messages (tenant_id, user_id, conversation_id, seq, created_ms, stream_id, is_answer, role, text, reasoning,
                tool_calls, tool_call_id, name)
            VALUES ($1, $2, $3, $4, $5, $6, 1, $7, '', '', '', '', '')",
            scope.params([
                turn.conversation.into(),
                seq.into(),
                turn.now.into(),
                turn.stream_id.into(),
                i64::from(i32::from(Role::Assistant)).into(),
            ]),
        )
        .await?;
    Ok(())
}

/// Messages on their way into a conversation.
#[derive(Clone, Copy)]
pub(super) struct NewMessages<'a> {
    /// Which conversation.
    pub(super) conversation: &'a str,
    /// The turn's answer; empty where there is none.
    pub(super) stream_id: &'a str,
    /// The number of the first.
    pub(super) first: i64,
    /// When, in milliseconds since 1970.
    pub(super) now: i64,
    /// Them.
    pub(super) messages: &'a [Message],
}

pub(super) fn stored(conversation: &str, row: &Row) -> Result<(i64, StoredMessage), Fault> {
    let seq = row.int(0)?;
    let stored = StoredMessage {
        id: id(conversation, seq),
        created_ms: row.int(1)?,
        stream_id: row.text(2)?,
        state: row.text(3)?,
        finish_reason: row.text(4)?,
        message: Some(message(row, 5)?),
    };
    Ok((seq, stored))
}

/// The seven columns of a message, from `first` on.
fn message(row: &Row, first: usize) -> Result<Message, Fault> {
    Ok(Message {
        role: i32::try_from(row.int(first)?).unwrap_or_default(),
        text: row.text(first + 1)?,
        reasoning: row.text(first + 2)?,
        tool_calls: calls_from_text(&row.text(first + 3)?)?,
        tool_call_id: row.text(first + 4)?,
        name: row.text(first + 5)?,
        images: images_from_bytes(&row.blob(first + 6)?)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_the_id_of_a_message_of_the_same_conversation() {
        assert_eq!(cursor("c", "").unwrap(), -1);
        assert_eq!(cursor("c", "c.7").unwrap(), 7);
        for wrong in ["d.7", "c", "c.", "c.-1", "c.7x", "7"] {
            assert_eq!(cursor("c", wrong).unwrap_err().param, "after_id", "{wrong}");
        }
    }
}
