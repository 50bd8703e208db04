//! `Idempotency-Key`: the same request sent twice is answered once. The name of the answer follows from the key and from who sends
//! it, so that a repetition meets the first request wherever it arrives, and a hash of what was asked shows whether it is one
//! (after <https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/>).

use http::StatusCode;
use proto::v1::{Failure, Principal, Reason};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::failure::Refusal;

/// The longest key, in bytes.
const KEY: usize = 255;

/// A key as a client chose it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key(String);

impl Key {
    /// The key that `param` holds.
    ///
    /// # Errors
    /// It is empty, too long, or not printable ASCII.
    pub(crate) fn parse(param: &str, text: &[u8]) -> Result<Self, Refusal> {
        let printable = text.iter().all(|byte| (b' '..=b'~').contains(byte));
        match std::str::from_utf8(text) {
            Ok(key) if printable && (1..=KEY).contains(&key.len()) => Ok(Self(key.to_owned())),
            _ => {
                let message = format!("{param}: expected 1 to {KEY} characters of printable ASCII");
                Err(Refusal::invalid(param, message))
            }
        }
    }

    /// The name of the answer that this key of `principal` stands for.
    pub(crate) fn stream_id(&self, principal: &Principal) -> String {
        let mut hash = Sha256::new();
        for part in [principal.tenant.as_str(), principal.user_id.as_str(), self.0.as_str()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let mut bytes = [0; 16];
        for (byte, hashed) in bytes.iter_mut().zip(hash.finalize()) {
            *byte = hashed;
        }
        uuid::Builder::from_custom_bytes(bytes).into_uuid().simple().to_string()
    }
}

/// Whether an answer has its name from a key, so that more than one request may have asked for it.
pub(crate) fn is_of_key(stream_id: &str) -> bool {
    let name = stream_id
        .get(..uuid::fmt::Simple::LENGTH)
        .and_then(|name| uuid::Uuid::try_parse(name).ok());
    name.is_some_and(|name| name.get_version() == Some(uuid::Version::Custom))
}

/// A hash of what was asked: the order of fields and the space between them don't matter.
pub(crate) fn fingerprint(asked: &Value) -> Vec<u8> {
    let mut text = Vec::new();
    canonical(asked, &mut text);
    Sha256::digest(&text).to_vec()
}

/// Writes a value in the one way, with the names of each object in order.
fn canonical(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Array(items) => {
            out.push(b'[');
            for item in items {
                canonical(item, out);
                out.push(b',');
            }
            out.push(b']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_by_key(|(name, _)| *name);
            out.push(b'{');
            for (name, value) in fields {
                out.extend_from_slice(Value::from(name.as_str()).to_string().as_bytes());
                out.push(b':');
                canonical(value, out);
                out.push(b',');
            }
            out.push(b'}');
        }
        plain => out.extend_from_slice(plain.to_string().as_bytes()),
    }
}

/// A refusal to start an answer, in the words of who sent a key.
pub(crate) fn refused(failure: Failure) -> Refusal {
    if failure.reason() == Reason::Conflict && failure.param == "fingerprint" {
        let message = "this Idempotency-Key was used for another request: send that one again, or choose a new key";
        return Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, "idempotency_key_reused", message);
    }
    failure.into()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_key_is_printable_and_not_too_long() {
        for good in ["1", "a key with spaces", "~", "x".repeat(255).as_str()] {
            assert!(Key::parse("k", good.as_bytes()).is_ok(), "{good}");
        }
        for bad in [&b""[..], b"tab\t", b"caf\xc3\xa9", b"\xff", &[b'x'; 256]] {
            assert_eq!(Key::parse("k", bad).unwrap_err().object()["param"], "k");
        }
    }

    #[test]
    fn the_same_key_of_another_principal_is_another_answer() {
        let id = |key: &str, tenant: &str, user: &str| {
            let principal = Principal {
                tenant: tenant.to_owned(),
                user_id: user.to_owned(),
            };
            Key(key.to_owned()).stream_id(&principal)
        };
        // Every gateway must come to the same name, so the hash is never changed.
        assert_eq!(id("key", "", ""), "705d09b05c698fea8e704a475df527e9");
        let all = [
            id("k", "a", "b"),
            id("k", "ab", ""),
            id("bk", "a", ""),
            id("k", "", "ab"),
            id("k", "a", ""),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert!(
            all.iter()
                .all(|id| crate::event_id::is_stream_id(id) && is_of_key(id) && is_of_key(&format!("{id}-1")))
        );
        assert!(!is_of_key(&uuid::Uuid::now_v7().simple().to_string()) && !is_of_key("a"));
    }

    #[test]
    fn only_what_is_asked_counts() {
        let one: Value = serde_json::from_str(r#"{"a": 1, "b": {"c": [1, "x"], "d": null}}"#).unwrap();
        let two: Value = serde_json::from_str(r#"{"b":{"d":null,"c":[1,"x"]},"a":1}"#).unwrap();
        assert_eq!(fingerprint(&one), fingerprint(&two));
        for other in [
            json!({"a": 1}),
            json!({"a": "1"}),
            json!([["a"], 1]),
            json!([["a", 1]]),
            json!({"a": [1]}),
        ] {
            assert_ne!(fingerprint(&one), fingerprint(&other));
        }
    }
}
