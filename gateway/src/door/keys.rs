//! `/v1/admin/keys`: make, list and revoke the API keys of the caller's tenant. For the role `admin` only; an admin's keys have the admin's
//! own tier: which tenant has which tier is the operator's to say (`unbroken keys`).

use axum::{
    Json,
    extract::{Path, Request, State},
    response::{IntoResponse as _, Response},
};
use http::{StatusCode, Uri};
use proto::v1::{ApiKey, CreateKeyRequest, Failure, KeyRole, ListKeysRequest, Principal, Reason, RevokeKeyRequest};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::conversations::{List, Page, Paging, refusal};
use crate::{
    app::App,
    body,
    failure::Refusal,
    identity::{Caller, NewKey, Role, forbidden},
    openapi,
};

/// The longest name of a user, in bytes, and of a key, in characters, as the store has them.
const USER: usize = 256;
const NAME: usize = 200;

/// A key to make.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = ApiKeyWanted)]
struct Asked {
    /// On whose behalf it speaks.
    #[schema(min_length = 1, max_length = 256)]
    user: String,
    /// `user`, if not said, or `admin`.
    #[schema(pattern = "^(user|admin)$")]
    role: Option<String>,
    /// The admin's own, if said.
    tier: Option<String>,
    /// What to call it in lists.
    #[schema(max_length = 200)]
    name: Option<String>,
    /// After when it is refused, in seconds since 1970.
    #[schema(minimum = 1)]
    expires_at: Option<i64>,
}

/// An API key.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApiKey)]
pub(crate) struct KeyOut {
    id: String,
    /// `api_key`.
    object: &'static str,
    /// The key itself: when it is made, and never again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    key: Option<String>,
    name: String,
    /// Whose data it sees. Empty: the default tenant's.
    tenant: String,
    /// On whose behalf it speaks.
    user: String,
    /// `user` or `admin`.
    role: &'static str,
    /// The tier whose limits hold for it; the default, if none.
    #[schema(required)]
    tier: Option<String>,
    /// In seconds since 1970.
    created_at: i64,
    /// Likewise.
    #[schema(required)]
    expires_at: Option<i64>,
    /// Likewise.
    #[schema(required)]
    revoked_at: Option<i64>,
    /// Likewise, to within a minute or so.
    #[schema(required)]
    last_used_at: Option<i64>,
}

/// Makes an API key of the caller's tenant. The key itself is in this answer, and never again.
#[utoipa::path(
    post,
    path = "/v1/admin/keys",
    operation_id = "create_key",
    tag = openapi::IDENTITY,
    request_body = Asked,
    responses((status = CREATED, description = "It is made.", body = KeyOut), openapi::BodyRefused),
)]
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Response, Refusal> {
    must_be_admin(&app, &caller)?;
    let asked: Asked = body::json(request, app.settings()).await?;
    let Some((secret, environment)) = app.identity().makes_keys() else {
        return Err(no_keys());
    };
    let new = NewKey::make(secret, environment).map_err(|error| Failure::new(Reason::Internal, error.to_string()))?;
    let key = ApiKey {
        id: new.id.clone(),
        hash: new.hash.to_vec(),
        secret_id: secret.id().to_owned(),
        ..asked.into_key(&caller)?
    };
    let made = app.clients().store().create_key(CreateKeyRequest { key: Some(key) }).await;
    let mut made = object(made.map_err(|status| refusal(&status))?.get_ref());
    made.key = Some(new.reveal().to_owned());
    Ok((StatusCode::CREATED, Json(made)).into_response())
}

/// Lists the API keys of the caller's tenant, the newest first.
#[utoipa::path(
    get,
    path = "/v1/admin/keys",
    operation_id = "list_keys",
    tag = openapi::IDENTITY,
    params(Paging),
    responses((status = OK, description = "A part of them.", body = List<KeyOut>), openapi::Refused),
)]
pub(crate) async fn list(State(app): State<App>, caller: Caller, uri: Uri) -> Result<Json<List<KeyOut>>, Refusal> {
    must_be_admin(&app, &caller)?;
    let page = Page::of(&uri)?;
    let request = ListKeysRequest {
        tenant: Some(caller.principal().tenant.clone()),
        page_size: page.limit + 1,
        after_id: page.after.clone(),
    };
    let found = app.clients().store().list_keys(request).await.map_err(|status| refusal(&status))?;
    page.object(found.into_inner(), |key| (key.id.clone(), object(&key))).await
}

