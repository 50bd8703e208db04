//! The two databases behind one trait: [`sqlite`] and [`postgres`]. Both speak the statements of [`store`](crate::store); what
//! differs is how they are opened, how a transaction begins, how a batch of rows travels, and what their errors mean.

pub(crate) mod batch;
pub(crate) mod postgres;
pub(crate) mod sqlite;

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{Row as _, postgres::PgRow, sqlite::SqliteRow};

use crate::{
    error::{Error, Fault},
    scope::Params,
    settings::{Settings, Target},
};

/// A database that holds conversations.
#[async_trait]
pub(crate) trait Database: Send + Sync {
    /// A transaction that reads.
    async fn read(&self) -> Result<Box<dyn Session>, Fault>;
    /// A transaction that writes. On SQLite it waits for its turn: there is one writer at a time.
    async fn write(&self) -> Result<Box<dyn Session>, Fault>;
    /// The statements over many rows at once.
    fn batch(&self) -> &'static batch::Batch;
    /// Closes every connection.
    async fn close(&self);
}

/// A transaction. Dropping it undoes what it did.
#[async_trait]
pub(crate) trait Session: Send {
    /// Runs a statement and returns its rows: at most as many as it limits itself to.
    async fn rows(&mut self, sql: &'static str, params: Params<'_>) -> Result<Vec<Row>, Fault>;
    /// Runs a statement and returns how many rows it changed.
    async fn run(&mut self, sql: &'static str, params: Params<'_>) -> Result<u64, Fault>;
    /// Makes all of it last.
    async fn commit(self: Box<Self>) -> Result<(), Fault>;
}

impl dyn Session + '_ {
    /// The first row, if there is one.
    pub(crate) async fn row(&mut self, sql: &'static str, params: Params<'_>) -> Result<Option<Row>, Fault> {
        Ok(self.rows(sql, params).await?.into_iter().next())
    }
}

/// A row of a result. Columns count from 0.
pub(crate) enum Row {
    /// SQLite's.
    Sqlite(SqliteRow),
    /// PostgreSQL's.
    Postgres(PgRow),
}

impl Row {
    /// A text.
    pub(crate) fn text(&self, column: usize) -> Result<String, Fault> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }?)
    }

    /// A number.
    pub(crate) fn int(&self, column: usize) -> Result<i64, Fault> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }?)
    }

    /// A number that was stored as one of 32 bits.
    pub(crate) fn count(&self, column: usize) -> Result<u32, Fault> {
        Ok(u32::try_from(self.int(column)?).unwrap_or_default())
    }

    /// Bytes.
    pub(crate) fn blob(&self, column: usize) -> Result<Vec<u8>, Fault> {
        Ok(match self {
            Self::Sqlite(row) => row.try_get(column),
            Self::Postgres(row) => row.try_get(column),
        }?)
    }
}

/// Opens the database that the settings name, and brings its tables up to date.
pub(crate) async fn open(settings: &Settings) -> Result<Arc<dyn Database>, Error> {
    Ok(match settings.target()? {
        Target::Sqlite(path) => Arc::new(sqlite::Sqlite::open(&path).await?),
        Target::Postgres(options) => Arc::new(postgres::Postgres::open(*options, settings.database_wait).await?),
    })
}
