//! Masks what must not stand in a log: e-mail addresses, telephone numbers and keys. Pure. [`crate::telemetry`] passes every log line and
//! every exported span through it; that is the last line of defence: no prompt, answer or key is given to them in the first place.
//!
//! Numbers are taken for a telephone's only where they are written as one (`+49 30 1234567`, `(555) 123-4567`, `555-123-4567`,
//! `0171 2345678`, `06 12 34 56 78`), so that ids, times and versions stay readable.

use std::borrow::Cow;

/// What stands for an address.
const EMAIL: &str = "[email]";
/// For a telephone number.
const PHONE: &str = "[phone]";
/// For a key, or what follows `Bearer`.
const KEY: &str = "[key]";
/// The fewest characters of a key after its prefix: shorter ones are words such as `sk-learn`.
const KEY_LENGTH: usize = 16;
/// Prefixes of keys: ours, those of the APIs whose clients come here, and of Amazon and GitHub, which people paste into prompts.
const PREFIXES: [&str; 9] = ["ub_", "sk-", "sk_", "AKIA", "ghp_", "gho_", "ghu_", "ghs_", "github_pat_"];

/// `text` with every address, telephone number and key masked.
pub fn mask(text: &str) -> Cow<'_, str> {
    let mut out = String::new();
    let mut done = 0;
    let mut at = 0;
    while let Some((start, end, mark)) = next(text, at) {
        out.push_str(&text[done..start.max(done)]);
        out.push_str(mark);
        done = end;
        at = end;
    }
    if done == 0 {
        return text.into();
    }
    out.push_str(&text[done..]);
    out.into()
}

/// The next thing to mask, at `from` or after: its ends, and what stands for it.
fn next(text: &str, from: usize) -> Option<(usize, usize, &'static str)> {
    let bytes = text.as_bytes();
    for at in from..bytes.len() {
        let found = match bytes[at] {
            b'@' => email(bytes, from, at).map(|(start, end)| (start, end, EMAIL)),
            b'+' | b'(' | b'0'..=b'9' if at == from || begins(bytes, at) => phone(bytes, at).map(|end| (at, end, PHONE)),
            b'u' | b's' | b'A' | b'g' if at == from || begins(bytes, at) => key(bytes, at).map(|end| (at, end, KEY)),
            b'e' if at == from || begins(bytes, at) => jwt(bytes, at).map(|end| (at, end, KEY)),
            b'B' | b'b' if at == from || begins(bytes, at) => bearer(bytes, at).map(|(start, end)| (start, end, KEY)),
            _ => None,
        };
        if found.is_some() {
            return found;
        }
    }
    None
}

/// Whether a word may begin at `at`, which is not the first byte.
fn begins(bytes: &[u8], at: usize) -> bool {
    !(bytes[at - 1].is_ascii_alphanumeric() || matches!(bytes[at - 1], b'-' | b'_' | b'.' | b'+'))
}

/// The address around the `@` at `at`.
fn email(bytes: &[u8], from: usize, at: usize) -> Option<(usize, usize)> {
    let local = |byte: &u8| byte.is_ascii_alphanumeric() || b".!#$&'*+-/=?^_`{|}~%".contains(byte) || *byte >= 0x80;
    let name = bytes[from..at].iter().rev().take_while(|byte| local(byte)).count();
    let host = bytes[at + 1..]
        .iter()
        .take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-') || **byte >= 0x80)
        .count();
    let domain = &bytes[at + 1..at + 1 + host];
    let dotted = domain.iter().rev().skip_while(|byte| **byte == b'.').any(|byte| *byte == b'.');
    (name > 0 && dotted).then_some((at - name, at + 1 + host))
}

/// The end of the telephone number that begins at `at`.
fn phone(bytes: &[u8], at: usize) -> Option<usize> {
    let groups = groups(bytes, at);
    let lengths: Vec<usize> = groups.iter().map(|(digits, _)| *digits).collect();
    let digits: usize = lengths.iter().sum();
    let international = bytes[at] == b'+' && (8..=15).contains(&digits);
    let american = bytes[at] != b'+' && lengths == [3, 3, 4];
    let count = if international || american {
        groups.len()
    } else {
        national(bytes, at, &lengths)?
    };
    let (_, end) = *groups.get(count.checked_sub(1)?)?;
    let word_goes_on = bytes.get(end).is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_');
    (!word_goes_on).then_some(end)
}

