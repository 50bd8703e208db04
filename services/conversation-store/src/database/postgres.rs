//! PostgreSQL, for many stores and routers. Called by [`open`](super::open). That it shows each statement the rows of its principal only
//! is in [`isolation`].

mod isolation;

use std::time::Duration;

use async_trait::async_trait;
use sqlx::{
    Connection as _, PgConnection, Pool, Transaction,
    migrate::Migrator,
    postgres::{PgArguments, PgConnectOptions, PgPoolOptions},
    query::Query,
};
use tokio::time::{Instant, sleep, timeout};

use self::isolation::Becoming;
use super::{Database, Row, Session, batch};
use crate::{
    error::{Error, Fault},
    scope::{Params, Value, Whose},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/postgres");

/// Connections of one store. A PostgreSQL takes a hundred in all by default.
const CONNECTIONS: u32 = 16;
/// How long a call waits for a connection before the database counts as away.
const ACQUIRE: Duration = Duration::from_secs(2);
/// The first pause between attempts at the start, which doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// A server.
pub(crate) struct Postgres(Pool<sqlx::Postgres>);

impl Postgres {
    /// Connects, and keeps trying as long as `patience` while nobody is there.
    pub(crate) async fn open(options: PgConnectOptions, patience: Duration) -> Result<Self, Error> {
        let until = Instant::now() + patience;
        let mut pause = FIRST_PAUSE;
        while let Err(error) = try_once(&options).await {
            if !Fault::is_passing(&error) {
                return Err(Error::Refused(error));
            }
            if Instant::now() + pause >= until {
                return Err(Error::Unreachable { patience, source: error });
            }
            tracing::warn!(%error, "PostgreSQL cannot be reached yet; trying again in {pause:?}");
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
        // The tables are their owner's; whoever uses them afterwards may be somebody who can do less.
        let owner = PgPoolOptions::new().max_connections(1).connect_lazy_with(options.clone());
        MIGRATIONS.run(&owner).await.map_err(Error::Migrate)?;
        owner.close().await;
        let role = isolation::prepare(&options).await.map_err(Error::Isolate)?;
        let pool = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(move |connection, _| {
                Box::pin(async move {
                    match role {
                        Some(role) => isolation::take(connection, role).await,
                        None => Ok(()),
                    }
                })
            })
            .connect_lazy_with(options);
        Ok(Self(pool))
    }
}

/// Whether somebody is there. A pool would try by itself, and say nothing meanwhile.
async fn try_once(options: &PgConnectOptions) -> Result<(), sqlx::Error> {
    match timeout(ACQUIRE, PgConnection::connect_with(options)).await {
        Ok(connected) => connected?.close().await,
        Err(_) => Err(sqlx::Error::PoolTimedOut),
    }
}

#[async_trait]
impl Database for Postgres {
    async fn read(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Isolated::new(self.0.begin_with("BEGIN READ ONLY").await?)))
    }

    async fn write(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(Isolated::new(self.0.begin().await?)))
    }

    fn batch(&self) -> &'static batch::Batch {
        &batch::POSTGRES
    }

    async fn close(&self) {
        self.0.close().await;
    }
}

/// A transaction, and on whose behalf it runs.
struct Isolated {
    transaction: Transaction<'static, sqlx::Postgres>,
    becoming: Becoming,
}

impl Isolated {
    fn new(transaction: Transaction<'static, sqlx::Postgres>) -> Self {
        Self {
            transaction,
            becoming: Becoming::default(),
        }
    }

    /// Runs on behalf of this one from now on.
    async fn become_of(&mut self, whose: Whose<'_>) -> Result<(), Fault> {
        if self.becoming.needs(whose) {
            let [kind, tenant, user] = isolation::settings(whose);
            let query = sqlx::query(isolation::BECOME).bind(kind).bind(tenant).bind(user);
            query.execute(&mut *self.transaction).await?;
            self.becoming.set(whose);
        }
        Ok(())
    }
}

#[async_trait]
impl Session for Isolated {
    async fn rows(&mut self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        self.become_of(params.whose()).await?;
        let rows = bound(sql, &params).fetch_all(&mut *self.transaction).await?;
        Ok(rows.into_iter().map(Row::Postgres).collect())
    }

    async fn run(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Fault> {
        self.become_of(params.whose()).await?;
        Ok(bound(sql, &params).execute(&mut *self.transaction).await?.rows_affected())
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        Ok(self.transaction.commit().await?)
    }
}

fn bound<'q>(sql: &'static str, params: &Params<'_>) -> Query<'q, sqlx::Postgres, PgArguments> {
    params.values().iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Blob(bytes) => query.bind(bytes),
    })
}
