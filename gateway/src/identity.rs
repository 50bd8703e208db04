//! Who asks. [`crate::stack`] judges each request once, on its way to a door, and puts the [`Caller`] into its extensions; a door takes
//! it from there as an argument, and the request's [account](crate::account) keeps it.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::{StatusCode, request::Parts};
use proto::v1::Principal;

use crate::{failure::Refusal, front::Vouched};

/// Who asks, and what they may do. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct Caller(Arc<Who>);

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Chat, on behalf of their principal.
    #[default]
    User,
    /// That, and manage their tenant's keys.
    #[allow(dead_code, reason = "keys come next")]
    Admin,
}

#[derive(Debug, Default)]
struct Who {
    principal: Principal,
    role: Role,
    tier: Option<String>,
    key: Option<String>,
}

impl Caller {
    /// Nobody in particular: everybody, where no identity is asked for.
    pub(crate) fn anonymous() -> Self {
        Self(Arc::default())
    }

    /// The user for whom a trusted front speaks: within the tenant of the front's own key, if it has one, and never more than a user.
    pub(crate) fn speaking_for(&self, vouched: Vouched<'_>) -> Self {
        Self(Arc::new(Who {
            principal: Principal {
                tenant: self.0.principal.tenant.clone(),
                user_id: vouched.user.to_owned(),
            },
            role: Role::User,
            tier: vouched.tier.map(str::to_owned).or_else(|| self.0.tier.clone()),
            key: self.0.key.clone(),
        }))
    }

    /// On whose behalf.
    pub(crate) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// What they may do.
    #[allow(dead_code, reason = "limits and the keys' door come next")]
    pub(crate) fn role(&self) -> Role {
        self.0.role
    }

    /// The tier whose limits hold for them, where their key or token names one.
    #[allow(dead_code, reason = "limits and the keys' door come next")]
    pub(crate) fn tier(&self) -> Option<&str> {
        self.0.tier.as_deref()
    }

    /// The id of the API key that they came with, if it was one. It is no secret.
    #[allow(dead_code, reason = "limits and the keys' door come next")]
    pub(crate) fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }
}

/// From the extensions. A route that forgot to have its caller judged refuses everybody.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let caller = parts.extensions.get::<Self>().cloned();
        caller.ok_or_else(|| Refusal::new(StatusCode::UNAUTHORIZED, "unauthenticated", "this address needs an API key"))
    }
}

/// Judges who asks.
#[derive(Debug)]
pub(crate) struct Identity {
    anonymous: Caller,
}

impl Identity {
    /// Asks nobody who they are.
    pub(crate) fn off() -> Self {
        Self {
            anonymous: Caller::anonymous(),
        }
    }

    /// Who sends this request.
    pub(crate) fn judge(&self) -> Caller {
        self.anonymous.clone()
    }
}