/// Revokes an API key of the caller's tenant. Every gateway refuses it within two seconds.
#[utoipa::path(
    delete,
    path = "/v1/admin/keys/{id}",
    operation_id = "revoke_key",
    tag = openapi::IDENTITY,
    params(("id" = String, Path, description = "The key's id: the part of the key that is no secret.")),
    responses((status = OK, description = "It is revoked.", body = KeyOut), openapi::Refused),
)]
pub(crate) async fn revoke(State(app): State<App>, caller: Caller, Path(id): Path<String>) -> Result<Json<KeyOut>, Refusal> {
    must_be_admin(&app, &caller)?;
    let request = RevokeKeyRequest {
        id,
        tenant: Some(caller.principal().tenant.clone()),
    };
    let revoked = app.clients().store().revoke_key(request).await.map_err(|status| refusal(&status))?;
    Ok(Json(object(revoked.get_ref())))
}

fn must_be_admin(app: &App, caller: &Caller) -> Result<(), Refusal> {
    if !app.identity().is_asked() {
        return Err(no_keys());
    }
    match caller.role() {
        Role::Admin => Ok(()),
        Role::User => Err(forbidden(
            "keys are managed with the role admin, which this key or token does not have",
        )),
    }
}

/// Where nobody is asked who they are, anybody could make keys for later.
fn no_keys() -> Refusal {
    forbidden("UNBROKEN_AUTH is off, so nobody is known to be an admin here; the operator makes keys with: unbroken keys create")
}

impl Asked {
    fn into_key(self, caller: &Caller) -> Result<ApiKey, Refusal> {
        if self.user.is_empty() || self.user.len() > USER || self.user.chars().any(char::is_control) {
            let message = format!("user: expected a name of 1 to {USER} bytes");
            return Err(Refusal::invalid("user", message));
        }
        let role = match self.role.as_deref() {
            None | Some("user") => KeyRole::User,
            Some("admin") => KeyRole::Admin,
            Some(other) => return Err(Refusal::invalid("role", format!("role: expected user or admin, got {other:?}"))),
        };
        let own = caller.tier().unwrap_or_default();
        if self.tier.is_some_and(|tier| tier != own) {
            return Err(forbidden(
                "tier: an admin's keys have the admin's own tier; another one is the operator's to give",
            ));
        }
        let name = self.name.unwrap_or_default();
        if name.chars().count() > NAME || name.chars().any(char::is_control) {
            return Err(Refusal::invalid("name", format!("name: expected at most {NAME} characters")));
        }
        let expires_ms = match self.expires_at {
            None => 0,
            Some(seconds @ 1..) => seconds.saturating_mul(1000),
            Some(_) => return Err(Refusal::invalid("expires_at", "expires_at: expected seconds since 1970")),
        };
        Ok(ApiKey {
            principal: Some(Principal {
                tenant: caller.principal().tenant.clone(),
                user_id: self.user,
            }),
            role: role.into(),
            tier: own.to_owned(),
            name,
            expires_ms,
            ..ApiKey::default()
        })
    }
}

fn object(key: &ApiKey) -> KeyOut {
    let when = |ms: i64| (ms > 0).then_some(ms / 1000);
    let principal = key.principal.clone().unwrap_or_default();
    KeyOut {
        id: key.id.clone(),
        object: "api_key",
        key: None,
        name: key.name.clone(),
        tenant: principal.tenant,
        user: principal.user_id,
        role: if key.role() == KeyRole::Admin { "admin" } else { "user" },
        tier: Some(key.tier.clone()).filter(|tier| !tier.is_empty()),
        created_at: key.created_ms / 1000,
        expires_at: when(key.expires_ms),
        revoked_at: when(key.revoked_ms),
        last_used_at: when(key.last_used_ms),
    }
}
