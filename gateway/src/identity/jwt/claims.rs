//! Who a token means: claims that settings name. Pure.

use std::sync::Arc;

use proto::v1::Principal;
use serde_json::{Map, Value};

use super::{
    super::{Caller, Role, Who},
    invalid,
};
use crate::failure::Refusal;

/// The longest name of a tenant, a user or a tier, in bytes, as the store has it.
const NAME: usize = 256;

/// The names of claims.
#[derive(Debug)]
pub(super) struct Claims {
    pub(super) user: String,
    pub(super) tenant: String,
    pub(super) role: String,
    pub(super) tier: String,
}

impl Claims {
    /// Who is meant.
    pub(super) fn caller(&self, claims: &Map<String, Value>, expires: i64) -> Result<Caller, Refusal> {
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn claims(value: &Value) -> Map<String, Value> {
        value.as_object().unwrap().clone()
    }

    #[test]
    fn who_it_is_stands_in_the_claims_of_the_settings() {
        let names = Claims {
            user: "email".to_owned(),
            tenant: "org.id".to_owned(),
            role: "https://example.com/roles".to_owned(),
            tier: "tier".to_owned(),
        };
        let full = json!({"email": "ann@example.com", "org": {"id": "acme"}, "https://example.com/roles": ["x", "admin"], "tier": "pro"});
        let caller = names.caller(&claims(&full), 1_000).unwrap();
        assert_eq!(
            (caller.principal().tenant.as_str(), caller.principal().user_id.as_str()),
            ("acme", "ann@example.com")
        );
        assert_eq!((caller.role(), caller.tier(), caller.key()), (Role::Admin, Some("pro"), None));
        let least = names.caller(&claims(&json!({"email": "ann", "role": "admin"})), 1_000).unwrap();
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
            assert!(names.caller(&claims(&bad), 1_000).is_err(), "{bad}");
        }
    }
}
