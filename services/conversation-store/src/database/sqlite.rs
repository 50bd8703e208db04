//! SQLite, in a file: the default. Readers never wait; writers take turns on one connection, so that none ever finds the
//! database locked by another of ours. Called by [`open`](super::open).

use std::{path::Path, time::Duration};

use async_trait::async_trait;
use sqlx::{
    Connection as _, Pool, Transaction,
    migrate::Migrator,
    query::Query,
    sqlite::{SqliteArguments, SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{Database, Row, Session, batch};
use crate::{
    error::{Error, Fault},
    scope::{Params, Value},
};

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

/// How long to wait for another process that holds the file, and for a turn to write.
const BUSY: Duration = Duration::from_secs(5);
/// Connections that read. Each is a thread of its own.
const READERS: u32 = 4;

/// A file.
pub(crate) struct Sqlite {
    readers: Pool<sqlx::Sqlite>,
    writer: Pool<sqlx::Sqlite>,
}

impl Sqlite {
    /// Opens the file, and makes it where there is none.
    pub(crate) async fn open(path: &Path) -> Result<Self, Error> {
        let broken = |source: sqlx::Error| Error::Open {
            path: path.to_owned(),
            source: Box::new(source),
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(|source| broken(source.into()))?;
        }
        let options = SqliteConnectOptions::new()
            .filename(path)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            .foreign_keys(true)
            .busy_timeout(BUSY);
        let pool = |connections| {
            SqlitePoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(BUSY)
                // When the disk is full SQLite ends the transaction by itself, and sqlx never learns that it is over: such a connection
                // refuses the next one, so it is thrown away.
                .test_before_acquire(false)
                .before_acquire(|connection, _| Box::pin(async { Ok(!connection.is_in_transaction()) }))
        };
        let writer = pool(1).connect_with(options.clone()).await.map_err(broken)?;
        MIGRATIONS.run(&writer).await.map_err(|source| broken(source.into()))?;
        let readers = pool(READERS).connect_with(options).await.map_err(broken)?;
        Ok(Self { readers, writer })
    }
}

#[async_trait]
impl Database for Sqlite {
    async fn read(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(self.readers.begin().await?))
    }

    async fn write(&self) -> Result<Box<dyn Session>, Fault> {
        Ok(Box::new(self.writer.begin_with("BEGIN IMMEDIATE").await?))
    }

    fn batch(&self) -> &'static batch::Batch {
        &batch::SQLITE
    }

    async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }
}

#[async_trait]
impl Session for Transaction<'static, sqlx::Sqlite> {
    async fn rows(&mut self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Fault> {
        let rows = bound(sql, &params).fetch_all(&mut **self).await?;
        Ok(rows.into_iter().map(Row::Sqlite).collect())
    }

    async fn run(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Fault> {
        Ok(bound(sql, &params).execute(&mut **self).await?.rows_affected())
    }

    async fn commit(self: Box<Self>) -> Result<(), Fault> {
        Ok((*self).commit().await?)
    }
}

fn bound<'q>(sql: &'static str, params: &Params<'_>) -> Query<'q, sqlx::Sqlite, SqliteArguments> {
    params.values().iter().fold(sqlx::query(sql), |query, value| match *value {
        Value::Text(text) => query.bind(text),
        Value::Int(number) => query.bind(number),
        Value::Blob(bytes) => query.bind(bytes),
    })
}
