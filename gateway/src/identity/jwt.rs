//! Tokens of an identity provider: JWT (<https://www.rfc-editor.org/rfc/rfc7519>), after the advice of <https://www.rfc-editor.org/rfc/rfc8725>: the
//! algorithm is the one of the key that the token names, out of those of our settings; issuer, audience and expiry must be there. Who it
//! is stands in [`claims`] that settings name. Used by [`super::Identity`].

mod claims;
mod settings;

use std::time::Duration;

use chassis::drain::Drain;
use http::StatusCode;
use jsonwebtoken::Validation;
use parking_lot::Mutex;
use proto::v1::{Failure, Reason};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use self::claims::Claims;
pub(super) use self::settings::Settings;
use super::{
    Caller,
    cache::Cache,
    jwks::{self, Jwks, Times, Unread},
    jws,
    keys::now_ms,
};
use crate::failure::Refusal;

/// Tokens that are known to be good at once, some hundred bytes each.
const KNOWN: usize = 10_000;
/// How long a token is believed without a look at its signature: so soon a key that the provider took out is refused.
const BELIEVED: Duration = Duration::from_mins(1);
/// By how many seconds the provider's clock may differ from ours.
const LEEWAY: u32 = 30;

/// Why tokens cannot be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There are no keys.
    #[error("UNBROKEN_JWT_JWKS")]
    Keys(#[from] jwks::Error),
    /// It is not said whose tokens, or for whom.
    #[error("UNBROKEN_JWT_JWKS is set, but {0} is not: a token of anybody, or for anybody, would be taken")]
    Missing(&'static str),
}

/// Judges tokens.
#[derive(Debug)]
pub(super) struct Jwt {
    keys: Jwks,
    rules: Validation,
    claims: Claims,
    known: Mutex<Cache<[u8; 32], Caller>>,
}

impl Jwt {
    /// By these settings. Nothing if they say nothing of tokens.
    ///
    /// # Errors
    /// One of them is wrong, or missing.
    pub(super) fn new(settings: &Settings, drain: &Drain) -> Result<Option<Self>, Error> {
        let Some(place) = settings.jwt_jwks.as_deref().filter(|place| !place.is_empty()) else {
            return Ok(None);
        };
        let given = |values: &[String]| -> Vec<String> { values.iter().filter(|value| !value.is_empty()).cloned().collect() };
        let (issuers, audiences) = (given(&settings.jwt_issuer), given(&settings.jwt_audience));
        if issuers.is_empty() {
            return Err(Error::Missing("UNBROKEN_JWT_ISSUER"));
        }
        if audiences.is_empty() {
            return Err(Error::Missing("UNBROKEN_JWT_AUDIENCE"));
        }
        let times = Times {
            refresh: settings.jwt_refresh,
            pause: settings.jwt_pause,
            stale: settings.jwt_stale,
        };
        Ok(Some(Self {
            keys: Jwks::new(place, settings.jwt_algorithms.clone(), times, drain)?,
            rules: rules(&issuers, &audiences),
            claims: Claims {
                user: settings.jwt_user_claim.clone(),
                tenant: settings.jwt_tenant_claim.clone(),
                role: settings.jwt_role_claim.clone(),
                tier: settings.jwt_tier_claim.clone(),
            },
            known: Mutex::new(Cache::new(KNOWN)),
        }))
    }

    /// Whose token this is.
    ///
    /// # Errors
    /// It is none, or good no more; or the identity provider's keys cannot be read.
    pub(super) async fn caller(&self, token: &str) -> Result<Caller, Refusal> {
        let digest: [u8; 32] = Sha256::digest(token).into();
        let now = Instant::now();
        if let Some(caller) = self.known.lock().get(&digest, now) {
            return Ok(caller);
        }
        let caller = self.judge(token).await?;
        let left = caller.0.expires_ms.unwrap_or(0).saturating_sub(now_ms());
        let left = Duration::from_millis(u64::try_from(left).unwrap_or(0));
        self.known.lock().put(digest, caller.clone(), now + left.min(BELIEVED));
        Ok(caller)
    }

    async fn judge(&self, token: &str) -> Result<Caller, Refusal> {
        let name = jws::key_name(token)?;
        let unread = |Unread| {
            Failure::new(
                Reason::Unavailable,
                "the token cannot be checked now: the identity provider's keys cannot be read",
            )
        };
        let key = self.keys.find(name.as_deref()).await.map_err(unread)?;
        let key = key.ok_or_else(|| invalid("it is signed with a key that the identity provider does not have"))?;
        let claims = key.claims(token, &self.rules)?;
        self.claims.caller(&claims, expires(&claims)?)
    }
}

/// What must be in a token: a time to which it is good, one of our issuers, and one of us as the audience.
fn rules(issuers: &[String], audiences: &[String]) -> Validation {
    let mut rules = Validation {
        leeway: LEEWAY.into(),
        validate_nbf: true,
        ..Validation::default()
    };
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules.set_issuer(issuers);
    rules.set_audience(audiences);
    rules
}

impl From<jws::Error> for Refusal {
    fn from(error: jws::Error) -> Self {
        invalid(error.to_string())
    }
}

/// Until when a token with these claims is good, in seconds since 1970: claims that are by the rules.
fn expires(claims: &Map<String, Value>) -> Result<i64, Refusal> {
    // A token has one issuer; jsonwebtoken would also take a list with one of ours in it.
    if !claims.get("iss").is_some_and(Value::is_string) {
        return Err(jws::Error::Issuer.into());
    }
    let Some(Value::Number(expires)) = claims.get("exp") else {
        return Err(jws::Error::Claim("exp".to_owned()).into());
    };
    #[expect(clippy::cast_possible_truncation, reason = "too late a time becomes the latest one")]
    let expires = expires.as_i64().or(expires.as_f64().map(|seconds| seconds as i64));
    Ok(expires.unwrap_or(i64::MAX).saturating_add(LEEWAY.into()))
}

fn invalid(why: impl AsRef<str>) -> Refusal {
    let message = format!("the token is not taken: {}", why.as_ref());
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
    use clap::Parser;
    use ring::signature::{Ed25519KeyPair, KeyPair as _};
    use serde_json::json;

    use super::{super::jws::PublicKey, *};

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn new(arguments: &[&str]) -> Result<Option<Jwt>, Error> {
        let settings = Command::parse_from(["test"].iter().chain(arguments)).settings;
        Jwt::new(&settings, &Drain::new())
    }

    fn jwt(arguments: &[&str]) -> Jwt {
        let place = [
            "--jwt-jwks",
            "https://login.example.com/keys",
            "--jwt-issuer",
            "https://login.example.com",
            "--jwt-audience",
            "a,b",
        ];
        new(&[&place[..], arguments].concat()).unwrap().unwrap()
    }

    #[test]
    fn who_takes_tokens_says_whose_and_for_whom() {
        assert!(new(&[]).unwrap().is_none());
        let place = [
            "--jwt-jwks",
            "https://login.example.com/keys",
            "--jwt-issuer",
            "i",
            "--jwt-audience",
            "a",
        ];
        assert!(matches!(new(&place[..2]), Err(Error::Missing("UNBROKEN_JWT_ISSUER"))));
        assert!(matches!(new(&place[..4]), Err(Error::Missing("UNBROKEN_JWT_AUDIENCE"))));
        assert!(new(&place).is_ok());
    }

    /// Until when a token with these claims is taken.
    fn taken(jwt: &Jwt, claims: &Value) -> Result<i64, Refusal> {
        let provider = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let encode = |bytes: &[u8]| BASE64_URL_SAFE_NO_PAD.encode(bytes);
        let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": encode(provider.public_key().as_ref())});
        let key = PublicKey::of(&serde_json::from_value(jwk).unwrap()).unwrap();
        let message = format!("{}.{}", encode(br#"{"alg":"EdDSA"}"#), encode(claims.to_string().as_bytes()));
        let token = format!("{message}.{}", encode(provider.sign(message.as_bytes()).as_ref()));
        expires(&key.claims(&token, &jwt.rules)?)
    }

    #[test]
    fn issuer_audience_and_expiry_must_be_there_and_right() {
        let jwt = jwt(&[]);
        let now = now_ms() / 1000;
        let good = json!({"iss": "https://login.example.com", "aud": "b", "exp": now + 10});
        let with = |name: &str, value: Value| {
            let mut changed = good.clone();
            changed[name] = value;
            taken(&jwt, &changed).map_err(|refusal| refusal.message().to_owned())
        };
        assert_eq!(with("other", json!(1)), Ok(now + 40));
        assert_eq!(with("exp", json!(u64::MAX)), Ok(i64::MAX));
        #[expect(clippy::cast_precision_loss, reason = "it is no such time")]
        let half = |seconds: i64| json!(seconds as f64 + 0.5);
        for (name, value) in [
            ("aud", json!(["x", "a"])),
            ("exp", half(now + 10)),
            ("exp", half(now - 25)),
            ("nbf", json!(now + 25)),
        ] {
            assert!(with(name, value.clone()).is_ok(), "{name} {value}");
        }
        for (name, value) in [
            ("iss", Value::Null),
            ("iss", json!("https://login.example.com/")),
            ("iss", json!(["https://login.example.com"])),
            ("aud", Value::Null),
            ("aud", json!("c")),
            ("aud", json!([])),
            ("aud", json!({"a": 1})),
            ("exp", Value::Null),
            ("exp", json!((now + 10).to_string())),
            ("exp", json!(now - 31)),
            ("exp", json!(-1)),
            ("nbf", json!(now + 60)),
            ("nbf", json!("soon")),
            ("nbf", Value::Null),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        for missing in ["iss", "aud", "exp"] {
            let mut less = good.clone();
            less.as_object_mut().unwrap().remove(missing);
            let refusal = taken(&jwt, &less).unwrap_err();
            assert!(refusal.message().contains(missing), "{}", refusal.message());
        }
    }
}
