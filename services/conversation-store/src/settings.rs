//! The store's settings, and what they say about the database.

use std::{fmt, path::PathBuf, str::FromStr, time::Duration};

use chassis::setting;
use clap::Args;
use directories::ProjectDirs;
use sqlx::postgres::PgConnectOptions;

use crate::error::Error;

/// The file's name in the data directory.
const FILE: &str = "unbroken.db";

/// Settings of the conversation store.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Conversation store")]
#[group(skip)]
pub struct Settings {
    /// Where the store listens for gRPC
    #[arg(long, env = "UNBROKEN_STORE_LISTEN", default_value = "127.0.0.1:50071", value_name = "HOST:PORT")]
    pub store_listen: String,
    /// Folder of the SQLite file `unbroken.db`; without it, the user's own data directory
    #[arg(long, env = "UNBROKEN_DATA_DIR", value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Database: `postgres://user:password@host/database`, or `sqlite:///path/to/file` instead of the one in the data directory
    #[arg(long, env = "UNBROKEN_DATABASE", value_name = "URL", hide_env_values = true)]
    pub database: Option<Address>,
    /// How long to wait at the start for a PostgreSQL that cannot be reached
    #[arg(long, env = "UNBROKEN_DATABASE_WAIT", default_value = "60s", value_parser = setting::duration, value_name = "TIME")]
    pub database_wait: Duration,
    /// How long a call may wait for the database
    #[arg(long, env = "UNBROKEN_STORE_TIMEOUT", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub store_timeout: Duration,
    /// How long a running answer counts as made after its router has saved it; past that it is lost, and another router sees to it
    #[arg(long, env = "UNBROKEN_LEASE", default_value = "15s", value_parser = setting::duration, value_name = "TIME")]
    pub lease: Duration,
    /// How long the request log is kept
    #[arg(long, env = "UNBROKEN_REQUEST_LOG_KEEP", default_value = "30d", value_parser = setting::duration, value_name = "TIME")]
    pub request_log_keep: Duration,
    /// How long a response of /v1/responses is kept that was to be stored
    #[arg(long, env = "UNBROKEN_RESPONSES_KEEP", default_value = "30d", value_parser = setting::duration, value_name = "TIME")]
    pub responses_keep: Duration,
}

/// A database's address. It may hold a password, so it is never printed: not by `Debug`, nor by clap, which takes any text here
/// and leaves the judgement to the start of the store.
#[derive(Clone, PartialEq, Eq)]
pub struct Address(String);

impl FromStr for Address {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Address(…)")
    }
}

/// What to open.
#[derive(Debug)]
pub(crate) enum Target {
    /// This file.
    Sqlite(PathBuf),
    /// This server.
    Postgres(Box<PgConnectOptions>),
}

impl Settings {
    /// What to open.
    pub(crate) fn target(&self) -> Result<Target, Error> {
        let Some(Address(address)) = self.database.as_ref().filter(|address| !address.0.is_empty()) else {
            return Ok(Target::Sqlite(data_dir(self.data_dir.clone())?.join(FILE)));
        };
        match address.split_once("://") {
            Some(("sqlite", "" | ":memory:")) => Err(Error::Address("it names no file".to_owned())),
            Some(("sqlite", path)) => Ok(Target::Sqlite(PathBuf::from(path))),
            Some(("postgres" | "postgresql", _)) => match PgConnectOptions::from_str(address) {
                Ok(options) => Ok(Target::Postgres(Box::new(options.application_name("unbroken-store")))),
                Err(_) => Err(Error::Address("its parts are not those of a PostgreSQL address".to_owned())),
            },
            Some((other, _)) if other.chars().all(|c| c.is_ascii_alphanumeric()) => {
                Err(Error::Address(format!("`{other}` is not a kind of database that the store knows")))
            }
            _ => Err(Error::Address("`://` is missing".to_owned())),
        }
    }
}

/// The folder where data is kept: the one of the setting, else the user's own.
///
/// # Errors
/// There is neither.
pub fn data_dir(setting: Option<PathBuf>) -> Result<PathBuf, Error> {
    match setting {
        Some(folder) => Ok(folder),
        None => ProjectDirs::from("", "", "unbroken")
            .map(|places| places.data_dir().to_owned())
            .ok_or(Error::NoHome),
    }
}

#[cfg(test)]
mod tests {
    use chassis::process::Fault as _;
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn target(address: &str) -> Result<Target, Error> {
        Command::parse_from(["test", "--database", address]).settings.target()
    }

    #[test]
    fn an_address_names_a_file_or_a_server() {
        assert!(matches!(target("sqlite:///var/lib/a.db"), Ok(Target::Sqlite(path)) if path.to_str() == Some("/var/lib/a.db")));
        assert!(matches!(target("postgres://u:p@db:5432/chat"), Ok(Target::Postgres(_))));
    }

    #[test]
    fn a_wrong_address_is_told_without_its_password() {
        for address in [
            "mysql://u:hunter2@db/chat",
            "hunter2",
            "sqlite://",
            "postgres://u:hunter2@db:port/chat",
            "postgres://u:hunter2@[/",
        ] {
            let error = target(address).unwrap_err();
            let text = error.to_string();
            assert!(
                error.is_of_setting() && text.contains("UNBROKEN_DATABASE") && !text.contains("hunter2"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_password_is_not_part_of_debug_output() {
        let settings = Command::parse_from(["test", "--database", "postgres://u:hunter2@db/chat"]).settings;
        assert!(!format!("{settings:?}").contains("hunter2"));
    }

    #[test]
    fn the_data_directory_holds_the_file_by_default() {
        let settings = Command::parse_from(["test", "--data-dir", "/srv/chat"]).settings;
        assert!(matches!(settings.target(), Ok(Target::Sqlite(path)) if path.to_str() == Some("/srv/chat/unbroken.db")));
    }
}
