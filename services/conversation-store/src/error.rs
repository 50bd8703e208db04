//! What can go wrong: [`Error`] at the start of the process, [`Fault`] under a call.

use std::{path::PathBuf, time::Duration};

use proto::v1::{Failure, Reason};

/// Why the store cannot serve.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The database's address is not one.
    #[error("UNBROKEN_DATABASE is not an address ({0}); write it as sqlite:///path/to/file or postgres://user:password@host:5432/database")]
    Address(String),
    /// There is no place for the file.
    #[error("this user has no data directory; say with UNBROKEN_DATA_DIR where conversations are kept")]
    NoHome,
    /// The file cannot be used.
    #[error("the database file {path:?} cannot be opened; UNBROKEN_DATA_DIR or UNBROKEN_DATABASE says which it is")]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        source: Box<sqlx::Error>,
    },
    /// PostgreSQL is there and says no.
    #[error("PostgreSQL refuses what UNBROKEN_DATABASE says")]
    Refused(#[source] sqlx::Error),
    /// PostgreSQL was not there in time.
    #[error("PostgreSQL could not be reached within {patience:?} (UNBROKEN_DATABASE_WAIT)")]
    Unreachable {
        /// How long it was tried.
        patience: Duration,
        /// The last reason.
        source: sqlx::Error,
    },
    /// The tables cannot be brought up to date.
    #[error("the tables cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The tables cannot be kept apart.
    #[error("the rows of the principals cannot be kept apart (row-level security)")]
    Isolate(#[source] sqlx::Error),
    /// The listener cannot serve.
    #[error(transparent)]
    Serve(#[from] chassis::grpc::Error),
}

impl chassis::process::Fault for Error {
    fn is_of_setting(&self) -> bool {
        matches!(
            self,
            Self::Address(_) | Self::NoHome | Self::Open { .. } | Self::Refused(_) | Self::Isolate(_)
        )
    }
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Fault {
    /// The caller's, in its own words.
    #[error(transparent)]
    Told(#[from] Failure),
    /// The database's.
    #[error(transparent)]
    Database(#[from] sqlx::Error),
    /// Something in the database is not what was written there.
    #[error("a stored value cannot be read: {0}")]
    Unreadable(String),
}

/// After how long it is worth trying an absent database again.
const RETRY_MS: u32 = 1_000;

/// SQLite's result codes that say "not now" (<https://www.sqlite.org/rescode.html>): busy, locked, read-only, I/O, corrupt, full,
/// cannot open, not a database.
const SQLITE_PASSING: [u32; 8] = [5, 6, 8, 10, 11, 13, 14, 26];

/// PostgreSQL's classes and codes that say so (<https://www.postgresql.org/docs/current/errcodes-appendix.html>): connection,
/// insufficient resources, operator intervention, system error; then read-only, lock not available.
const POSTGRES_PASSING: [&str; 6] = ["08", "53", "57", "58", "25006", "55P03"];

/// PostgreSQL's codes for a transaction that lost to another: serialization failure, deadlock.
const POSTGRES_LOST: [&str; 2] = ["40001", "40P01"];

impl Fault {
    /// Whether the database is away, locked or full: nothing is wrong with what was asked.
    pub(crate) fn is_passing(error: &sqlx::Error) -> bool {
        match error {
            sqlx::Error::Database(error) => {
                let code = error.code().unwrap_or_default();
                match code.parse::<u32>() {
                    Ok(number) if code.len() != POSTGRES_CODE => SQLITE_PASSING.contains(&(number & 0xff)),
                    _ => POSTGRES_PASSING.iter().chain(&POSTGRES_LOST).any(|known| code.starts_with(known)),
                }
            }
            sqlx::Error::Io(_)
            | sqlx::Error::Tls(_)
            | sqlx::Error::Protocol(_)
            | sqlx::Error::PoolTimedOut
            | sqlx::Error::PoolClosed
            | sqlx::Error::WorkerCrashed
            | sqlx::Error::BeginFailed => true,
            _ => false,
        }
    }

    /// Whether the transaction lost to another one and may be tried again at once.
    pub(crate) fn lost(&self) -> bool {
        let Self::Database(sqlx::Error::Database(error)) = self else {
            return false;
        };
        error.code().is_some_and(|code| POSTGRES_LOST.contains(&&*code))
    }
}

/// Characters of a PostgreSQL error code. SQLite's are numbers of one to four.
const POSTGRES_CODE: usize = 5;

impl From<Fault> for Failure {
    fn from(fault: Fault) -> Self {
        match fault {
            Fault::Told(failure) => failure,
            Fault::Database(error) if Fault::is_passing(&error) => {
                tracing::warn!(%error, "the database is away");
                unavailable("the conversation store's database is away, locked or full")
            }
            Fault::Database(error) => {
                tracing::error!(%error, "the database refused a statement");
                Self::new(Reason::Internal, "the conversation store failed; its log says more")
            }
            Fault::Unreadable(what) => {
                tracing::error!(%what, "a stored value cannot be read");
                Self::new(Reason::Internal, "a stored value cannot be read; the store's log says more")
            }
        }
    }
}

/// The database does not answer.
pub(crate) fn unavailable(message: &str) -> Failure {
    Failure {
        retry_after_ms: RETRY_MS,
        ..Failure::new(Reason::StoreUnavailable, message)
    }
}
