//! Tickets and stream tokens: short-lived credentials for a browser, which can set no header on a WebSocket or an `EventSource`. Whoever has
//! a key or a token gets them from `POST /v1/tickets`. Each is signed, says for whom and until when, and allows one thing: to open
//! one socket, to read one answer, or to start one and read it. Never to manage keys. Any gateway that shares the secret understands it.
//! Pure: the caller says what time it is.

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use proto::v1::Principal;
use serde::{Deserialize, Serialize};

use super::secret::Secret;

/// The longest token, in bytes: that of a principal with the longest names.
const LONGEST: usize = 4 * 1024;

/// What a token allows.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Grant {
    /// To open one socket. The number makes it one of a kind.
    Socket(String),
    /// To read this answer.
    Read(String),
    /// To start this answer by a request of which this is the fingerprint, in hexadecimal, and to read it.
    Start(String, String),
}

/// What a token says.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub(super) struct Token {
    #[serde(rename = "g")]
    pub(super) grant: Grant,
    #[serde(rename = "t")]
    pub(super) tenant: String,
    #[serde(rename = "u")]
    pub(super) user: String,
    #[serde(rename = "l")]
    pub(super) tier: Option<String>,
    /// The key that it was got with: where that is revoked, the token is no good either.
    #[serde(rename = "k")]
    pub(super) key: Option<String>,
    /// Until when who got it is known to be who they are, in milliseconds since 1970: a socket outlives its ticket.
    #[serde(rename = "e")]
    pub(super) until_ms: Option<i64>,
    /// Until when it is good, likewise.
    #[serde(rename = "x")]
    pub(super) expires_ms: i64,
}

impl Token {
    /// One that allows this to `principal`.
    pub(super) fn new(grant: Grant, principal: &Principal, expires_ms: i64) -> Self {
        Self {
            grant,
            tenant: principal.tenant.clone(),
            user: principal.user_id.clone(),
            tier: None,
            key: None,
            until_ms: None,
            expires_ms,
        }
    }

    /// For whom.
    pub(super) fn principal(&self) -> Principal {
        Principal {
            tenant: self.tenant.clone(),
            user_id: self.user.clone(),
        }
    }

    /// As a text, signed: letters, digits, `-`, `_` and one `.`, so that it may stand in an address or a subprotocol.
    pub(super) fn write(&self, secret: &Secret) -> String {
        let said = BASE64_URL_SAFE_NO_PAD.encode(serde_json::to_vec(self).unwrap_or_default());
        let signature = BASE64_URL_SAFE_NO_PAD.encode(secret.sign(said.as_bytes()));
        format!("{said}.{signature}")
    }

    /// What a text says that we have signed, and that is good at `now_ms`.
    pub(super) fn read(text: &str, secret: &Secret, now_ms: i64) -> Option<Self> {
        let (said, signature) = Some(text).filter(|text| text.len() <= LONGEST)?.split_once('.')?;
        let signature = BASE64_URL_SAFE_NO_PAD.decode(signature).ok()?;
        if !secret.has_signed(said.as_bytes(), &signature) {
            return None;
        }
        let token: Self = serde_json::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(said).ok()?).ok()?;
        (now_ms < token.expires_ms).then_some(token)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn secret() -> Secret {
        Secret::new("0123456789abcdef0123456789abcdef").unwrap()
    }

    fn token() -> Token {
        let principal = Principal {
            tenant: "acme".to_owned(),
            user_id: "ann".to_owned(),
        };
        Token::new(Grant::Start("answer".to_owned(), "f00d".to_owned()), &principal, 1_000)
    }

    #[test]
    fn a_token_is_good_until_its_time_and_only_under_its_secret() {
        let text = token().write(&secret());
        assert_eq!(Token::read(&text, &secret(), 999), Some(token()));
        assert_eq!(Token::read(&text, &secret(), 1_000), None);
        assert_eq!(Token::read(&text, &Secret::random().unwrap(), 999), None);
    }

    #[test]
    fn the_longest_names_fit() {
        let name = "\u{1F600}".repeat(64);
        let principal = Principal {
            tenant: name.clone(),
            user_id: name.clone(),
        };
        let grant = Grant::Start("x".repeat(128), "f".repeat(64));
        let longest = Token {
            tier: Some(name),
            key: Some("k".repeat(12)),
            until_ms: Some(i64::MAX),
            ..Token::new(grant, &principal, i64::MAX)
        };
        assert_eq!(Token::read(&longest.write(&secret()), &secret(), 0), Some(longest));
    }

    proptest! {
        #[test]
        fn a_changed_token_is_none(at in 0..200_usize, to in proptest::char::range('!', '~')) {
            let text = token().write(&secret());
            let mut changed: Vec<char> = text.chars().collect();
            let at = at % changed.len();
            changed[at] = to;
            let changed: String = changed.into_iter().collect();
            // Base64 ignores the last bits of a text whose length is no multiple of 4: ours does not.
            prop_assert_eq!(Token::read(&changed, &secret(), 0).is_some(), changed == text);
        }

        #[test]
        fn no_text_makes_the_reader_fall_over(text in "(?s).{0,80}|[A-Za-z0-9_-]{0,80}[.][A-Za-z0-9_-]{43}") {
            prop_assert!(Token::read(&text, &secret(), 0).is_none());
        }
    }
}
