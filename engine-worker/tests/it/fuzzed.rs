//! Whatever a server streams, it is understood or refused, and the same however its bytes are cut. [`check`] is also what
//! `services/trial/fuzz` calls with inputs that libFuzzer makes.

use engine_worker::openai::{Dialect, understand};
use proto::v1::entry::Event;

const DIALECTS: [Dialect; 3] = [Dialect::Chat, Dialect::Responses, Dialect::Messages];

/// Reads of so many bytes.
const CUTS: [usize; 3] = [1, 7, 4096];

/// Judges one input: a stream, as it may come in any dialect, of an answer with one choice or two.
pub(crate) fn check(stream: &[u8]) {
    for dialect in DIALECTS {
        for choices in [1, 2] {
            check_as(dialect, choices, stream);
        }
    }
}

fn check_as(dialect: Dialect, choices: u32, stream: &[u8]) {
    let whole = understand(dialect, choices, [stream]);
    for cut in CUTS {
        assert_eq!(understand(dialect, choices, stream.chunks(cut)), whole, "the cuts are seen");
    }
    let mut calls = vec![0; choices as usize];
    for entry in &whole.0 {
        assert!(entry.choice < choices, "a choice that nobody asked for");
        assert!(!entry.is_terminal(), "an end among the entries");
        if let Some(Event::ToolCall(piece)) = &entry.event {
            let begun = &mut calls[entry.choice as usize];
            assert!(piece.index <= *begun, "calls are numbered densely");
            let first = piece.index == *begun;
            assert_eq!(!piece.id.is_empty(), first, "an id comes with the first piece, and only there");
            *begun += u32::from(first);
        }
    }
    if let Ok(ends) = &whole.1 {
        assert_eq!(ends.len(), choices as usize, "each choice has its end");
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// Streams of the real APIs.
    const SEEDS: [&[u8]; 8] = [
        include_bytes!("../../transcripts/chat_text.sse"),
        include_bytes!("../../transcripts/chat_tools.sse"),
        include_bytes!("../../transcripts/chat_odd.sse"),
        include_bytes!("../../transcripts/responses_text.sse"),
        include_bytes!("../../transcripts/responses_tools.sse"),
        include_bytes!("../../transcripts/responses_failed.sse"),
        include_bytes!("../../transcripts/messages_tools.sse"),
        include_bytes!("../../transcripts/messages_overloaded.sse"),
    ];
    /// What breaks parsers.
    const TOKENS: [&str; 14] = [
        "null",
        "-1",
        "4294967296",
        "1e99",
        "\"",
        "[",
        "{",
        "\\u0000",
        "é",
        "true",
        "\n",
        "\r",
        "\n\n",
        "data: [DONE]\n\n",
    ];

    fn changed(seed: &[u8], changes: &[(prop::sample::Index, usize, &str)]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        for (at, gone, token) in changes {
            let at = at.index(bytes.len() + 1);
            let end = (at + gone).min(bytes.len());
            bytes.splice(at..end, token.bytes());
        }
        bytes
    }

    proptest! {
        #[test]
        fn any_change_of_a_real_stream_is_understood_or_refused(
            seed in select(&SEEDS[..]),
            changes in prop::collection::vec((any::<prop::sample::Index>(), 0_usize..12, select(&TOKENS[..])), 0..6),
        ) {
            check(&changed(seed, &changes));
        }

        #[test]
        fn any_bytes_are_understood_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            check(&bytes);
        }
    }
}
