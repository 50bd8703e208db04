//! What a choice says, as the entries of a journal.
//!
//! The scheduler writes these for a token that was just made; [`super::request`] makes the same ones again for a token that another worker
//! made, to know which of them were written there. Pure.

use proto::v1::{Entry, entry::Event};

use super::choice::{Choice, Said};

/// The entries of a token, or of an end without one: the first of them stands for the token. There is at least one for a token, and for the
/// end of a choice where there are `many`.
pub(super) fn entries(choice: &Choice, token: Option<u32>, said: Vec<Said>, many: bool) -> Vec<Entry> {
    let mut entries: Vec<Entry> = said.into_iter().map(|said| entry(choice, said)).collect();
    let end = choice.end.clone().filter(|_| many);
    if entries.is_empty() && (token.is_some() || end.is_some()) {
        let nothing = if choice.is_thinking() {
            Said::Thought(String::new())
        } else {
            Said::Text(String::new())
        };
        entries.push(entry(choice, nothing));
    }
    if let (Some(first), Some(token)) = (entries.first_mut(), token) {
        first.token_ids.push(token);
        first.tokens = 1;
    }
    if let Some(last) = entries.last_mut() {
        last.end = end.map(Box::new);
    }
    entries
}

fn entry(choice: &Choice, said: Said) -> Entry {
    let mut entry = Entry {
        choice: choice.index,
        ..Entry::default()
    };
    match said {
        Said::Text(text) => entry.token = text.into(),
        Said::Thought(thought) => entry.event = Some(Event::Reasoning(thought)),
        Said::Call(delta) => entry.event = Some(Event::ToolCall(Box::new(delta))),
    }
    entry
}