/// The groups of digits from `at` on, as they are written in a telephone number: how many digits each has, and where it ends.
fn groups(bytes: &[u8], at: usize) -> Vec<(usize, usize)> {
    let (mut groups, mut group, mut index) = (Vec::new(), 0, at);
    while let Some(byte) = bytes.get(index) {
        match byte {
            b'0'..=b'9' => group += 1,
            b'+' if index == at => {}
            b'(' if index == at || bytes[index - 1] == b' ' => {}
            b' ' | b'-' | b'.' | b'/' | b')' if group > 0 => {
                groups.push((group, index));
                group = 0;
            }
            b' ' if index > at && bytes[index - 1] == b')' => {}
            _ => break,
        }
        index += 1;
    }
    if group > 0 {
        groups.push((group, index));
    }
    groups
}

/// How many of these groups are a number as it is dialled within Europe: a zero, the rest of an area's or network's code, and more digits
/// after a gap. What is counted, and ids and times, begin with no zero, or have no gap there.
fn national(bytes: &[u8], at: usize, lengths: &[usize]) -> Option<usize> {
    let text = bytes[at..].strip_prefix(b"(").unwrap_or(&bytes[at..]);
    if !matches!(text, [b'0', b'1'..=b'9', ..]) {
        return None;
    }
    if lengths == [2; 5] {
        let is_of_more_pairs = at > 1 && bytes[at - 2].is_ascii_digit(); // of a dump of bytes
        return (!is_of_more_pairs).then_some(5);
    }
    let dotted = text.get(lengths[0]) == Some(&b'.'); // a decimal number, or a date
    let is_one = |count: &usize| {
        let digits: usize = lengths[..*count].iter().sum();
        (3..=5).contains(&lengths[0]) && lengths[1..*count].iter().all(|group| *group >= 2) && (9..=12).contains(&digits)
    };
    (2..=lengths.len().min(4)).rev().find(is_one).filter(|_| !dotted)
}

/// The end of the key that begins at `at`.
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    let prefix = PREFIXES.iter().find(|prefix| bytes[at..].starts_with(prefix.as_bytes()))?;
    let begin = at + prefix.len();
    let length = token(&bytes[begin..]);
    (length >= KEY_LENGTH).then_some(begin + length)
}

/// The end of the JSON Web Token at `at`: three or more parts in base64, the first of which is an object.
fn jwt(bytes: &[u8], at: usize) -> Option<usize> {
    let of_part = |byte: &&u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    let first = bytes[at..].iter().take_while(of_part).count();
    if !bytes[at..].starts_with(b"eyJ") || first < KEY_LENGTH {
        return None;
    }
    let (mut end, mut parts) = (at + first, 1);
    while bytes.get(end) == Some(&b'.') {
        let part = bytes[end + 1..].iter().take_while(of_part).count();
        if part == 0 {
            break;
        }
        parts += 1;
        end += 1 + part;
    }
    (parts >= 3).then_some(end)
}

/// What follows the word `Bearer` at `at`.
fn bearer(bytes: &[u8], at: usize) -> Option<(usize, usize)> {
    const WORD: &[u8] = b"bearer ";
    let word = bytes.get(at..at + WORD.len())?;
    if !word.eq_ignore_ascii_case(WORD) {
        return None;
    }
    let begin = at + WORD.len();
    let length = token(&bytes[begin..]);
    (length >= KEY_LENGTH).then_some((begin, begin + length))
}

