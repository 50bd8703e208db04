//! The items that a stored message is, and their names. What an answer said is called as in its response: `msg_<answer>_0`; what stands at a
//! number of a conversation is called by that: `msg_<conversation>s<number>_0`. So an item is found by its name alone. Pure.

use proto::v1::{MessagePart, Role, StoredMessage, ToolCall};
use serde_json::{Value, json};

use crate::door::responses::item::{parts, role_word};

/// Between a conversation and the number of a message in it: no letter of a hexadecimal number.
const AT: char = 's';

/// A name of an item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    prefix: &'a str,
    base: &'a str,
    pub(super) number: u32,
}

impl<'a> Name<'a> {
    /// Reads a name. `None`: it is none.
    pub(super) fn parse(id: &'a str) -> Option<Self> {
        let (prefix, rest) = id.split_once('_')?;
        let (base, number) = rest.rsplit_once('_')?;
        let known = matches!(prefix, "msg" | "rs" | "fc" | "fco") && !base.is_empty();
        known.then_some(Self {
            prefix,
            base,
            number: number.parse().ok()?,
        })
    }

    /// The message that it is a part of: its id, or else the name of its answer.
    pub(super) fn message(&self, conversation: &str) -> (String, String) {
        let number = self
            .base
            .strip_prefix(&plain(conversation))
            .and_then(|rest| rest.strip_prefix(AT))
            .filter(|number| number.parse::<u32>().is_ok());
        match number {
            Some(number) => (format!("{conversation}.{number}"), String::new()),
            None => (String::new(), self.base.to_owned()),
        }
    }

    /// Which part of a message of so many items it is.
    pub(super) fn part(&self, of: usize) -> MessagePart {
        match self.prefix {
            _ if of == 1 => MessagePart::Unspecified,
            "rs" => MessagePart::Reasoning,
            "fc" => MessagePart::ToolCall,
            _ => MessagePart::Text,
        }
    }
}

/// A conversation's id without what only structures it.
pub(super) fn plain(conversation: &str) -> String {
    conversation.replace('-', "")
}

/// The id of the message just before this one in a list, so that the list goes on with this one.
pub(super) fn before(conversation: &str, message_id: &str, newest_first: bool) -> String {
    let number = number(message_id);
    match (newest_first, number) {
        (true, number) => format!("{conversation}.{}", number.saturating_add(1)),
        (false, 0) => String::new(),
        (false, number) => format!("{conversation}.{}", number - 1),
    }
}

fn number(message_id: &str) -> u32 {
    message_id.rsplit_once('.').and_then(|(_, number)| number.parse().ok()).unwrap_or(0)
}

/// The items of a message.
pub(super) fn of(conversation: &str, stored: StoredMessage) -> Vec<Value> {
    let status = match stored.state.as_str() {
        "running" => "in_progress",
        "failed" | "cancelled" => "incomplete",
        _ => "completed",
    };
    let base = if stored.state.is_empty() {
        format!("{}{AT}{}", plain(conversation), number(&stored.id))
    } else {
        stored.stream_id
    };
    let message = stored.message.unwrap_or_default();
    let mut items = Vec::new();
    if message.role() == Role::Tool {
        let id = format!("fco_{base}_0");
        items.push(json!({
            "id": id, "type": "function_call_output", "status": status, "call_id": message.tool_call_id, "output": message.text,
        }));
        return items;
    }
    if !message.reasoning.is_empty() {
        let content = json!([{"type": "reasoning_text", "text": message.reasoning}]);
        items.push(json!({"id": format!("rs_{base}_0"), "type": "reasoning", "status": status, "summary": [], "content": content}));
    }
    let assistant = message.role() == Role::Assistant;
    if !assistant || !message.text.is_empty() {
        let (role, content) = (role_word(message.role()), parts(message.role(), &message.text, &message.images));
        items.push(json!({"id": format!("msg_{base}_0"), "type": "message", "status": status, "role": role, "content": content}));
    }
    for (number, call) in message
        .tool_calls
        .iter()
        .enumerate()
        .filter(|(_, call)| **call != ToolCall::default())
    {
        items.push(json!({
            "id": format!("fc_{base}_{number}"), "type": "function_call", "status": status, "call_id": call.id, "name": call.name,
            "arguments": call.arguments,
        }));
    }
    items
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use proto::v1::Message;

    use super::*;

    const CONVERSATION: &str = "018f0000-0000-7000-8000-0000000000ab";

    fn stored(role: Role, state: &str) -> StoredMessage {
        let call = |id: &str| ToolCall {
            id: id.to_owned(),
            name: "f".to_owned(),
            ..ToolCall::default()
        };
        let assistant = role == Role::Assistant;
        StoredMessage {
            id: format!("{CONVERSATION}.7"),
            message: Some(Message {
                role: role.into(),
                text: "said".to_owned(),
                reasoning: if assistant { "thought".to_owned() } else { String::new() },
                tool_calls: if assistant {
                    vec![ToolCall::default(), call("c2")]
                } else {
                    Vec::new()
                },
                ..Message::default()
            }),
            state: state.to_owned(),
            stream_id: "abc".to_owned(),
            ..StoredMessage::default()
        }
    }

    fn ids(stored: StoredMessage) -> Vec<String> {
        of(CONVERSATION, stored)
            .iter()
            .map(|item| item["id"].as_str().unwrap().to_owned())
            .collect()
    }

    #[test]
    fn an_item_is_found_by_its_name_alone() {
        let here = "018f00000000700080000000000000abs7";
        assert_eq!(ids(stored(Role::User, "")), [format!("msg_{here}_0")]);
        assert_eq!(ids(stored(Role::Tool, "")), [format!("fco_{here}_0")]);
        assert_eq!(
            ids(stored(Role::Assistant, "")),
            [format!("rs_{here}_0"), format!("msg_{here}_0"), format!("fc_{here}_1")]
        );
        assert_eq!(ids(stored(Role::Assistant, "finished")), ["rs_abc_0", "msg_abc_0", "fc_abc_1"]);
        let message = |id: &str| Name::parse(id).unwrap().message(CONVERSATION);
        assert_eq!(message(&format!("fc_{here}_1")), (format!("{CONVERSATION}.7"), String::new()));
        assert_eq!(message("fc_abc_1"), (String::new(), "abc".to_owned()));
        for wrong in ["", "msg", "msg_x", "msg__0", "file_x_0", "msg_x_y"] {
            assert_eq!(Name::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn the_only_item_of_a_message_is_all_of_it() {
        let part = |id: &str, of| Name::parse(id).unwrap().part(of);
        assert_eq!(part("msg_a_0", 1), MessagePart::Unspecified);
        assert_eq!(part("msg_a_0", 2), MessagePart::Text);
        assert_eq!(part("rs_a_0", 2), MessagePart::Reasoning);
        assert_eq!(part("fc_a_1", 2), MessagePart::ToolCall);
    }

    proptest! {
        #[test]
        fn any_text_is_the_name_of_a_part_of_one_message_or_none(
            id in "(msg|rs|fc|fco|x|.{0,3})(_|)(.{0,8}|abc|conv\\.7)(_|)([0-9]{0,11}|.{0,3})",
            conversation in ".{0,8}|conv",
            of in 0_usize..5,
        ) {
            if let Some(name) = Name::parse(&id) {
                name.part(of);
                let (message, answer) = name.message(&conversation);
                prop_assert!(message.is_empty() != answer.is_empty(), "{message:?} {answer:?}");
                let again = format!("{}_{}_{}", name.prefix, name.base, name.number);
                prop_assert_eq!(Name::parse(&again), Some(name), "it has one reading");
            }
        }
    }
}
