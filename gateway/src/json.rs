//! Writing JSON straight into a stream's buffer: the few shapes that go out once for every token. All else uses `serde_json`.

use bytes::{BufMut as _, BytesMut};
use serde::Serialize;

/// Writes `text` as a JSON string, quotes and all.
pub(crate) fn string(out: &mut BytesMut, text: &str) {
    out.reserve(text.len() + 2);
    out.put_u8(b'"');
    let bytes = text.as_bytes();
    let mut plain = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        if byte >= 0x20 && byte != b'"' && byte != b'\\' {
            continue;
        }
        out.extend_from_slice(&bytes[plain..at]);
        plain = at + 1;
        match byte {
            b'"' => out.extend_from_slice(b"\\\""),
            b'\\' => out.extend_from_slice(b"\\\\"),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            _ => {
                const HEX: &[u8; 16] = b"0123456789abcdef";
                out.extend_from_slice(b"\\u00");
                out.put_u8(HEX[usize::from(byte >> 4)]);
                out.put_u8(HEX[usize::from(byte & 15)]);
            }
        }
    }
    out.extend_from_slice(&bytes[plain..]);
    out.put_u8(b'"');
}

/// Writes a number.
pub(crate) fn number(out: &mut BytesMut, number: u32) {
    let mut digits = [0_u8; 10];
    let mut at = digits.len();
    let mut left = number;
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(left % 10).unwrap_or(0);
        left /= 10;
        if left == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

/// Writes anything else.
pub(crate) fn value(out: &mut BytesMut, value: &impl Serialize) {
    // A buffer in memory takes everything, and what is written here has no keys that are not strings.
    let _ = serde_json::to_writer(out.writer(), value);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_string_is_written_as_serde_json_writes_it(text in "(?s)[\\x00-\\x7f]{0,20}|.{0,20}") {
            let mut out = BytesMut::new();
            string(&mut out, &text);
            prop_assert_eq!(out, serde_json::to_string(&text).unwrap().into_bytes());
        }

        #[test]
        fn a_number_is_written_as_serde_json_writes_it(n: u32) {
            let mut out = BytesMut::new();
            number(&mut out, n);
            prop_assert_eq!(out, n.to_string().into_bytes());
        }
    }
}
