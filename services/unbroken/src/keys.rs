//! `unbroken keys`: makes, lists and revokes API keys, at a conversation store that runs. For the operator: whoever reaches the store and
//! has the secret of the gateways needs no key for it.

use std::{
    error::Error,
    path::PathBuf,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use chassis::{channel, setting};
use clap::{Args, Subcommand, ValueEnum};
use gateway::identity::{KeySettings, NewKey};
use proto::v1::{
    ApiKey, CreateKeyRequest, Failure, KeyRole, ListKeysRequest, Principal, Reason, RevokeKeyRequest,
    conversation_service_client::ConversationServiceClient,
};
use tonic::{Status, transport::Channel};

type Outcome = Result<(), Box<dyn Error + Send + Sync>>;
type Store = ConversationServiceClient<Channel>;

/// Where the store listens if nothing is said.
const STORE: &str = "127.0.0.1:50071";
/// How long all of it may take: a long list, over a slow line.
const PATIENCE: Duration = Duration::from_secs(30);
/// Keys that are asked for at once.
const PAGE: u32 = 500;

/// What to do with keys.
#[derive(Debug, Subcommand)]
pub(crate) enum Keys {
    /// Makes an API key, and prints it: this once, as only a hash of it is kept
    Create(Create),
    /// Lists API keys, the newest first
    List(List),
    /// Revokes an API key: every gateway refuses it within two seconds
    Revoke(Revoke),
}

#[derive(Args, Debug)]
pub(crate) struct Create {
    /// On whose behalf it speaks
    #[arg(long, value_name = "NAME")]
    user: String,
    /// Whose data they see; without it, the default tenant's
    #[arg(long, default_value = "", hide_default_value = true, value_name = "NAME")]
    tenant: String,
    /// What it may do: chat, or also manage its tenant's keys
    #[arg(long, value_enum, default_value = "user", value_name = "ROLE")]
    role: Role,
    /// The tier whose limits hold for it; without it, the default
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TIER")]
    tier: String,
    /// What to call it in lists
    #[arg(long, default_value = "", hide_default_value = true, value_name = "TEXT")]
    name: String,
    /// For how long it is good, as 90d; without it, until it is revoked
    #[arg(long, value_parser = setting::duration, value_name = "TIME")]
    expires: Option<Duration>,
    /// Prints the key and nothing else, for scripts
    #[arg(long)]
    quiet: bool,
    #[command(flatten)]
    keys: KeySettings,
    /// Where the key secret is kept, as `key-secret`, unless one of the above says something else
    #[arg(long, env = "UNBROKEN_DATA_DIR", value_name = "DIR")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct List {
    /// Of this tenant only
    #[arg(long, value_name = "NAME")]
    tenant: Option<String>,
    #[command(flatten)]
    place: Place,
}

#[derive(Args, Debug)]
pub(crate) struct Revoke {
    /// The key's id: the part between the second and the third `_`
    id: String,
    #[command(flatten)]
    place: Place,
}

/// Where the store is.
#[derive(Args, Debug)]
struct Place {
    /// The conversation store that runs; 127.0.0.1:50071 or, where that is set, UNBROKEN_STORE_LISTEN, if not said
    #[arg(long, env = "UNBROKEN_STORE", value_name = "HOST:PORT")]
    store: Option<String>,
    #[arg(long, env = "UNBROKEN_STORE_LISTEN", hide = true)]
    store_listen: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Role {
    User,
    Admin,
}

/// Does it.
///
/// # Errors
/// A setting is wrong, the store cannot be reached, or it refuses.
pub(crate) async fn run(keys: Keys) -> Outcome {
    let work = async {
        match keys {
            Keys::Create(create) => create.run().await,
            Keys::List(list) => list.run().await,
            Keys::Revoke(revoke) => revoke.run().await,
        }
    };
    let done = tokio::time::timeout(PATIENCE, work).await;
    done.unwrap_or_else(|_| Err(format!("the conversation store does not answer within {PATIENCE:?}").into()))
}

impl Create {
    #[allow(clippy::print_stdout)]
    async fn run(self) -> Outcome {
        if self.user.is_empty() {
            return Err("--user is empty: a key speaks on somebody's behalf".into());
        }
        let mut settings = self.keys;
        if settings.key_secret.is_none() && settings.key_secret_file.is_none() {
            settings.key_secret_file = Some(crate::mesh::key_secret_file(self.data_dir)?);
        }
        let secret = settings.secret()?;
        let new = NewKey::make(&secret, settings.environment()?)?;
        let expires_ms = match self.expires {
            None => 0,
            Some(time) => i64::try_from((SystemTime::now().duration_since(UNIX_EPOCH)? + time).as_millis())?,
        };
        let role = match self.role {
            Role::User => KeyRole::User,
            Role::Admin => KeyRole::Admin,
        };
        let key = ApiKey {
            id: new.id.clone(),
            hash: new.hash.to_vec(),
            secret_id: secret.id().to_owned(),
            principal: Some(Principal {
                tenant: self.tenant,
                user_id: self.user,
            }),
            role: role.into(),
            tier: self.tier,
            name: self.name,
            expires_ms,
            ..ApiKey::default()
        };
        let (mut store, address) = self.place.store()?;
        let made = store.create_key(CreateKeyRequest { key: Some(key) }).await;
        let made = made.map_err(|status| told(&status, &address))?.into_inner();
        if self.quiet {
            println!("{}", new.reveal());
        } else {
            println!("{}\n", new.reveal());
            println!(
                "This key is shown this once. It speaks for {}; its id is {}.",
                whose(&made),
                made.id
            );
            println!("Send it as   Authorization: Bearer <key>   or   x-api-key: <key>");
        }
        Ok(())
    }
}

impl List {
    #[allow(clippy::print_stdout)]
    async fn run(self) -> Outcome {
        let (mut store, address) = self.place.store()?;
        println!(
            "{:<12}  {:<24}  {:<5}  {:<10}  {:<10}  {:<10}  {:<22}  NAME",
            "ID", "WHO", "ROLE", "TIER", "MADE", "USED", "STATE"
        );
        let mut after_id = String::new();
        loop {
            let request = ListKeysRequest {
                tenant: self.tenant.clone(),
                page_size: PAGE,
                after_id: std::mem::take(&mut after_id),
            };
            let mut page = store
                .list_keys(request)
                .await
                .map_err(|status| told(&status, &address))?
                .into_inner();
            while let Some(key) = page.message().await.map_err(|status| told(&status, &address))? {
                println!("{}", line(&key));
                after_id = key.id;
            }
            if after_id.is_empty() {
                return Ok(());
            }
        }
    }
}

impl Revoke {
    #[allow(clippy::print_stdout)]
    async fn run(self) -> Outcome {
        // Whoever pastes the whole key means its id.
        let id = self.id.split('_').nth(2).unwrap_or(&self.id).to_owned();
        let (mut store, address) = self.place.store()?;
        let revoked = store.revoke_key(RevokeKeyRequest { id, tenant: None }).await;
        let revoked = revoked.map_err(|status| told(&status, &address))?.into_inner();
        println!(
            "{} of {} is revoked; every gateway refuses it within two seconds.",
            revoked.id,
            whose(&revoked)
        );
        Ok(())
    }
}

impl Place {
    fn store(self) -> Result<(Store, String), channel::Error> {
        let address = self.store.or(self.store_listen).unwrap_or_else(|| STORE.to_owned());
        let channel = channel::lazy(&address)?;
        Ok((Store::new(channel), address))
    }
}

/// What the store says, in the words of whoever sits at a terminal.
fn told(status: &Status, address: &str) -> String {
    let failure = Failure::from_status(status);
    if failure.reason() == Reason::Unavailable {
        return format!("the conversation store cannot be reached at {address} (--store, UNBROKEN_STORE): does it run?");
    }
    failure.message
}

fn whose(key: &ApiKey) -> String {
    let principal = key.principal.clone().unwrap_or_default();
    match principal.tenant.as_str() {
        "" => principal.user_id,
        tenant => format!("{tenant}/{}", principal.user_id),
    }
}

fn line(key: &ApiKey) -> String {
    let role = if key.role() == KeyRole::Admin { "admin" } else { "user" };
    let state = match (key.revoked_ms, key.expires_ms) {
        (0, 0) => "good".to_owned(),
        (0, until) if until > now_ms() => format!("good until {}", day(until)),
        (0, since) => format!("expired {}", day(since)),
        (since, _) => format!("revoked {}", day(since)),
    };
    let used = if key.last_used_ms > 0 {
        day(key.last_used_ms)
    } else {
        "never".to_owned()
    };
    let tier = if key.tier.is_empty() { "-" } else { &key.tier };
    let (who, made, name) = (whose(key), day(key.created_ms), &key.name);
    format!(
        "{:<12}  {who:<24}  {role:<5}  {tier:<10}  {made:<10}  {used:<10}  {state:<22}  {name}",
        key.id
    )
    .trim_end()
    .to_owned()
}

fn now_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(now.as_millis()).unwrap_or(i64::MAX)
}

/// The day, in UTC.
fn day(ms: i64) -> String {
    let time = UNIX_EPOCH + Duration::from_millis(u64::try_from(ms).unwrap_or(0));
    let text = humantime::format_rfc3339_seconds(time).to_string();
    text.split('T').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_whose_a_key_is_and_how_it_stands() {
        let key = ApiKey {
            id: "abcdefghijkl".to_owned(),
            principal: Some(Principal {
                tenant: "acme".to_owned(),
                user_id: "ann".to_owned(),
            }),
            created_ms: 1_700_000_000_000,
            name: "laptop".to_owned(),
            ..ApiKey::default()
        };
        let good = line(&key);
        assert!(
            good.contains("acme/ann") && good.contains("2023-11-14") && good.contains("good") && good.ends_with("laptop"),
            "{good}"
        );
        let revoked = ApiKey {
            revoked_ms: 1_700_000_000_000,
            ..key.clone()
        };
        assert!(line(&revoked).contains("revoked 2023-11-14"));
        let over = ApiKey {
            expires_ms: 1_700_000_000_000,
            ..key
        };
        assert!(line(&over).contains("expired 2023-11-14"));
    }
}
