//! What the script reads of a request: its conversation, in the script's tokens, and the function that it must call.

use proto::v1::{ChatRequest, Message, Role, ToolMode};

/// The conversation, with `prompt` as its last message. The tokens of a raw input are its words.
pub(super) fn messages(chat: &ChatRequest) -> Vec<Message> {
    let mut messages = chat.messages.clone();
    for text in [chat.prompt.clone(), spelled(&chat.prompt_tokens)] {
        if !text.is_empty() {
            messages.push(Message {
                role: Role::User.into(),
                text,
                ..Message::default()
            });
        }
    }
    messages
}

/// The script's tokens of a conversation.
pub(super) fn prompt_tokens(messages: &[Message]) -> u32 {
    messages.iter().map(|message| words(&message.text)).sum()
}

/// Ids of tokens as a text of as many words.
pub(super) fn spelled(ids: &[u32]) -> String {
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    words.join(" ")
}

/// The function that must be called, where one must: the named one, or the first.
pub(super) fn must_call(chat: &ChatRequest) -> Option<String> {
    let choice = chat.tool_choice.as_ref()?;
    match choice.mode() {
        ToolMode::Named => Some(choice.name.clone()),
        ToolMode::Required => chat.tools.first().map(|tool| tool.name.clone()),
        ToolMode::Unspecified | ToolMode::Auto | ToolMode::None => None,
    }
}

/// What the user said last.
pub(super) fn last_said(messages: &[Message]) -> &str {
    let mut users = messages
        .iter()
        .rev()
        .filter(|message| matches!(message.role(), Role::User | Role::Unspecified));
    users.next().map_or("", |message| message.text.as_str())
}

/// The script's tokens of an input: its words.
pub(super) fn words(text: &str) -> u32 {
    u32::try_from(text.split_whitespace().count()).unwrap_or(u32::MAX)
}
