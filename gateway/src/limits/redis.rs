//! The books of all callers in a Redis (or Valkey), for several gateways. Each operation is one script there, in one round trip, so that
//! no two gateways can both grant the last of a limit; the times are Redis' own.
//!
//! Keys are `unbroken:limits:{<caller>}`, where the caller is a hash, and lose themselves: a book a day after its last use. It needs one
//! primary that has all keys; [`super::shared`] knows what to do without it.

use std::{sync::Arc, time::Duration};

use redis::{
    Client, RedisError, RedisResult, Script,
    aio::{ConnectionManager, ConnectionManagerConfig},
};
use tokio::time::timeout;

use super::{
    Ledger, LedgerGone,
    terms::{Ask, CHECK_MS, Granted, HOLD_MS, Limit, Over, Settlement, Standing, Verdict},
};

/// How long connecting may take. Nobody waits for it but who looks whether Redis is back.
const CONNECT: Duration = Duration::from_secs(1);

/// A connection to it.
pub(super) struct Redis {
    connection: ConnectionManager,
    /// How long a request may wait for it.
    deadline: Duration,
    admit: Script,
    settle: Script,
}

impl Redis {
    /// Begins to connect at the first use.
    ///
    /// # Errors
    /// The address is not one.
    pub(super) fn new(address: &str, deadline: Duration) -> Result<Self, RedisError> {
        let config = ConnectionManagerConfig::new()
            .set_number_of_retries(0)
            .set_connection_timeout(Some(CONNECT))
            .set_response_timeout(Some(deadline));
        Ok(Self {
            connection: ConnectionManager::new_lazy_with_config(Client::open(address)?, config)?,
            deadline,
            admit: Script::new(include_str!("redis/admit.lua")),
            settle: Script::new(include_str!("redis/settle.lua")),
        })
    }

    /// Whether it answers.
    pub(super) async fn ping(&self) -> Result<(), LedgerGone> {
        let mut connection = self.connection.clone();
        let ping = async move { redis::cmd("PING").query_async::<()>(&mut connection).await };
        within(CONNECT, ping).await
    }
}

#[tonic::async_trait]
impl Ledger for Redis {
    async fn admit(&self, ask: &Ask, now: u64) -> Result<Verdict, LedgerGone> {
        let (book, mark) = keys(&ask.who, &ask.name);
        let mut script = self.admit.prepare_invoke();
        script.key(book).key(mark).arg(now).arg(ask.bounds.requests).arg(ask.bounds.tokens);
        script.arg(ask.bounds.streams).arg(&ask.name).arg(ask.prompt).arg(ask.output);
        script.arg(ask.least).arg(HOLD_MS).arg(CHECK_MS);
        let mut connection = self.connection.clone();
        let said: Said = within(self.deadline, script.invoke_async(&mut connection)).await?;
        said.try_into()
    }

    async fn settle(&self, end: &Settlement, now: u64) -> Result<bool, LedgerGone> {
        let (book, mark) = keys(&end.who, &end.name);
        let owed = end.owed.and_then(|day| i64::try_from(day).ok()).unwrap_or(-1);
        let mut script = self.settle.prepare_invoke();
        script
            .key(book)
            .key(mark)
            .arg(now)
            .arg(&end.name)
            .arg(end.tokens)
            .arg(end.keep_ms)
            .arg(owed);
        let mut connection = self.connection.clone();
        within(self.deadline, script.invoke_async(&mut connection)).await
    }
}

async fn within<T>(time: Duration, work: impl Future<Output = RedisResult<T>>) -> Result<T, LedgerGone> {
    match timeout(time, work).await {
        Ok(Ok(said)) => Ok(said),
        Ok(Err(error)) => Err(LedgerGone(error.to_string())),
        Err(_) => Err(LedgerGone(format!("no answer within {} ms", time.as_millis()))),
    }
}

/// The caller's book, and the mark of an answer that is paid for: in one slot.
fn keys(who: &Arc<str>, name: &str) -> (String, String) {
    let book = format!("unbroken:limits:{{{who}}}");
    let mark = format!("{book}:{name}");
    (book, mark)
}

/// What `admit.lua` says.
type Said = (u8, u64, u64, u32, u64, u64, u64, Vec<String>);

impl TryFrom<Said> for Verdict {
    type Error = LedgerGone;

    fn try_from(
        (outcome, output, retry_ms, requests, requests_reset_ms, tokens, tokens_reset_ms, stale): Said,
    ) -> Result<Self, LedgerGone> {
        let over = |limit| Err(Over { limit, retry_ms });
        Ok(Self {
            outcome: match outcome {
                0 => Ok(Granted::Reserved(output)),
                1 => Ok(Granted::Again),
                2 => over(Limit::Requests),
                3 => over(Limit::Streams),
                4 => over(Limit::Tokens),
                other => return Err(LedgerGone(format!("an outcome that is none: {other}"))),
            },
            standing: Standing {
                requests,
                requests_reset_ms,
                tokens,
                tokens_reset_ms,
            },
            stale,
        })
    }
}
