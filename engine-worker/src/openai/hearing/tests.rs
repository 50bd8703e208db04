//! Streams as the real servers send them, and what comes of them: each as a whole, cut anywhere, and broken off anywhere.

use std::fmt::Write as _;

use proptest::prelude::*;
use proto::v1::{Entry, entry::Event};

use super::*;

/// A stream that ends well, and what it says.
struct Transcript {
    dialect: Dialect,
    bytes: &'static [u8],
    says: &'static [&'static str],
}

macro_rules! transcript {
    ($name:literal) => {
        include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/transcripts/", $name, ".sse"))
    };
}

const CALLS: [&str; 7] = [
    "thought Two cities,",
    "thought  two calls.",
    "call 0 call_0 weather ",
    r#"call 0   {"city":"#,
    r#"call 0   "Paris"}"#,
    "call 1 call_1 clock {}",
    "end ToolCalls",
];

fn transcripts() -> Vec<Transcript> {
    let transcript = |dialect, bytes, says| Transcript { dialect, bytes, says };
    vec![
        transcript(
            Dialect::Chat,
            transcript!("chat_text"),
            &["text Grüße", "text  🙂", "end Stop END", "usage 37 11 4 5"],
        ),
        transcript(
            Dialect::Chat,
            transcript!("chat_tools"),
            const {
                &[
                    CALLS[0],
                    CALLS[1],
                    CALLS[2],
                    CALLS[3],
                    CALLS[4],
                    CALLS[5],
                    CALLS[6],
                    "usage 37 11 4 5",
                ]
            },
        ),
        transcript(
            Dialect::Chat,
            transcript!("chat_odd"),
            const {
                &[
                    CALLS[0],
                    CALLS[1],
                    CALLS[2],
                    CALLS[3],
                    CALLS[4],
                    "call 1 call_chatcmpl-9f_0_1 clock {}",
                    CALLS[6],
                    "usage 37 11 0 0",
                ]
            },
        ),
        transcript(
            Dialect::Responses,
            transcript!("responses_text"),
            &["text Grüße -0.25 Hallo -1.5", "text  🙂", "end Stop", "usage 37 11 4 5"],
        ),
        transcript(
            Dialect::Responses,
            transcript!("responses_tools"),
            const {
                &[
                    CALLS[0],
                    CALLS[1],
                    CALLS[2],
                    CALLS[3],
                    CALLS[4],
                    "call 1 call_1 clock ",
                    "call 1   {}",
                    CALLS[6],
                    "usage 37 11 4 5",
                ]
            },
        ),
        transcript(
            Dialect::Responses,
            transcript!("responses_incomplete"),
            &["text Gr", "end Length", "usage 37 11 4 5"],
        ),
        transcript(
            Dialect::Messages,
            transcript!("messages_text"),
            &["text Grüße", "text  🙂", "end Stop END", "usage 75 15 0 40"],
        ),
        transcript(
            Dialect::Messages,
            transcript!("messages_tools"),
            &[
                "thought Two cities,",
                "thought  two calls.",
                "text Let me look.",
                "call 0 toolu_01A weather ",
                r#"call 0   {"city": "Pa"#,
                r#"call 0   ris"}"#,
                "call 1 toolu_01B clock ",
                "call 1   {}",
                "end ToolCalls",
                "usage 75 89 12 40",
            ],
        ),
    ]
}

/// An entry in a line.
fn line(entry: &Entry) -> String {
    let mut line = match &entry.event {
        None => format!("text {}", entry.token),
        Some(Event::Reasoning(text)) => format!("thought {text}"),
        Some(Event::ToolCall(call)) => format!("call {} {} {} {}", call.index, call.id, call.name, call.arguments),
        Some(other) => panic!("a server does not say {other:?}"),
    };
    for logprob in &entry.logprobs {
        let _ = write!(line, " {}", logprob.logprob);
        for top in &logprob.top {
            let _ = write!(line, " {} {}", top.token, top.logprob);
        }
    }
    line
}

/// All that comes of the pieces of a stream, as lines; its failure is the last.
fn heard(dialect: Dialect, pieces: &[&[u8]]) -> Vec<String> {
    let mut hearing = Hearing::new(dialect, 1);
    let fed = pieces.iter().try_for_each(|piece| hearing.feed(piece));
    let told = hearing.told;
    let mut lines: Vec<String> = told.entries.iter().map(line).collect();
    match fed.and_then(|()| told.ends()) {
        Err(failure) => lines.push(format!("failed {failure}")),
        Ok(ends) => lines.push(format!("end {:?} {}", ends[0].reason(), ends[0].stop).trim_end().to_owned()),
    }
    if let Some(usage) = told.usage {
        let counts = [
            usage.prompt_tokens,
            usage.completion_tokens,
            usage.reasoning_tokens,
            usage.cached_tokens,
        ];
        lines.push(format!("usage {}", counts.map(|count| count.to_string()).join(" ")));
    }
    lines
}

#[test]
fn each_transcript_says_what_it_should_and_then_is_done() {
    for transcript in transcripts() {
        assert_eq!(heard(transcript.dialect, &[transcript.bytes]), transcript.says);
        let mut hearing = Hearing::new(transcript.dialect, 1);
        hearing.feed(transcript.bytes).unwrap();
        assert!(hearing.told.done, "nothing more is waited for: {:?}", transcript.says);
    }
}

