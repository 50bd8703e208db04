//! Who asks. [`crate::stack`] has each request judged once, on its way to a door, and puts the [`Caller`] into its extensions; a door takes
//! it from there as an argument, and the request's [account](crate::account) keeps it.
//!
//! [`credential`] finds what a request presents: an API key ([`keys`]), a token of an identity provider ([`jwt`]), or a ticket or stream
//! token of ours ([`token`]). What a caller may see is not judged here: the router and the store show to each principal what is theirs.

mod cache;
mod caller;
pub(crate) mod credential;
mod jwks;
mod jws;
mod jwt;
pub(crate) mod key;
mod keys;
mod secret;
mod settings;
pub(crate) mod token;

use std::{sync::Arc, time::Duration};

use chassis::drain::Drain;
use http::{HeaderMap, Method, StatusCode, Uri};
use proto::v1::{Failure, Reason, TakeTicketRequest, conversation_service_client::ConversationServiceClient};
use tokio_util::sync::{CancellationToken, DropGuard};
use tonic::transport::Channel;

use self::caller::Who;
pub(crate) use self::{
    caller::{Caller, Role},
    secret::hex,
};
use self::{
    jwt::Jwt,
    keys::{Keys, now_ms},
    token::{Grant, Token},
};
pub use self::{
    key::New as NewKey,
    secret::Secret,
    settings::{Auth, Error, KeySettings, Settings},
};
use crate::{clients::Clients, failure::Refusal};

/// The route of the WebSocket, which takes tickets.
pub(crate) const SOCKET: &str = "/ws/chat";
/// The routes that take stream tokens: those that an `EventSource` reads, and that do nothing else.
pub(crate) const STREAMS: [&str; 3] = ["/v1/chat/stream", "/v1/chat/completions/stream", "/stream"];
/// How long a ticket is good: a page uses it at once.
const TICKET_TIME: Duration = Duration::from_secs(30);
/// How long a stream token is good: an `EventSource` comes back with the same address.
const STREAM_TIME: Duration = Duration::from_mins(5);

/// What is known of a request before it is judged.
#[derive(Debug)]
pub(crate) struct Asking<'a> {
    pub(crate) method: &'a Method,
    /// The route that it has come to.
    pub(crate) route: &'a str,
    pub(crate) uri: &'a Uri,
    pub(crate) headers: &'a HeaderMap,
}

/// Judges who asks.
#[derive(Debug)]
pub(crate) struct Identity {
    secret: Secret,
    asks: Option<Asks>,
    anonymous: Caller,
}

/// How it judges, where it asks.
#[derive(Debug)]
struct Asks {
    keys: Arc<Keys>,
    environment: String,
    jwt: Option<Jwt>,
    store: ConversationServiceClient<Channel>,
    _stop: DropGuard,
}

impl Identity {
    /// By these settings. `here`: only this machine reaches the gateway, so that nobody is asked unless the settings say so.
    ///
    /// # Errors
    /// A setting is wrong or missing.
    pub(crate) fn new(settings: &Settings, here: bool, clients: &Clients, drain: &Drain) -> Result<Self, Error> {
        let anonymous = Caller::anonymous();
        if !settings.asks(here) {
            // Tickets are given out all the same, so that a page need not know whether it needs them; nobody looks at them.
            return Ok(Self {
                secret: Secret::random()?,
                asks: None,
                anonymous,
            });
        }
        let secret = settings.keys.secret()?;
        let environment = settings.keys.environment()?.to_owned();
        let keys = Arc::new(Keys::new(secret.clone(), environment.clone(), clients.clone()));
        let stop = CancellationToken::new();
        let (keep_up, until) = (Arc::clone(&keys).keep_up(), stop.clone());
        drain.spawn(async move {
            until.run_until_cancelled(keep_up).await;
        });
        let asks = Asks {
            keys,
            environment,
            jwt: Jwt::new(&settings.jwt, drain)?,
            store: clients.store(),
            _stop: stop.drop_guard(),
        };
        Ok(Self {
            secret,
            asks: Some(asks),
            anonymous,
        })
    }

    /// Whether anybody is asked who they are.
    pub(crate) fn is_asked(&self) -> bool {
        self.asks.is_some()
    }

    /// The secret and the environment of keys that are made here. Nothing where nobody is asked.
    pub(crate) fn makes_keys(&self) -> Option<(&Secret, &str)> {
        Some((&self.secret, self.asks.as_ref()?.environment.as_str()))
    }

    /// Who sends this request.
    ///
    /// # Errors
    /// Nobody who is known, or it says so in a place where that must not be said.
    pub(crate) async fn judge(&self, asking: Asking<'_>) -> Result<Caller, Refusal> {
        credential::none_in_the_query(asking.uri)?;
        let Some(asks) = &self.asks else {
            return Ok(self.anonymous.clone());
        };
        if let Some(credential) = credential::of_headers(asking.headers)? {
            return asks.caller(credential).await;
        }
        if asking.route == SOCKET
            && let Some(ticket) = credential::ticket(asking.headers)
        {
            return self.with_ticket(asks, ticket).await;
        }
        if asking.method == Method::GET
            && STREAMS.contains(&asking.route)
            && let Some(text) = credential::stream_token(asking.uri)
        {
            return self.with_stream_token(asks, text).await;
        }
        Err(missing())
    }

