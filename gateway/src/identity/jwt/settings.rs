//! How a gateway is told whose tokens it takes, and what stands in them: flags and `UNBROKEN_…` variables.

use std::time::Duration;

use chassis::setting;
use clap::Args;

use super::super::jws::Algorithm;

/// Settings of the tokens of an identity provider.
#[expect(clippy::struct_field_names, reason = "they are flags beside others")]
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
#[group(skip)]
pub struct Settings {
    /// The keys of an identity provider whose tokens (JWT) are taken: an https:// address of its JWKS (http:// only on this machine), or a
    /// file
    #[arg(long, env = "UNBROKEN_JWT_JWKS", value_name = "URL|FILE")]
    pub jwt_jwks: Option<String>,
    /// How old those keys may get before they are read again. A token with a key that is not among them has them read at once
    #[arg(long, env = "UNBROKEN_JWT_REFRESH", default_value = "10m", value_parser = setting::duration, value_name = "TIME")]
    pub jwt_refresh: Duration,
    /// The least time between two readings of those keys
    #[arg(long, env = "UNBROKEN_JWT_PAUSE", default_value = "20s", value_parser = setting::duration, value_name = "TIME")]
    pub jwt_pause: Duration,
    /// How old those keys may get while they cannot be read; past that, tokens get a 503
    #[arg(long, env = "UNBROKEN_JWT_STALE", default_value = "1h", value_parser = setting::duration, value_name = "TIME")]
    pub jwt_stale: Duration,
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
