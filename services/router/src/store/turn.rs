//! What the store is told of an answer: its turn, as the journal shows it at the end. Pure.

use prost::Message as _;
use proto::v1::{
    Entry, FinishedTurn, GenerateResponse, Message, Role, ToolCall,
    entry::{Event, TokenIds},
};

use crate::answer::Answer;

/// Calls of one message that are kept.
const MAX_TOOL_CALLS: usize = 128;

/// Bytes of a journal that is kept: a quarter of what a message may have. Longer answers are kept as a message only.
const MAX_JOURNAL: usize = proto::MAX_ENCODED_MESSAGE / 4;

/// How an answer ended, for its turn.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ended<'a> {
    /// The worker that ended it.
    pub(crate) worker: &'a str,
    /// The epoch in which it ended.
    pub(crate) epoch: u32,
    /// How long it took.
    pub(crate) duration_ms: u32,
}

/// The turn of an answer whose journal is closed. Without a conversation, and if it is not to be kept, only the request is logged, so no
/// text leaves.
pub(crate) fn of(answer: &Answer, ended: Ended<'_>) -> FinishedTurn {
    let message = (answer.keep || !answer.conversation_id.is_empty()).then(|| answer.journal.with_entries(|entries| message(entries)));
    FinishedTurn {
        principal: Some(answer.principal.clone()),
        stream_id: answer.id.to_string(),
        conversation_id: answer.conversation_id.clone(),
        message,
        state: answer.state_word().to_owned(),
        finish_reason: answer.finish_word().to_owned(),
        model: answer.model().to_string(),
        usage: Some(answer.final_usage()),
        started_ms: answer.created_ms,
        ttft_ms: answer.first_ms(),
        duration_ms: ended.duration_ms,
        worker: ended.worker.to_owned(),
        epoch: ended.epoch,
        request_id: answer.request_id.clone(),
        door: answer.door.clone(),
        key_id: answer.key_id.clone(),
        status: 0,
        journal: if answer.keep {
            answer.journal.with_entries(|entries| journal(entries))
        } else {
            Vec::new()
        },
    }
}

/// All entries as the store keeps them: nobody goes on with them any more, so without their token ids. Empty if they are too many.
fn journal<'entries>(entries: impl IntoIterator<Item = &'entries Entry>) -> Vec<u8> {
    let kept = GenerateResponse {
        entries: entries
            .into_iter()
            .map(|entry| Entry {
                token_ids: TokenIds::new(),
                ..entry.clone()
            })
            .collect(),
        ..GenerateResponse::default()
    };
    if kept.encoded_len() > MAX_JOURNAL {
        return Vec::new();
    }
    kept.encode_to_vec()
}

/// What the assistant said: the first choice.
pub(crate) fn message<'entries>(entries: impl IntoIterator<Item = &'entries Entry>) -> Message {
    let mut message = Message {
        role: Role::Assistant.into(),
        ..Message::default()
    };
    for entry in entries.into_iter().filter(|entry| entry.choice == 0) {
        message.text.push_str(&entry.token);
        match &entry.event {
            Some(Event::Reasoning(text)) => message.reasoning.push_str(text),
            Some(Event::ToolCall(delta)) => {
                let index = delta.index as usize;
                if index >= MAX_TOOL_CALLS {
                    continue;
                }
                if message.tool_calls.len() <= index {
                    message.tool_calls.resize_with(index + 1, ToolCall::default);
                }
                let call = &mut message.tool_calls[index];
                call.id.push_str(&delta.id);
                call.name.push_str(&delta.name);
                call.arguments.push_str(&delta.arguments);
            }
            _ => {}
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use proto::v1::ToolCallDelta;

    use super::*;

    #[test]
    fn a_message_is_the_first_choice_with_its_thoughts_and_whole_calls() {
        let call = |index, id: &str, name: &str, arguments: &str| Entry {
            event: Some(Event::ToolCall(Box::new(ToolCallDelta {
                index,
                id: id.to_owned(),
                name: name.to_owned(),
                arguments: arguments.to_owned(),
            }))),
            ..Entry::default()
        };
        let entries = [
            Entry {
                event: Some(Event::Reasoning("hm".to_owned())),
                ..Entry::default()
            },
            Entry::text("a", 1),
            Entry {
                choice: 1,
                ..Entry::text("other", 2)
            },
            Entry::text("b", 3),
            call(0, "c1", "f", "{\"x\""),
            call(1, "c2", "g", "{}"),
            call(0, "", "", ":1}"),
        ];
        let message = message(&entries);
        assert_eq!((message.text.as_str(), message.reasoning.as_str()), ("ab", "hm"));
        assert_eq!(message.tool_calls[0].arguments, "{\"x\":1}");
        assert_eq!(
            (message.tool_calls[1].id.as_str(), message.tool_calls[1].name.as_str()),
            ("c2", "g")
        );
    }
}