fn token(bytes: &[u8]) -> usize {
    let of_token = |byte: &&u8| byte.is_ascii_alphanumeric() || b"-_.~+/=".contains(byte);
    bytes.iter().take_while(of_token).count()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn addresses_numbers_and_keys_are_masked() {
        let cases = [
            ("user ann.b+c@mail.example.com said", "user [email] said"),
            ("<ann@example.com>, bob@example.org", "<[email]>, [email]"),
            ("{\"user\":\"ann@example.com\"}", "{\"user\":\"[email]\"}"),
            ("jörg@exämple.de", "[email]"),
            ("call +49 (30) 1234567 now", "call [phone] now"),
            ("+14155550123", "[phone]"),
            ("call (415) 555-0123.", "call [phone]."),
            ("415-555-0123, 415.555.0123", "[phone], [phone]"),
            ("call 0171 2345678 30 times, or 030/1234567", "call [phone] 30 times, or [phone]"),
            ("(030) 1234567; 020 7946 0958; 07700 900123", "[phone]; [phone]; [phone]"),
            ("06 12 34 56 78, 06.12.34.56.78", "[phone], [phone]"),
            ("key ub_live_a1b2_0123456789abcdef!", "key [key]!"),
            ("sk-proj-0123456789abcdefghij", "[key]"),
            ("aws AKIAIOSFODNN7EXAMPLE", "aws [key]"),
            ("ghp_0123456789abcdefghijABCDEFGHIJ012345 pushed", "[key] pushed"),
            ("github_pat_11ABCDEFG0123456789_abcdef", "[key]"),
            ("got eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiJhbm4ifQ.c2ln-_A.", "got [key]."),
            ("Authorization: Bearer eyJhbGciOiJSUzI1NiJ9.e30.c2ln", "Authorization: Bearer [key]"),
        ];
        for (text, masked) in cases {
            assert_eq!(mask(text), masked);
        }
    }

    #[test]
    fn what_an_operator_needs_stays_readable() {
        let lines = [
            "2026-11-26T01:20:33.123456Z  INFO answer request_id=0f0e0d0c-0b0a-4908-8706-050403020100 stream_id=705d09b05c698fea8e704a475df527e9",
            "listening on 127.0.0.1:8080 and [::1]:50051, pid 12345",
            "model claude-3-5-sonnet-20241022, epoch 17, 1234567890 tokens, 3.14159265",
            "user@host is no address, nor is @decorator; sk-learn is no key",
            "trace 00-0123456789012345678901234567890a-0123456789012345-01",
            "1700000000000 0123456789012345 555-1234 1-2-3",
            "0.171 2345678 tokens, at 01.02.2026 12:30:00, 0930-1200, 07/08/2026, 00 01 02 03 04, 04 05 06 07 08 09",
            "eyJ is how a token begins, eyJhbGciOiJSUzI1NiJ9 its head; AKIA and ghp_ are prefixes",
        ];
        for line in lines {
            assert_eq!(mask(line), line);
        }
    }

    proptest! {
        #[test]
        fn any_text_around_an_address_leaves_it_masked(
            before in "[ -~ü]{0,20}",
            name in "[a-z][a-z0-9.+_-]{0,10}",
            host in "[a-z][a-z0-9-]{0,8}\\.(com|org|example)",
            after in "[ \",;)]{1}[ -~]{0,20}",
        ) {
            let text = format!("{before} {name}@{host}{after}");
            prop_assert!(!mask(&text).contains(&format!("{name}@{host}")), "{}", mask(&text));
        }

        #[test]
        fn any_text_around_a_key_leaves_it_masked(
            before in "[ -~]{0,20}",
            key in "ub_(live|test)_[a-z0-9]{8}_[A-Za-z0-9]{24,40}|sk-[A-Za-z0-9]{20,48}|AKIA[A-Z0-9]{16}|ghp_[A-Za-z0-9]{36}|eyJ[A-Za-z0-9_-]{20,40}\\.eyJ[A-Za-z0-9_-]{20,40}\\.[A-Za-z0-9_-]{20,40}",
            after in "[ \",;)]{1}[ -~]{0,20}",
        ) {
            let text = format!("{before} {key}{after}");
            let masked = mask(&text);
            prop_assert!(!masked.contains(&key), "{masked}");
        }

        #[test]
        fn counts_and_times_stay(counts in proptest::collection::vec(prop_oneof![Just(0_u64), 1..100_000_u64, 1_600_000_000_000..1_900_000_000_000_u64], 1..3)) {
            let line = counts.iter().map(|count| format!("tokens={count} took {count} ms")).collect::<Vec<_>>().join(" ");
            prop_assert_eq!(mask(&line), line.as_str());
        }

        #[test]
        fn masking_is_done_after_once(text in "(?s).{0,80}") {
            let once = mask(&text).into_owned();
            prop_assert_eq!(mask(&once).into_owned(), once.clone());
        }

        #[test]
        fn ids_of_ours_stay(number: u128) {
            let id = format!("{number:032x}");
            let line = format!("stream_id={id} trace_id=\"{id}\" at=\"{}-{}-{}\"", &id[..8], &id[8..12], &id[12..]);
            prop_assert_eq!(mask(&line), line.as_str());
        }
    }
}
