//! The name of an event in a stream that can be resumed: what `id:` says, and what `Last-Event-ID` brings back.
//!
//! It is `<stream_id>.<position>` on the last event of an entry, and `<stream_id>.<position>.<count>` on one before it: so many events
//! of that position have come. What opens a stream counts to position 0. So after any event it is known exactly what the rest is.
//! [`crate::sse`] writes ids, [`crate::comeback`] reads them.

use std::{fmt, num::NonZeroU32, str::FromStr};

/// The longest name of an answer, in bytes.
const STREAM_ID: usize = 128;

/// The name of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EventId {
    /// The answer.
    pub(crate) stream_id: String,
    position: u32,
    /// `None`: all events of the position have come.
    count: Option<NonZeroU32>,
}

impl EventId {
    /// Where the rest begins: the position of its first entry, and how many events of that the client has.
    pub(crate) fn rest(&self) -> (u32, u32) {
        match self.count {
            None => (self.position + 1, 0),
            Some(count) => (self.position, count.get()),
        }
    }
}

/// It is no name of an event.
#[derive(Debug)]
pub(crate) struct NoEventId;

impl FromStr for EventId {
    type Err = NoEventId;

    fn from_str(text: &str) -> Result<Self, NoEventId> {
        let mut parts = text.split('.');
        let stream_id = parts.next().filter(|id| is_stream_id(id)).ok_or(NoEventId)?;
        let position = parts
            .next()
            .and_then(number)
            .filter(|position| *position < u32::MAX)
            .ok_or(NoEventId)?;
        let count = match parts.next() {
            None => None,
            Some(count) => Some(number(count).and_then(NonZeroU32::new).ok_or(NoEventId)?),
        };
        if parts.next().is_some() {
            return Err(NoEventId);
        }
        Ok(Self {
            stream_id: stream_id.to_owned(),
            position,
            count,
        })
    }
}

/// Whether an answer may be called so.
pub(crate) fn is_stream_id(text: &str) -> bool {
    (1..=STREAM_ID).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-:".contains(&byte))
}

/// A number as it is written here: without a sign, and without zeros before it.
fn number(text: &str) -> Option<u32> {
    let canonical = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    if canonical { text.parse().ok() } else { None }
}

impl fmt::Display for EventId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.stream_id, self.position)?;
        match self.count {
            None => Ok(()),
            Some(count) => write!(f, ".{count}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Option<EventId> {
        text.parse().ok()
    }

    #[test]
    fn the_rest_begins_after_the_event() {
        assert_eq!(parse("abc.41").map(|id| id.rest()), Some((42, 0)));
        assert_eq!(parse("a-b_c:d.0.2").map(|id| id.rest()), Some((0, 2)));
        for bad in [
            "",
            "abc",
            "abc.",
            ".1",
            "abc.-1",
            "abc.+1",
            "abc.01",
            "abc.4294967295",
            "abc.1.0",
            "abc.1.2.3",
            "a b.1",
            "é.1",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
        assert!(parse(&format!("{}.1", "x".repeat(129))).is_none());
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(stream_id in "[A-Za-z0-9_:-]{1,128}", position in 0..u32::MAX, count: u32) {
            let id = EventId { stream_id, position, count: NonZeroU32::new(count) };
            prop_assert_eq!(parse(&id.to_string()), Some(id));
        }

        #[test]
        fn what_is_read_is_what_would_be_written(text in "(?s).{0,40}|[a-z]{0,3}[.][0-9+-]{0,12}[.]?[0-9]{0,3}[.]?") {
            if let Some(id) = parse(&text) {
                prop_assert_eq!(id.to_string(), text);
            }
        }
    }
}