    /// Whether they still are who they were: for a socket that begins another turn.
    ///
    /// # Errors
    /// Their key was revoked, or their time is over.
    pub(crate) async fn again(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(asks) = &self.asks else { return Ok(()) };
        if caller.0.expires_ms.is_some_and(|expires| now_ms() >= expires) {
            return Err(invalid("what you came with has expired: connect again with a new one"));
        }
        match caller.key() {
            Some(key) => asks.keys.still_good(key).await,
            None => Ok(()),
        }
    }

    /// A ticket for one socket, and until when it is good, in milliseconds since 1970.
    ///
    /// # Errors
    /// There are no random numbers.
    pub(crate) fn ticket(&self, caller: &Caller) -> Result<(String, i64), Refusal> {
        let number = secret::random::<16>().map_err(|_| Failure::new(Reason::Internal, "there are no random numbers"))?;
        Ok(self.token(caller, Grant::Socket(secret::hex(&number)), TICKET_TIME))
    }

    /// A stream token that allows this, and until when it is good, in milliseconds since 1970.
    pub(crate) fn stream_token(&self, caller: &Caller, grant: Grant) -> (String, i64) {
        self.token(caller, grant, STREAM_TIME)
    }

    fn token(&self, caller: &Caller, grant: Grant, time: Duration) -> (String, i64) {
        let time = i64::try_from(time.as_millis()).unwrap_or(i64::MAX);
        let expires_ms = now_ms().saturating_add(time).min(caller.0.expires_ms.unwrap_or(i64::MAX));
        let token = Token {
            tier: caller.0.tier.clone(),
            key: caller.0.key.clone(),
            until_ms: caller.0.expires_ms,
            ..Token::new(grant, caller.principal(), expires_ms)
        };
        (token.write(&self.secret), expires_ms)
    }

    async fn with_ticket(&self, asks: &Asks, ticket: &str) -> Result<Caller, Refusal> {
        let unknown =
            || invalid("this ticket is not good: a ticket opens one socket, within 30 seconds; get another from POST /v1/tickets");
        let token = Token::read(ticket, &self.secret, now_ms()).ok_or_else(unknown)?;
        let Grant::Socket(number) = &token.grant else {
            return Err(unknown());
        };
        let take = TakeTicketRequest {
            id: number.clone(),
            expires_ms: token.expires_ms,
        };
        let done = asks.store.clone().take_ticket(take).await.map_err(|_| {
            let message = "the ticket cannot be taken now: the conversation store cannot be reached";
            Failure::new(Reason::StoreUnavailable, message)
        })?;
        if !done.into_inner().taken {
            return Err(unknown());
        }
        // The socket outlives its ticket, but not what that was got with.
        let until_ms = token.until_ms;
        asks.caller_of(token, until_ms).await
    }

    async fn with_stream_token(&self, asks: &Asks, text: &str) -> Result<Caller, Refusal> {
        let unknown = || invalid("this stream_token is not good, or not any more; get another from POST /v1/tickets");
        let token = Token::read(text, &self.secret, now_ms()).ok_or_else(unknown)?;
        if matches!(token.grant, Grant::Socket(_)) {
            return Err(unknown());
        }
        let expires_ms = token.expires_ms;
        asks.caller_of(token, Some(expires_ms)).await
    }
}

impl Asks {
    async fn caller(&self, credential: &str) -> Result<Caller, Refusal> {
        if key::looks_like_one(credential) {
            return self.keys.caller(credential).await;
        }
        match &self.jwt {
            Some(jwt) => jwt.caller(credential).await,
            None => Err(Refusal::new(
                StatusCode::UNAUTHORIZED,
                "invalid_api_key",
                format!("this is not an API key of this gateway: they begin with ub_{}_", self.environment),
            )),
        }
    }

    /// Who came with a token of ours: only as long as the key is good that it was got with.
    async fn caller_of(&self, token: Token, expires_ms: Option<i64>) -> Result<Caller, Refusal> {
        if let Some(key) = &token.key {
            self.keys.still_good(key).await?;
        }
        Ok(Caller(Arc::new(Who {
            principal: token.principal(),
            role: Role::User,
            tier: token.tier,
            key: token.key,
            expires_ms,
            only: Some(token.grant),
        })))
    }
}

fn missing() -> Refusal {
    Refusal::new(
        StatusCode::UNAUTHORIZED,
        "missing_credentials",
        "an API key is needed: send it as Authorization: Bearer … or x-api-key; the operator makes one with: unbroken keys create",
    )
}

fn invalid(message: &str) -> Refusal {
    Refusal::new(StatusCode::UNAUTHORIZED, "invalid_token", message)
}

/// They are known, but may not do this.
pub(crate) fn forbidden(message: impl Into<String>) -> Refusal {
    Refusal::new(StatusCode::FORBIDDEN, "forbidden", message)
}
