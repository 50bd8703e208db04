//! Tokens of an identity provider: JWT (<https://www.rfc-editor.org/rfc/rfc7519>), after the advice of <https://www.rfc-editor.org/rfc/rfc8725>: the
//! algorithm is the one of the key that the token names, out of those of our settings; issuer, audience and expiry must be there. Who it
//! is stands in claims that settings name. Used by [`super::Identity`].

use std::{sync::Arc, time::Duration};

use clap::Args;
use http::StatusCode;
use parking_lot::Mutex;
use proto::v1::{Failure, Principal, Reason};
use serde_json::{Map, Value};
use sha2::{Digest as _, Sha256};
use tokio::time::Instant;

use super::{
    Caller, Role, Who,
    cache::Cache,
    jwks::{self, Jwks},
    jws::{Algorithm, Unchecked},
    keys::now_ms,
};
use crate::failure::Refusal;

/// Tokens that are known to be good at once, some hundred bytes each.
const KNOWN: usize = 10_000;
/// How long a token is believed without a look at its signature: so soon a key that the provider took out is refused.
const BELIEVED: Duration = Duration::from_mins(1);
/// By how many seconds the provider's clock may differ from ours.
const LEEWAY: i64 = 30;
/// The longest name of a tenant, a user or a tier, in bytes, as the store has it.
const NAME: usize = 256;

/// Settings of the tokens of an identity provider.
#[expect(clippy::struct_field_names, reason = "they are flags beside others")]
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
#[group(skip)]
pub struct Settings {
    /// The keys of an identity provider whose tokens (JWT) are taken: an https:// address of its JWKS, or a file
    #[arg(long, env = "UNBROKEN_JWT_JWKS", value_name = "URL|FILE")]
    pub jwt_jwks: Option<String>,
    /// The issuers of those tokens, separated by commas: each as in the claim `iss`
    #[arg(long, env = "UNBROKEN_JWT_ISSUER", value_delimiter = ',', value_name = "ISSUER")]
    pub jwt_issuer: Vec<String>,
    /// For whom those tokens must be, separated by commas: one of them must be in the claim `aud`
    #[arg(long, env = "UNBROKEN_JWT_AUDIENCE", value_delimiter = ',', value_name = "AUDIENCE")]
    pub jwt_audience: Vec<String>,
    /// The algorithms of signatures that are taken, separated by commas
    #[arg(
        long,
        env = "UNBROKEN_JWT_ALGORITHMS",
        value_enum,
        value_delimiter = ',',
        default_value = "RS256,ES256,EdDSA",
        value_name = "ALGORITHM"
    )]
    pub jwt_algorithms: Vec<Algorithm>,
    /// The claim that names the user
    #[arg(long, env = "UNBROKEN_JWT_USER_CLAIM", default_value = "sub", value_name = "CLAIM")]
    pub jwt_user_claim: String,
    /// The claim that names the tenant; a token without it is of the default tenant. A path as `a.b` goes into objects
    #[arg(long, env = "UNBROKEN_JWT_TENANT_CLAIM", default_value = "tenant", value_name = "CLAIM")]
    pub jwt_tenant_claim: String,
    /// The claim that names the role or roles: who has `admin` manages their tenant's keys
    #[arg(long, env = "UNBROKEN_JWT_ROLE_CLAIM", default_value = "role", value_name = "CLAIM")]
    pub jwt_role_claim: String,
    /// The claim that names the tier
    #[arg(long, env = "UNBROKEN_JWT_TIER_CLAIM", default_value = "tier", value_name = "CLAIM")]
    pub jwt_tier_claim: String,
}

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
    issuers: Vec<String>,
    audiences: Vec<String>,
    claims: Claims,
    known: Mutex<Cache<[u8; 32], Caller>>,
}

/// The names of claims.
#[derive(Debug)]
struct Claims {
    user: String,
    tenant: String,
    role: String,
    tier: String,
}

