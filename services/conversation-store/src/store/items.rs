//! Single messages of a conversation: added without an answer, read, and taken out again, whole or in part.

use proto::v1::{
    AddMessagesRequest, AddMessagesResponse, DeleteMessageRequest, Failure, GetMessageRequest, Message, MessagePart, Reason, StoredMessage,
    ToolCall,
};

use super::{
    Store, calls_to_text, images_to_bytes,
    messages::{self, NewMessages, cursor, stored},
    no_conversation, now_ms,
};
use crate::{check, database::Session, error::Fault, scope::Scope};

/// Which message: by its number, or by the answer that it is.
enum Which<'a> {
    Number(i64),
    Answer(&'a str),
}

impl Store {
    /// Adds messages after the last one, all or none.
    pub(crate) async fn add_messages(&self, scope: &Scope, request: &AddMessagesRequest) -> Result<AddMessagesResponse, Fault> {
        check::name("conversation_id", &request.conversation_id)?;
        check::messages(&request.messages)?;
        let now = now_ms();
        let count = i64::try_from(request.messages.len()).unwrap_or(i64::MAX);
        let mut session = self.database.write().await?;
        let row = session
            .row(
                "UPDATE conversations
                SET messages = messages + $4, updated_ms = CASE WHEN updated_ms < $5 THEN $5 ELSE updated_ms END
                WHERE tenant_id = $1 AND user_id = $2 AND id = $3
                RETURNING messages - $4",
                scope.params([(&request.conversation_id).into(), count.into(), now.into()]),
            )
            .await?;
        let first = row.ok_or_else(no_conversation)?.int(0)?;
        let new = NewMessages {
            conversation: &request.conversation_id,
            stream_id: "",
            first,
            now,
            messages: &request.messages,
        };
        messages::insert(&mut *session, scope, new).await?;
        session.commit().await?;
        let added = (first..).zip(&request.messages).map(|(seq, message)| StoredMessage {
            id: messages::id(&request.conversation_id, seq),
            message: Some(message.clone()),
            created_ms: now,
            ..StoredMessage::default()
        });
        Ok(AddMessagesResponse { messages: added.collect() })
    }

    /// Reads one.
    pub(crate) async fn get_message(&self, scope: &Scope, request: &GetMessageRequest) -> Result<StoredMessage, Fault> {
        check::name("conversation_id", &request.conversation_id)?;
        let which = if request.id.is_empty() {
            check::name("stream_id", &request.stream_id)?;
            Which::Answer(&request.stream_id)
        } else {
            number(&request.conversation_id, &request.id)?
        };
        let mut session = self.database.read().await?;
        let (_, message) = read(&mut *session, scope, &request.conversation_id, which).await?;
        Ok(message)
    }

    /// Takes one, or a part of it, out of its conversation. What an answer said is still what its record shows.
    pub(crate) async fn delete_message(&self, scope: &Scope, request: &DeleteMessageRequest) -> Result<(), Fault> {
        check::name("conversation_id", &request.conversation_id)?;
        let conversation = &request.conversation_id;
        let which = number(conversation, &request.id)?;
        let mut session = self.database.write().await?;
        let locked = session
            .run(
                "UPDATE conversations SET updated_ms = CASE WHEN updated_ms < $4 THEN $4 ELSE updated_ms END
                WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
                scope.params([conversation.into(), now_ms().into()]),
            )
            .await?;
        if locked == 0 {
            return Err(no_conversation());
        }
        let (seq, found) = read(&mut *session, scope, conversation, which).await?;
        if found.state == "running" {
            return Err(Failure::new(Reason::Conflict, "the answer that this message is still runs").into());
        }
        let left = without(found.message.unwrap_or_default(), request);
        match left {
            Some(message) if !found.state.is_empty() => write_answer(&mut *session, scope, &found.stream_id, &message).await?,
            Some(message) => write(&mut *session, scope, (conversation, seq), &message).await?,
            None => remove(&mut *session, scope, conversation, seq).await?,
        }
        session.commit().await
    }
}

fn number<'a>(conversation: &str, id: &str) -> Result<Which<'a>, Fault> {
    cursor(conversation, id)
        .ok()
        .filter(|seq| *seq >= 0)
        .map(Which::Number)
        .ok_or_else(no_message)
}

fn no_message() -> Fault {
    Failure::new(Reason::NotFound, "there is no such message in this conversation").into()
}

