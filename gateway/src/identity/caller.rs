//! Who was found to ask, and what they may do. Doors take it as an argument, from the request's extensions.

use std::sync::Arc;

use axum::extract::FromRequestParts;
use http::request::Parts;
use proto::v1::{ChatRequest, Principal};

use super::{forbidden, missing, secret, token::Grant};
use crate::{failure::Refusal, front::Vouched};

/// Who asks, and what they may do. Cloning shares.
#[derive(Clone, Debug)]
pub(crate) struct Caller(pub(super) Arc<Who>);

/// What a caller may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Role {
    /// Chat, on behalf of their principal.
    #[default]
    User,
    /// That, and manage their tenant's keys.
    Admin,
}

#[derive(Debug, Default)]
pub(super) struct Who {
    pub(super) principal: Principal,
    pub(super) role: Role,
    pub(super) tier: Option<String>,
    pub(super) key: Option<String>,
    /// Until when they are known to be who they are, in milliseconds since 1970.
    pub(super) expires_ms: Option<i64>,
    /// They may do only this.
    pub(super) only: Option<Grant>,
}

impl Caller {
    /// Nobody in particular: everybody, where no identity is asked for.
    pub(super) fn anonymous() -> Self {
        Self(Arc::default())
    }

    /// The user for whom a trusted front speaks: within the tenant of the front's own key, if it has one, and never more than a user, nor
    /// more than they could do themselves.
    pub(crate) fn speaking_for(&self, vouched: Vouched<'_>) -> Self {
        Self(Arc::new(Who {
            principal: Principal {
                tenant: self.0.principal.tenant.clone(),
                user_id: vouched.user.to_owned(),
            },
            role: Role::User,
            tier: vouched.tier.map(str::to_owned).or_else(|| self.0.tier.clone()),
            key: self.0.key.clone(),
            expires_ms: self.0.expires_ms,
            only: self.0.only.clone(),
        }))
    }

    /// On whose behalf.
    pub(crate) fn principal(&self) -> &Principal {
        &self.0.principal
    }

    /// What they may do.
    pub(crate) fn role(&self) -> Role {
        self.0.role
    }

    /// The tier whose limits hold for them, where their key or token names one.
    pub(crate) fn tier(&self) -> Option<&str> {
        self.0.tier.as_deref()
    }

    /// The id of the API key that they came with, or got their ticket with. It is no secret.
    pub(crate) fn key(&self) -> Option<&str> {
        self.0.key.as_deref()
    }

    /// # Errors
    /// They have a stream token, and it is not for the start of this answer.
    pub(crate) fn may_start(&self, request: &ChatRequest) -> Result<(), Refusal> {
        match &self.0.only {
            None | Some(Grant::Socket(_)) => Ok(()),
            Some(Grant::Start(stream_id, asked)) if *stream_id == request.stream_id && *asked == secret::hex(&request.fingerprint) => {
                Ok(())
            }
            Some(Grant::Start(..)) => Err(forbidden("this stream_token is for another request: get one for this")),
            Some(Grant::Read(_)) => Err(forbidden("this stream_token is for reading one answer: it starts none")),
        }
    }

    /// # Errors
    /// They have a stream token, and it is not for this answer.
    pub(crate) fn may_read(&self, stream_id: &str) -> Result<(), Refusal> {
        match &self.0.only {
            Some(Grant::Start(only, _) | Grant::Read(only)) if only != stream_id => {
                Err(forbidden("this stream_token is for another answer"))
            }
            _ => Ok(()),
        }
    }
}

/// From the extensions. A route that forgot to have its caller judged refuses everybody.
impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Refusal;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        parts.extensions.get::<Self>().cloned().ok_or_else(missing)
    }
}
