//! Bytes to text: a token may end in the middle of a character, whose bytes are then held until the rest comes.
//!
//! [`Choice`](super::choice) uses it. A pure function of the bytes fed, however they are cut.

/// A decoder that holds at most the three bytes of an unfinished character.
#[derive(Clone, Debug, Default)]
pub(super) struct Utf8 {
    held: Vec<u8>,
}

impl Utf8 {
    /// Appends to `out` all whole characters that `bytes` completes. Bytes that can be no part of a character become U+FFFD.
    pub(super) fn feed(&mut self, bytes: &[u8], out: &mut String) {
        self.held.extend_from_slice(bytes);
        let mut rest = self.held.as_slice();
        loop {
            match std::str::from_utf8(rest) {
                Ok(text) => {
                    out.push_str(text);
                    self.held.clear();
                    return;
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    out.push_str(std::str::from_utf8(valid).unwrap_or_default());
                    let Some(wrong) = error.error_len() else {
                        self.held = after.to_vec();
                        return;
                    };
                    out.push(char::REPLACEMENT_CHARACTER);
                    rest = &after[wrong..];
                }
            }
        }
    }

    /// Nothing more comes: an unfinished character becomes U+FFFD.
    pub(super) fn flush(&mut self, out: &mut String) {
        if !self.held.is_empty() {
            self.held.clear();
            out.push(char::REPLACEMENT_CHARACTER);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn however_bytes_are_cut_the_text_is_that_of_the_whole(bytes in prop::collection::vec(any::<u8>(), 0..40), text in ".{0,20}", cut in 1usize..5) {
            for bytes in [bytes.as_slice(), text.as_bytes()] {
                let mut utf8 = Utf8::default();
                let mut out = String::new();
                for piece in bytes.chunks(cut) {
                    utf8.feed(piece, &mut out);
                }
                utf8.flush(&mut out);
                prop_assert_eq!(&out, &String::from_utf8_lossy(bytes));
            }
        }
    }

    #[test]
    fn a_character_comes_out_whole() {
        let mut utf8 = Utf8::default();
        let mut out = String::new();
        utf8.feed(&"é".as_bytes()[..1], &mut out);
        assert_eq!(out, "");
        utf8.feed(&"é".as_bytes()[1..], &mut out);
        assert_eq!(out, "é");
    }
}
