//! An answer that has ended, told again as entries from what the store has of it: its message, its end and its usage. Pure.

use proto::v1::{ChoiceEnd, Entry, Failure, FinishReason, Reason, StoredAnswer, ToolCallDelta, entry::Event};

/// All of an answer that the store knows without its entries: one for each thing that was said, and its end.
pub(super) fn entries(answer: &StoredAnswer) -> Vec<Entry> {
    let mut entries = said(answer);
    entries.push(end(answer));
    entries
}

fn said(answer: &StoredAnswer) -> Vec<Entry> {
    let Some(message) = &answer.message else { return Vec::new() };
    let mut entries = Vec::new();
    let mut push = |token: &str, event| {
        entries.push(Entry {
            token: token.into(),
            event,
            ..Entry::default()
        });
    };
    if !message.reasoning.is_empty() {
        push("", Some(Event::Reasoning(message.reasoning.clone())));
    }
    if !message.text.is_empty() {
        push(&message.text, None);
    }
    for (index, call) in (0..).zip(&message.tool_calls) {
        let whole = ToolCallDelta {
            index,
            id: call.id.clone(),
            name: call.name.clone(),
            arguments: call.arguments.clone(),
        };
        push("", Some(Event::ToolCall(Box::new(whole))));
    }
    entries
}

fn end(answer: &StoredAnswer) -> Entry {
    let usage = answer.usage.unwrap_or_default();
    match answer.state.as_str() {
        "cancelled" => Entry::cancelled(usage),
        "finished" => {
            let reason = match answer.finish_reason.as_str() {
                "length" => FinishReason::Length,
                "tool_calls" => FinishReason::ToolCalls,
                "content_filter" => FinishReason::ContentFilter,
                _ => FinishReason::Stop,
            };
            let end = ChoiceEnd {
                reason: reason.into(),
                ..ChoiceEnd::default()
            };
            let mut entry = Entry::finished(vec![end], usage);
            if let Some(Event::Finished(finished)) = &mut entry.event {
                finished.ended_ms = answer.updated_ms;
            }
            entry
        }
        _ => Entry::failed(Failure {
            usage: Some(usage),
            ..Failure::new(
                reason(&answer.finish_reason),
                "the answer broke off; what it said until then was saved",
            )
        }),
    }
}

/// The reason of that word.
fn reason(word: &str) -> Reason {
    (1..=i32::from(u8::MAX))
        .map_while(|number| Reason::try_from(number).ok())
        .find(|reason| reason.as_word() == word)
        .unwrap_or(Reason::Internal)
}

#[cfg(test)]
mod tests {
    use proto::v1::{Message, ToolCall};

    use super::*;
    use crate::door::responses::output::{How, Output};

    #[test]
    fn an_answer_without_its_entries_is_shown_by_what_was_said() {
        let answer = |state: &str, finish_reason: &str| StoredAnswer {
            state: state.to_owned(),
            finish_reason: finish_reason.to_owned(),
            message: Some(Message {
                text: "said".to_owned(),
                reasoning: "thought".to_owned(),
                tool_calls: vec![ToolCall {
                    id: "c".to_owned(),
                    name: "f".to_owned(),
                    arguments: "{}".to_owned(),
                }],
                ..Message::default()
            }),
            updated_ms: 5000,
            ..StoredAnswer::default()
        };
        let shown = |answer: &StoredAnswer| {
            let output = Output::of("s", &entries(answer));
            let types: Vec<String> = output
                .objects()
                .iter()
                .map(|item| item["type"].as_str().unwrap().to_owned())
                .collect();
            assert_eq!(types, ["reasoning", "message", "function_call"]);
            output.end().unwrap().clone()
        };
        let whole = shown(&answer("finished", "tool_calls"));
        assert!(matches!(whole.how, How::Completed) && whole.completed_at == Some(5));
        assert!(matches!(
            shown(&answer("finished", "length")).how,
            How::Incomplete("max_output_tokens")
        ));
        assert!(matches!(shown(&answer("cancelled", "cancelled")).how, How::Cancelled));
        assert!(matches!(
            shown(&answer("failed", "interrupted")).how,
            How::Failed { code: "interrupted", .. }
        ));
    }
}
