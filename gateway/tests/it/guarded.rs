//! Whatever a client shows and asks, nobody gets in who has nothing good to show: keys, tokens of an identity provider, tickets, and the cursors
//! of lists, before a real store. [`Guarded::check`] is also what `services/trial/fuzz` calls with inputs that libFuzzer makes.
//!
//! An input is a request as in [`crate::fuzzed`]; `$KEY` and `$JWT` in it stand for credentials that are good, of an admin and of a user.

use std::{str::FromStr as _, time::Duration};

use axum::body::Body;
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use chassis::drain::Drain;
use gateway::identity::{NewKey, Secret};
use http::{Request, StatusCode};
use proto::v1::{ApiKey, CreateKeyRequest, KeyRole, Principal, conversation_service_client::ConversationServiceClient};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;

use crate::fuzzed::{Doors, request};

const SECRET: &str = "a-key-secret-of-thirty-two-characters-and-more";
/// Where those who are known find what is theirs.
const THEIRS: [&str; 5] = ["/v1/", "/chat", "/stream", "/ws/", "/conversations"];

/// The doors of a gateway that asks who calls, and a store behind it.
pub(crate) struct Guarded {
    doors: Doors,
    key: String,
    jwt: String,
    _folder: TempDir,
}

impl Guarded {
    pub(crate) fn open() -> Self {
        let folder = TempDir::new().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (key, store) = runtime.block_on(store(&folder));
        let provider = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "kid": "one", "x": encode(provider.public_key().as_ref())});
        let jwks = folder.path().join("jwks.json");
        std::fs::write(&jwks, json!({"keys": [jwk]}).to_string()).unwrap();
        let claims = json!({"iss": "i", "aud": "a", "exp": 4_102_444_800_u64, "sub": "ann"});
        let message = format!(
            "{}.{}",
            encode(br#"{"alg":"EdDSA","kid":"one"}"#),
            encode(claims.to_string().as_bytes())
        );
        let jwt = format!("{message}.{}", encode(provider.sign(message.as_bytes()).as_ref()));
        let jwks = jwks.to_str().unwrap();
        let settings = [
            "--auth",
            "on",
            "--key-secret",
            SECRET,
            "--jwt-jwks",
            jwks,
            "--jwt-issuer",
            "i",
            "--jwt-audience",
            "a",
        ];
        let settings = [&settings[..], &["--limits", "off", "--gateway-store", &store]].concat();
        Self {
            doors: Doors::with(runtime, &settings),
            key,
            jwt,
            _folder: folder,
        }
    }

    /// Judges one input, and tells the status that it got; `None` for what is no request.
    pub(crate) fn check(&self, input: &[u8]) -> Option<StatusCode> {
        let input = replace(&replace(input, b"$KEY", &self.key), b"$JWT", &self.jwt);
        let request = request(&input)?;
        let theirs = THEIRS.iter().any(|path| request.uri().path().starts_with(path));
        let shown = self.is_shown(&request);
        let status = self.doors.ask(request);
        assert!(shown || !theirs || !status.is_success(), "{status} for nothing");
        Some(status)
    }

    /// Whether something good is shown, whatever stands beside it.
    fn is_shown(&self, request: &Request<Body>) -> bool {
        let good = |value: &http::HeaderValue| {
            let value = String::from_utf8_lossy(value.as_bytes()).into_owned();
            value.contains(&self.key) || value.contains(&self.jwt)
        };
        request.headers().values().any(good)
    }
}

/// A store, where it listens, and a key of an admin that it knows.
async fn store(folder: &TempDir) -> (String, String) {
    let database = format!("sqlite://{}/chat.db", folder.path().display());
    let settings = conversation_store::Settings {
        store_listen: String::new(),
        data_dir: None,
        database: Some(conversation_store::Address::from_str(&database).unwrap()),
        database_wait: Duration::from_secs(1),
        store_timeout: Duration::from_secs(10),
        lease: Duration::from_secs(15),
        request_log_keep: Duration::from_hours(1),
        responses_keep: Duration::from_hours(1),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(conversation_store::run(settings, listener, Drain::new()));
    let secret = Secret::new(SECRET).unwrap();
    let new = NewKey::make(&secret, "live").unwrap();
    let key = ApiKey {
        id: new.id.clone(),
        hash: new.hash.to_vec(),
        secret_id: secret.id().to_owned(),
        principal: Some(Principal {
            tenant: "acme".to_owned(),
            user_id: "root".to_owned(),
        }),
        role: KeyRole::Admin.into(),
        ..ApiKey::default()
    };
    let mut client = ConversationServiceClient::new(chassis::channel::lazy(&address).unwrap());
    while client.create_key(CreateKeyRequest { key: Some(key.clone()) }).await.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await; // it is not there yet
    }
    (new.reveal().to_owned(), address)
}

fn replace(input: &[u8], mark: &[u8], text: &str) -> Vec<u8> {
    let mut output = Vec::with_capacity(input.len() + text.len());
    let mut rest = input;
    while let Some(at) = rest.windows(mark.len()).position(|part| part == mark) {
        output.extend_from_slice(&rest[..at]);
        output.extend_from_slice(text.as_bytes());
        rest = &rest[at + mark.len()..];
    }
    output.extend_from_slice(rest);
    output
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// What breaks parsers, and what opens doors.
    const TOKENS: [&str; 20] = [
        "$KEY",
        "$JWT",
        "x",
        ".",
        "..",
        "_",
        "-",
        "=",
        "%00",
        "%2e",
        "\n",
        " ",
        "9223372036854775808",
        "-1",
        "\"",
        "[[[[",
        "null",
        "é",
        "&",
        "Bearer ",
    ];

    fn seeds() -> Vec<(String, Vec<u8>)> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/guarded");
        let files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        let mut seeds: Vec<_> = files
            .map(|file| (file.display().to_string(), std::fs::read(file).unwrap()))
            .collect();
        seeds.sort();
        seeds
    }

    #[test]
    fn every_seed_that_shows_something_good_gets_in_and_no_other_does() {
        let guarded = Guarded::open();
        for (name, seed) in seeds() {
            let status = guarded.check(&seed).unwrap().as_u16();
            let text = String::from_utf8_lossy(&seed);
            if text.contains("Bearer $") || text.contains("api-key: $") {
                assert!([200, 201, 404].contains(&status), "{name}: {status}");
            } else {
                assert!([400, 401].contains(&status), "{name}: {status}");
            }
        }
    }

    #[test]
    fn whatever_is_changed_in_a_request_nobody_gets_in_without_a_credential() {
        let (guarded, seeds) = (Guarded::open(), seeds());
        let change = (any::<prop::sample::Index>(), 0_usize..12, select(&TOKENS[..]));
        let changes = (any::<prop::sample::Index>(), prop::collection::vec(change, 0..5));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(500));
        let tried = runner.run(&changes, |(which, changes)| {
            let mut bytes = which.get(&seeds).1.clone();
            for (at, gone, token) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + gone).min(bytes.len());
                bytes.splice(at..end, token.bytes());
            }
            guarded.check(&bytes);
            Ok(())
        });
        tried.unwrap();
    }
}