impl Jwt {
    /// By these settings. Nothing if they say nothing of tokens.
    ///
    /// # Errors
    /// One of them is wrong, or missing.
    pub(super) fn new(settings: &Settings) -> Result<Option<Self>, Error> {
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
        Ok(Some(Self {
            keys: Jwks::new(place, settings.jwt_algorithms.clone())?,
            issuers,
            audiences,
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
        let unchecked = Unchecked::parse(token).map_err(|error| invalid(error.to_string()))?;
        let unread = |_| {
            Failure::new(
                Reason::Unavailable,
                "the token cannot be checked now: the identity provider's keys cannot be read",
            )
        };
        let key = self.keys.find(unchecked.key()).await.map_err(unread)?;
        let key = key.ok_or_else(|| invalid("it is signed with a key that the identity provider does not have"))?;
        let claims = unchecked.claims(&key).map_err(|error| invalid(error.to_string()))?;
        let expires = self.expires(&claims, now_ms() / 1000)?;
        self.claims.caller(&claims, expires)
    }

    /// Until when the token is good, in seconds since 1970, if it is at `now`, by one of our issuers, and for us.
    fn expires(&self, claims: &Map<String, Value>, now: i64) -> Result<i64, Refusal> {
        let issuer = claims.get("iss").ok_or_else(|| invalid("it has no claim iss"))?;
        if !self.issuers.iter().any(|ours| issuer == ours) {
            return Err(invalid("its issuer is not one of ours"));
        }
        let audience = claims.get("aud").ok_or_else(|| invalid("it has no claim aud"))?;
        let is_ours = |value: &Value| self.audiences.iter().any(|ours| value == ours);
        let for_us = match audience {
            Value::Array(all) => all.iter().any(is_ours),
            one => is_ours(one),
        };
        if !for_us {
            return Err(invalid("it is for another audience"));
        }
        let expires = time(claims, "exp")?
            .ok_or_else(|| invalid("it has no claim exp"))?
            .saturating_add(LEEWAY);
        if now >= expires {
            return Err(invalid("it has expired"));
        }
        if time(claims, "nbf")?.is_some_and(|begins| now.saturating_add(LEEWAY) < begins) {
            return Err(invalid("it is not good yet"));
        }
        Ok(expires)
    }
}

impl Claims {
    /// Who is meant.
    fn caller(&self, claims: &Map<String, Value>, expires: i64) -> Result<Caller, Refusal> {
        let user = name(claims, &self.user)?.ok_or_else(|| invalid(format!("it has no claim {}, which names the user", self.user)))?;
        let tenant = name(claims, &self.tenant)?.unwrap_or_default();
        let is_admin = match find(claims, &self.role) {
            Some(Value::Array(roles)) => roles.iter().any(|role| role == "admin"),
            role => role.is_some_and(|role| role == "admin"),
        };
        let who = Who {
            principal: Principal { tenant, user_id: user },
            role: if is_admin { Role::Admin } else { Role::User },
            tier: name(claims, &self.tier)?,
            expires_ms: Some(expires.saturating_mul(1000)),
            ..Who::default()
        };
        Ok(Caller(Arc::new(who)))
    }
}

/// The claim of this name; or, where there is none, what lies at this path.
fn find<'a>(claims: &'a Map<String, Value>, path: &str) -> Option<&'a Value> {
    if let Some(value) = claims.get(path) {
        return Some(value);
    }
    let (first, rest) = path.split_once('.')?;
    find(claims.get(first)?.as_object()?, rest)
}

/// The claim as a name. An empty one is none.
fn name(claims: &Map<String, Value>, claim: &str) -> Result<Option<String>, Refusal> {
    match find(claims, claim) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) if name.is_empty() => Ok(None),
        Some(Value::String(name)) if name.len() <= NAME && !name.chars().any(char::is_control) => Ok(Some(name.clone())),
        Some(_) => Err(invalid(format!("its claim {claim} is not a name of up to {NAME} bytes"))),
    }
}

/// The claim as a time: seconds since 1970, whole or not.
fn time(claims: &Map<String, Value>, claim: &str) -> Result<Option<i64>, Refusal> {
    match claims.get(claim) {
        None | Some(Value::Null) => Ok(None),
        #[expect(clippy::cast_possible_truncation, reason = "too late a time becomes the latest one")]
        Some(Value::Number(number)) => Ok(number.as_i64().or(number.as_f64().map(|seconds| seconds as i64))),
        Some(_) => Err(invalid(format!("its claim {claim} is not a number"))),
    }
}