#[test]
fn a_stream_that_breaks_off_before_its_end_is_a_failure_wherever_it_does() {
    for transcript in transcripts() {
        let whole = heard(transcript.dialect, &[transcript.bytes]);
        let ending = whole.iter().position(|line| line.starts_with("end ")).unwrap();
        for keep in 0..transcript.bytes.len() {
            let part = heard(transcript.dialect, &[&transcript.bytes[..keep]]);
            if let Some(at) = part.iter().position(|line| line.starts_with("end ")) {
                assert_eq!(part[..=at], whole[..=ending], "an end comes only after all that is said");
                continue;
            }
            let said = part.iter().position(|line| line.starts_with("failed ")).unwrap();
            assert!(part[said].contains("ended before the answer did"), "{}", part[said]);
            assert_eq!(part[..said], whole[..said], "what came before stands");
        }
    }
}

#[test]
fn a_failure_in_the_middle_keeps_what_was_said_and_has_its_reason() {
    for (dialect, bytes, says) in [
        (
            Dialect::Messages,
            &transcript!("messages_overloaded")[..],
            "failed queue_full: the server behind this worker takes no more: Overloaded",
        ),
        (
            Dialect::Responses,
            transcript!("responses_failed"),
            "failed queue_full: the server behind this worker takes no more: Slow down, please.",
        ),
        (
            Dialect::Responses,
            transcript!("responses_error"),
            "failed upstream_error: the server behind this worker broke off: The model broke.",
        ),
        (
            Dialect::Responses,
            b"data: {\"type\":\"error\",\"error\":{\"type\":\"invalid_request_error\",\"message\":\"no\"}}\n\n",
            "failed invalid_request: no",
        ),
        (
            Dialect::Responses,
            b"data: {\"type\":\"response.incomplete\",\"response\":{\"incomplete_details\":{\"reason\":\"steered\"}}}\n\n",
            "failed upstream_error: the server left the answer incomplete: steered",
        ),
        (
            Dialect::Chat,
            b"data: {\"object\":\"error\",\"message\":\"boom\",\"type\":\"InternalServerError\",\"code\":500}\n\ndata: [DONE]\n\n",
            "failed upstream_error: the server behind this worker failed with status 500: boom",
        ),
        (
            Dialect::Chat,
            b"data: {\"error\":\"out of memory\"}\n\n",
            "failed upstream_error: the server behind this worker broke off: out of memory",
        ),
        (
            Dialect::Chat,
            b"data: not JSON\n\n",
            "failed upstream_error: the server sent an event that cannot be read",
        ),
        (
            Dialect::Messages,
            b"data: []\n\n",
            "failed upstream_error: the server sent an event that cannot be read",
        ),
    ] {
        let lines = heard(dialect, &[bytes]);
        let failed = lines.iter().find(|line| line.starts_with("failed ")).unwrap();
        assert!(failed.starts_with(says), "{failed}");
        if String::from_utf8_lossy(bytes).contains("Gr") {
            assert_eq!(lines[0], "text Gr");
        }
    }
}

#[test]
fn how_a_message_ends_is_told_in_the_journals_words() {
    for (word, reason) in [
        ("end_turn", "end Stop"),
        ("pause_turn", "end Stop"),
        ("max_tokens", "end Length"),
        ("model_context_window_exceeded", "end Length"),
        ("refusal", "end ContentFilter"),
        ("tool_use", "end ToolCalls"),
    ] {
        let event =
            format!("data: {{\"type\":\"message_delta\",\"delta\":{{\"stop_reason\":\"{word}\"}},\"usage\":{{\"output_tokens\":3}}}}\n\n");
        assert_eq!(heard(Dialect::Messages, &[event.as_bytes()])[0], reason);
    }
}

#[test]
fn calls_whose_arguments_come_at_once_are_told_once() {
    let whole_item = concat!(
        "data: {\"type\":\"response.output_item.done\",\"output_index\":0,\"item\":{\"type\":\"function_call\",",
        "\"call_id\":\"c\",\"name\":\"f\",\"arguments\":\"{}\"}}\n\n",
        "data: {\"type\":\"response.completed\",\"response\":{}}\n\n",
    );
    assert_eq!(
        heard(Dialect::Responses, &[whole_item.as_bytes()]),
        ["call 0 c f {}", "end ToolCalls"]
    );
    let whole_input = concat!(
        "data: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"tool_use\",\"id\":\"c\",\"name\":\"f\",\"input\":{\"a\":1}}}\n\n",
        "data: {\"type\":\"content_block_stop\",\"index\":0}\n\n",
        "data: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\"}}\n\n",
    );
    let lines = heard(Dialect::Messages, &[whole_input.as_bytes()]);
    assert_eq!(lines[..3], ["call 0 c f ", "call 0   {\"a\":1}", "end ToolCalls"]);
}

proptest! {
    #[test]
    fn any_cutting_of_the_bytes_gives_the_same_entries(
        which in any::<prop::sample::Index>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let transcripts = transcripts();
        let transcript = which.get(&transcripts);
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(transcript.bytes.len() + 1)).collect();
        cuts.extend([0, transcript.bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &transcript.bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(heard(transcript.dialect, &pieces), transcript.says);
    }
}
