//! What entries come to.

use proto::v1::{Failure, Reason};

use super::*;

fn finished(reason: FinishReason) -> Entry {
    let end = ChoiceEnd {
        reason: reason.into(),
        ..ChoiceEnd::default()
    };
    Entry::finished(vec![end], Usage::default())
}

fn call(index: u32, id: &str, arguments: &str) -> Entry {
    Entry {
        event: Some(Event::ToolCall(Box::new(ToolCallDelta {
            index,
            id: id.to_owned(),
            name: if id.is_empty() { String::new() } else { "f".to_owned() },
            arguments: arguments.to_owned(),
        }))),
        ..Entry::default()
    }
}

fn shown(entries: &[Entry]) -> Vec<(String, String, String)> {
    let output = Output::of("s", entries);
    let item = |item: &Item| (item.id.clone(), item.text.clone(), item.status.to_owned());
    output.items.iter().map(item).collect()
}

#[test]
fn calls_that_are_made_at_the_same_time_keep_their_pieces_apart() {
    let entries = [
        Entry::text("Hm.", 1),
        call(0, "a", "{\"x\""),
        call(1, "b", "{}"),
        call(0, "", ":1}"),
        finished(FinishReason::ToolCalls),
    ];
    let item = |id: &str, text: &str| (id.to_owned(), text.to_owned(), "completed".to_owned());
    assert_eq!(
        shown(&entries),
        [item("msg_s_0", "Hm."), item("fc_s_0", "{\"x\":1}"), item("fc_s_1", "{}")]
    );
}

#[test]
fn a_whole_answer_that_said_nothing_is_an_empty_text() {
    assert_eq!(shown(&[finished(FinishReason::Stop)]).len(), 1);
    let broken = Entry::failed(Failure::new(Reason::WorkerLost, "gone"));
    assert!(shown(&[broken]).is_empty());
}

#[test]
fn what_was_cut_is_incomplete() {
    for end in [finished(FinishReason::Length), Entry::cancelled(Usage::default())] {
        assert_eq!(shown(&[Entry::text("a", 1), end])[0].2, "incomplete");
    }
}

fn likely(mut entry: Entry, token: &str) -> Entry {
    entry.logprobs.push(TokenLogprob {
        token: token.to_owned(),
        ..TokenLogprob::default()
    });
    entry
}

#[test]
fn log_probabilities_are_of_the_text_alone() {
    let held = |token: &str| likely(Entry::text("", 1), token);
    let thought = Entry {
        event: Some(Event::Reasoning("hm".to_owned())),
        ..Entry::default()
    };
    // Of the tokens whose text is held back, those before the thought and the call were marks.
    let entries = [
        held("<"),
        thought,
        held("a"),
        likely(Entry::text("ab", 2), "b"),
        held("["),
        call(0, "c", "{}"),
        finished(FinishReason::ToolCalls),
    ];
    let output = Output::of("s", &entries);
    let items: Vec<_> = output
        .items
        .iter()
        .map(|item| {
            let likely: Vec<_> = item.logprobs.iter().map(|likely| likely.token.as_str()).collect();
            (item.id.as_str(), likely)
        })
        .collect();
    assert_eq!(items, [("rs_s_0", vec![]), ("msg_s_0", vec!["a", "b"]), ("fc_s_0", vec![])]);
}