fn invalid(why: impl AsRef<str>) -> Refusal {
    let message = format!("the token is not taken: {}", why.as_ref());
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use serde_json::json;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(arguments: &[&str]) -> Settings {
        Command::parse_from(["test"].iter().chain(arguments)).settings
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
        Jwt::new(&settings(&[&place[..], arguments].concat())).unwrap().unwrap()
    }

    fn claims(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn who_takes_tokens_says_whose_and_for_whom() {
        assert!(Jwt::new(&settings(&[])).unwrap().is_none());
        let place = [
            "--jwt-jwks",
            "https://login.example.com/keys",
            "--jwt-issuer",
            "i",
            "--jwt-audience",
            "a",
        ];
        assert!(matches!(
            Jwt::new(&settings(&place[..2])),
            Err(Error::Missing("UNBROKEN_JWT_ISSUER"))
        ));
        assert!(matches!(
            Jwt::new(&settings(&place[..4])),
            Err(Error::Missing("UNBROKEN_JWT_AUDIENCE"))
        ));
        assert!(Jwt::new(&settings(&place)).is_ok());
    }

    #[test]
    fn issuer_audience_and_expiry_must_be_there_and_right() {
        let jwt = jwt(&[]);
        let good = json!({"iss": "https://login.example.com", "aud": "b", "exp": 1_000});
        let with = |name: &str, value: Value| {
            let mut changed = good.clone();
            changed[name] = value;
            jwt.expires(&claims(&changed), 990).map_err(|refusal| refusal.message().to_owned())
        };
        assert_eq!(with("other", json!(1)), Ok(1_030));
        for (name, value) in [
            ("aud", json!(["x", "a"])),
            ("exp", json!(1000.7)),
            ("exp", json!(961.5)),
            ("nbf", json!(1_020)),
            ("nbf", Value::Null),
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
            ("exp", json!("1000")),
            ("exp", json!(960)),
            ("exp", json!(-1)),
            ("nbf", json!(1_021)),
            ("nbf", json!("soon")),
        ] {
            assert!(with(name, value.clone()).is_err(), "{name} {value}");
        }
        for missing in ["iss", "aud", "exp"] {
            let mut less = claims(&good);
            less.remove(missing);
            let refusal = jwt.expires(&less, 990).unwrap_err();
            assert!(refusal.message().contains(missing), "{}", refusal.message());
        }
    }

    #[test]
    fn who_it_is_stands_in_the_claims_of_the_settings() {
        let jwt = jwt(&[
            "--jwt-user-claim",
            "email",
            "--jwt-tenant-claim",
            "org.id",
            "--jwt-role-claim",
            "https://example.com/roles",
        ]);
        let full = json!({"email": "ann@example.com", "org": {"id": "acme"}, "https://example.com/roles": ["x", "admin"], "tier": "pro"});
        let caller = jwt.claims.caller(&claims(&full), 1_000).unwrap();
        assert_eq!(
            (caller.principal().tenant.as_str(), caller.principal().user_id.as_str()),
            ("acme", "ann@example.com")
        );
        assert_eq!((caller.role(), caller.tier(), caller.key()), (Role::Admin, Some("pro"), None));
        let least = jwt
            .claims
            .caller(&claims(&json!({"email": "ann", "role": "admin"})), 1_000)
            .unwrap();
        assert_eq!(
            (least.principal().tenant.as_str(), least.role(), least.tier()),
            ("", Role::User, None)
        );
        for bad in [
            json!({}),
            json!({"email": ""}),
            json!({"email": 7}),
            json!({"email": "a\nb"}),
            json!({"email": "a", "org": {"id": []}}),
            json!({"email": "x".repeat(257)}),
        ] {
            assert!(jwt.claims.caller(&claims(&bad), 1_000).is_err(), "{bad}");
        }
    }
}
