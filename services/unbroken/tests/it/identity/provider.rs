//! Tokens of an identity provider.

use std::time::{SystemTime, UNIX_EPOCH};

use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Guarded, refusal};

/// An identity provider: its key, and what it signs.
pub(super) struct Provider {
    key: Ed25519KeyPair,
    /// What tokens and the set of keys call it.
    pub(super) name: String,
    /// Where the set is, as `jwks.json`.
    pub(super) folder: TempDir,
}

impl Provider {
    pub(super) fn new() -> Self {
        Self::named("one", 7)
    }

    /// One whose key has this name, and is another for every `seed`.
    pub(super) fn named(name: &str, seed: u8) -> Self {
        let provider = Self {
            key: Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap(),
            name: name.to_owned(),
            folder: TempDir::new().unwrap(),
        };
        let set = json!({"keys": [provider.jwk()]});
        std::fs::write(provider.folder.path().join("jwks.json"), set.to_string()).unwrap();
        provider
    }

    /// Its public key.
    pub(super) fn jwk(&self) -> Value {
        let x = base64(self.key.public_key().as_ref());
        json!({"kty": "OKP", "crv": "Ed25519", "kid": self.name, "use": "sig", "alg": "EdDSA", "x": x})
    }

    pub(super) fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64(header.to_string().as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let signature = base64(self.key.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

/// Seconds since 1970.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_identity_provider_opens_the_doors() {
    let provider = Provider::new();
    let jwks = provider.folder.path().join("jwks.json").display().to_string();
    let mesh = Guarded::start(&[
        ("UNBROKEN_JWT_JWKS", &jwks),
        ("UNBROKEN_JWT_ISSUER", "https://login.example.com"),
        ("UNBROKEN_JWT_AUDIENCE", "unbroken"),
    ])
    .await;
    let now = now();
    let header = json!({"alg": "EdDSA", "kid": "one"});
    let claims =
        json!({"iss": "https://login.example.com", "aud": "unbroken", "exp": now + 300, "sub": "ann", "tenant": "acme", "role": "admin"});
    let good = provider.token(&header, &claims);
    for _ in 0..2 {
        assert_eq!(mesh.get("/v1/admin/keys", &good).await.status(), 200, "an admin, also from memory");
    }
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        provider.token(&header, &changed)
    };
    for bad in [
        with("exp", json!(now - 31)),
        with("iss", json!("https://evil.example.com")),
        with("aud", json!("another")),
        with("sub", json!("")),
        provider.token(&json!({"alg": "EdDSA", "kid": "two"}), &claims),
        provider.token(&json!({"alg": "HS256", "kid": "one"}), &claims),
        format!(
            "{}.",
            provider
                .token(&json!({"alg": "none", "kid": "one"}), &claims)
                .rsplit_once('.')
                .unwrap()
                .0
        ),
        good[..good.len() - 2].to_owned(),
        "a.b.c".to_owned(),
    ] {
        let (status, code, _) = refusal(mesh.get("/v1/models", &bad).await).await;
        assert_eq!((status, code.as_str()), (401, "invalid_token"), "{bad}");
    }
    // Who is the same by key and by token sees the same.
    let made: Value = mesh
        .post("/conversations", &good, json!({"title": "t"}))
        .await
        .json()
        .await
        .unwrap();
    let key = mesh.key(&["--user", "ann", "--tenant", "acme"]);
    assert_eq!(
        mesh.get(&format!("/conversations/{}", made["id"].as_str().unwrap()), &key)
            .await
            .status(),
        200
    );
}