async fn read(session: &mut dyn Session, scope: &Scope, conversation: &str, which: Which<'_>) -> Result<(i64, StoredMessage), Fault> {
    let (seq, stream_id) = match which {
        Which::Number(seq) => (seq, ""),
        Which::Answer(stream_id) => (-1, stream_id),
    };
    let row = session
        .row(
            "SELECT m.seq, m.created_ms, m.stream_id, COALESCE(a.state, ''), COALESCE(a.finish_reason, ''), m.role,
                COALESCE(a.text, m.text), COALESCE(a.reasoning, m.reasoning), COALESCE(a.tool_calls, m.tool_calls), m.tool_call_id, m.name,
                m.images
            FROM messages m
            LEFT JOIN answers a ON m.is_answer = 1 AND a.tenant_id = m.tenant_id AND a.user_id = m.user_id AND a.stream_id = m.stream_id
            WHERE m.tenant_id = $1 AND m.user_id = $2 AND m.conversation_id = $3
                AND (m.seq = $4 OR (m.is_answer = 1 AND m.stream_id = $5)) LIMIT 1",
            scope.params([conversation.into(), seq.into(), stream_id.into()]),
        )
        .await?;
    stored(conversation, &row.ok_or_else(no_message)?)
}

/// What is left of a message. Nothing: it is gone.
fn without(mut message: Message, request: &DeleteMessageRequest) -> Option<Message> {
    match request.part() {
        MessagePart::Unspecified => return None,
        MessagePart::Reasoning => message.reasoning.clear(),
        MessagePart::Text => {
            message.text.clear();
            message.images.clear(); // they stand in the text
        }
        MessagePart::ToolCall => {
            if let Some(call) = message.tool_calls.get_mut(request.tool_call as usize) {
                *call = ToolCall::default();
            }
        }
    }
    let silent = message.text.is_empty() && message.images.is_empty();
    let empty = silent && message.reasoning.is_empty() && message.tool_calls.iter().all(|call| *call == ToolCall::default());
    (!empty).then_some(message)
}

async fn write_answer(session: &mut dyn Session, scope: &Scope, stream_id: &str, message: &Message) -> Result<(), Fault> {
    let calls = calls_to_text(&message.tool_calls)?;
    session
        .run(
            "UPDATE answers SET text = $4, reasoning = $5, tool_calls = $6 WHERE tenant_id = $1 AND user_id = $2 AND stream_id = $3",
            scope.params([
                stream_id.into(),
                (&message.text).into(),
                (&message.reasoning).into(),
                (&calls).into(),
            ]),
        )
        .await?;
    Ok(())
}

async fn write(session: &mut dyn Session, scope: &Scope, at: (&str, i64), message: &Message) -> Result<(), Fault> {
    let calls = calls_to_text(&message.tool_calls)?;
    let images = images_to_bytes(&message.images);
    session
        .run(
            "UPDATE messages SET text = $5, reasoning = $6, tool_calls = $7, images = $8
            WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND seq = $4",
            scope.params([
                at.0.into(),
                at.1.into(),
                (&message.text).into(),
                (&message.reasoning).into(),
                (&calls).into(),
                images.as_slice().into(),
            ]),
        )
        .await?;
    Ok(())
}

/// Takes a message out. The answer that it was stays where there is a record of it, outside of the conversation from now on.
async fn remove(session: &mut dyn Session, scope: &Scope, conversation: &str, seq: i64) -> Result<(), Fault> {
    session
        .run(
            "DELETE FROM answers WHERE tenant_id = $1 AND user_id = $2
                AND stream_id IN (SELECT m.stream_id FROM messages m WHERE m.tenant_id = $1 AND m.user_id = $2
                    AND m.conversation_id = $3 AND m.seq = $4 AND m.is_answer = 1)
                AND stream_id NOT IN (SELECT r.stream_id FROM records r WHERE r.tenant_id = $1 AND r.user_id = $2
                    AND r.conversation_id = $3)",
            scope.params([conversation.into(), seq.into()]),
        )
        .await?;
    session
        .run(
            "UPDATE answers SET conversation_id = '' WHERE tenant_id = $1 AND user_id = $2
                AND stream_id IN (SELECT m.stream_id FROM messages m WHERE m.tenant_id = $1 AND m.user_id = $2
                    AND m.conversation_id = $3 AND m.seq = $4 AND m.is_answer = 1)",
            scope.params([conversation.into(), seq.into()]),
        )
        .await?;
    session
        .run(
            "DELETE FROM messages WHERE tenant_id = $1 AND user_id = $2 AND conversation_id = $3 AND seq = $4",
            scope.params([conversation.into(), seq.into()]),
        )
        .await?;
    session
        .run(
            "UPDATE conversations SET removed = removed + 1 WHERE tenant_id = $1 AND user_id = $2 AND id = $3",
            scope.params([conversation.into()]),
        )
        .await?;
    Ok(())
}
