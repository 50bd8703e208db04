//! Server-sent events from bytes that come in pieces (<https://html.spec.whatwg.org/multipage/server-sent-events.html>).
//!
//! Only `data` matters to the callers, so that is all that is kept. Lines may end with LF, CR or both, anywhere; what the stream
//! breaks off in the middle of is no event. Nothing is decoded: a character may be split between two pieces.

/// The most bytes of one event: far more than any token brings, and a bound on what a broken server can make us keep.
const EVENT_BYTES: usize = 1024 * 1024;

/// An event is longer than [`EVENT_BYTES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooLong;

/// What has come of the event at hand.
#[derive(Debug, Default)]
pub(super) struct Events {
    line: Vec<u8>,
    data: Vec<u8>,
    has_data: bool,
    after_cr: bool,
    begun: bool,
}

impl Events {
    /// Takes a piece and hands over the data of each event that it completes.
    ///
    /// # Errors
    /// [`TooLong`].
    pub(super) fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(Vec<u8>)) -> Result<(), TooLong> {
        while let Some(first) = piece.first() {
            if std::mem::take(&mut self.after_cr) && *first == b'\n' {
                piece = &piece[1..];
                continue;
            }
            let end = piece.iter().position(|byte| matches!(byte, b'\n' | b'\r'));
            self.line.extend_from_slice(&piece[..end.unwrap_or(piece.len())]);
            if self.line.len() + self.data.len() > EVENT_BYTES {
                return Err(TooLong);
            }
            let Some(end) = end else { break };
            self.after_cr = piece[end] == b'\r';
            piece = &piece[end + 1..];
            if let Some(data) = self.end_line() {
                take(data);
            }
        }
        Ok(())
    }

    fn end_line(&mut self) -> Option<Vec<u8>> {
        let mut line = std::mem::take(&mut self.line);
        let text = if self.begun {
            &line[..]
        } else {
            line.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&line)
        };
        self.begun = true;
        if text.is_empty() {
            let had_data = std::mem::take(&mut self.has_data);
            return had_data.then(|| std::mem::take(&mut self.data));
        }
        let (field, value) = match text.iter().position(|byte| *byte == b':') {
            Some(colon) => (&text[..colon], &text[colon + 1..]),
            None => (text, &[][..]),
        };
        if field == b"data" {
            if std::mem::replace(&mut self.has_data, true) {
                self.data.push(b'\n');
            }
            self.data.extend_from_slice(value.strip_prefix(b" ").unwrap_or(value));
        }
        line.clear();
        self.line = line; // its room is used again
        None
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn events(pieces: &[&[u8]]) -> Vec<String> {
        let (mut events, mut all) = (Events::default(), Vec::new());
        for piece in pieces {
            events.feed(piece, |data| all.push(String::from_utf8(data).unwrap())).unwrap();
        }
        all
    }

    #[test]
    fn only_data_is_kept_and_an_event_ends_with_an_empty_line() {
        let text = "\u{feff}: hello\nevent: x\ndata: a\ndata:b\n\nid: 7\n\ndata\n\ndata: cut off";
        assert_eq!(events(&[text.as_bytes()]), ["a\nb", ""]);
    }

    #[test]
    fn lines_end_with_lf_cr_or_both() {
        assert_eq!(events(&[b"data: a\r\rdata: b\r\n\r\ndata: c\n\n"]), ["a", "b", "c"]);
        assert_eq!(events(&[b"data: a\r", b"\n\r", b"\ndata: b\n\n"]), ["a", "b"]);
    }

    #[test]
    fn an_endless_event_is_refused() {
        let mut events = Events::default();
        let long = vec![b'x'; EVENT_BYTES / 2 + 1];
        events.feed(&long, |_| {}).unwrap();
        assert_eq!(events.feed(&long, |_| {}), Err(TooLong));
    }

    proptest! {
        #[test]
        fn any_split_of_the_bytes_gives_the_same_events(
            lines in proptest::collection::vec("(data: ?[aé\u{1f642}:]{0,4}|:c|event: e|)", 0..20),
            ends in proptest::collection::vec(prop_oneof![Just("\n"), Just("\r"), Just("\r\n")], 20),
            cuts in proptest::collection::vec(any::<proptest::sample::Index>(), 0..12),
        ) {
            let text: String = lines.iter().zip(&ends).flat_map(|(line, end)| [line.as_str(), *end]).collect();
            let bytes = text.as_bytes();
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
            prop_assert_eq!(events(&pieces), events(&[bytes]));
        }
    }
}
