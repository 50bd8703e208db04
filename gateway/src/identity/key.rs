//! An API key as a text: `ub_<environment>_<id>_<secret>`. The id finds what is known of it, and may be seen; the secret part is known to
//! its owner alone. Pure, but for the random numbers of a new one.

use std::fmt;

use super::secret::{Error, HASH, Secret, random};

/// How every key begins: so that a person, and whoever scans for lost secrets, knows what it is.
const PREFIX: &str = "ub_";
/// Characters of an id: 71 bits, so that two are never the same.
const ID: usize = 12;
/// Characters of the secret part: 190 bits, far past guessing.
const SECRET: usize = 32;
/// The longest name of an environment.
const ENVIRONMENT: usize = 16;
/// What ids and secrets are made of: letters and digits, so that a double click takes in each part.
const ALPHABET: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

/// A key that somebody presents, taken apart. Whether it is good is another question.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Parts<'a> {
    /// Where it is good: `live`, say.
    pub(super) environment: &'a str,
    /// Its id.
    pub(super) id: &'a str,
}

/// Whether a text means to be a key.
pub(super) fn looks_like_one(text: &str) -> bool {
    text.starts_with(PREFIX)
}

/// Takes a key apart. Nothing if it has not the form of one.
pub(super) fn parse(text: &str) -> Option<Parts<'_>> {
    let (environment, rest) = text.strip_prefix(PREFIX)?.split_once('_')?;
    let (id, secret) = rest.split_once('_')?;
    let well_formed = is_environment(environment) && is_code(id, ID) && is_code(secret, SECRET);
    well_formed.then_some(Parts { environment, id })
}

/// Whether an environment may be called so.
pub(super) fn is_environment(text: &str) -> bool {
    (1..=ENVIRONMENT).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
}

fn is_code(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// A key that was just made.
pub struct New {
    text: String,
    /// Its id.
    pub id: String,
    /// What the store keeps of it.
    pub hash: [u8; HASH],
}

impl New {
    /// Makes one for this environment.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn make(secret: &Secret, environment: &str) -> Result<Self, Error> {
        let id = code::<ID>()?;
        let text = format!("{PREFIX}{environment}_{id}_{}", code::<SECRET>()?);
        let hash = secret.hash_of_key(&text);
        Ok(Self { text, id, hash })
    }

    /// The key itself: for its owner, once.
    pub fn reveal(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for New {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "New({})", self.id)
    }
}

/// Random letters and digits, each as likely as any other.
fn code<const N: usize>() -> Result<String, Error> {
    let mut text = String::with_capacity(N);
    while text.len() < N {
        for byte in random::<64>()? {
            // Past the last whole round of the alphabet some characters would be likelier.
            if text.len() < N && usize::from(byte) < 256 - 256 % ALPHABET.len() {
                text.push(char::from(ALPHABET[usize::from(byte) % ALPHABET.len()]));
            }
        }
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_new_key_is_one_and_no_two_are_the_same() {
        let secret = Secret::random().unwrap();
        let (one, two) = (New::make(&secret, "live").unwrap(), New::make(&secret, "live").unwrap());
        let parts = parse(one.reveal()).unwrap();
        assert_eq!((parts.environment, parts.id), ("live", one.id.as_str()));
        assert!(secret.is_hash_of_key(&one.hash, one.reveal()));
        assert!(!secret.is_hash_of_key(&one.hash, two.reveal()) && one.id != two.id);
        assert!(
            !Secret::random().unwrap().is_hash_of_key(&one.hash, one.reveal()),
            "another secret, another hash"
        );
        assert!(!format!("{one:?} {secret:?}").contains(&one.reveal()[20..]));
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_none() {
        let good = format!("ub_live_{}_{}", "a".repeat(ID), "B".repeat(SECRET));
        assert!(parse(&good).is_some());
        for bad in [
            "",
            "ub_",
            "ub_live_x_y",
            "sk-proj-abc",
            &good[1..],
            &good[..good.len() - 1],
            &format!("{good}0"),
            &format!("{good} "),
            &good.replace("live", "Live"),
            &good.replace("live", ""),
            &good.replace('B', "ü"),
            &good.replace('B', "-"),
            &good.replace('a', "_"),
        ] {
            assert!(parse(bad).is_none(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_fall_over(text in "(?s).{0,80}|ub_[a-z0-9_]{0,40}_[A-Za-z0-9]{10,14}_[A-Za-z0-9_]{30,34}") {
            if let Some(parts) = parse(&text) {
                let again = format!("ub_{}_{}_", parts.environment, parts.id);
                prop_assert!(text.starts_with(&again) && text.len() == again.len() + SECRET);
                prop_assert!(text.is_ascii());
            }
        }

        #[test]
        fn one_changed_character_is_another_key(at in 0..40_usize, to in 0..62_usize) {
            let secret = Secret::new("0123456789abcdef0123456789abcdef").unwrap();
            let key = New::make(&secret, "live").unwrap();
            let mut bytes = key.reveal().as_bytes().to_vec();
            let at = bytes.len() - 1 - at;
            prop_assume!(bytes[at] != ALPHABET[to]);
            bytes[at] = ALPHABET[to];
            let changed = String::from_utf8(bytes).unwrap();
            prop_assert!(!secret.is_hash_of_key(&key.hash, &changed));
        }
    }
}
