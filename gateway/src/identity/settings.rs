//! How a gateway is told whom to let in: flags and `UNBROKEN_…` variables.

use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr};

use clap::{Args, ValueEnum};

use super::{
    jwt, key,
    secret::{self, Secret},
};

/// The settings of identity.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
#[group(skip)]
pub struct Settings {
    /// Whether a request needs an API key or a token. If not said: `off` where only this machine reaches the gateway (UNBROKEN_HTTP on
    /// loopback), `on` elsewhere
    #[arg(long, env = "UNBROKEN_AUTH", value_enum, value_name = "WHEN")]
    pub auth: Option<Auth>,
    /// How API keys are made and checked.
    #[command(flatten)]
    pub keys: KeySettings,
    /// Tokens of an identity provider.
    #[command(flatten)]
    pub jwt: jwt::Settings,
}

/// Whether anybody is asked who they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Auth {
    /// Everybody.
    On,
    /// Nobody: all are the same anonymous user.
    Off,
}

/// How API keys are made and checked.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Identity")]
#[group(skip)]
pub struct KeySettings {
    /// The secret that API keys are hashed with and tickets are signed with: the same for all gateways of a mesh, at least 32 characters
    #[arg(long, env = "UNBROKEN_KEY_SECRET", hide_env_values = true, value_name = "SECRET")]
    pub key_secret: Option<Hidden>,
    /// A file with that secret instead, which others must not be able to read; it is made if it is not there (in `unbroken`, if nothing is
    /// said: `key-secret` in the data directory)
    #[arg(long, env = "UNBROKEN_KEY_SECRET_FILE", value_name = "FILE")]
    pub key_secret_file: Option<PathBuf>,
    /// The environment that stands in API keys, `ub_ENVIRONMENT_…`: a key is good in its own only
    #[arg(long, env = "UNBROKEN_KEY_ENVIRONMENT", default_value = "live", value_name = "NAME")]
    pub key_environment: String,
}

/// A text that is never printed.
#[derive(Clone)]
pub struct Hidden(String);

impl FromStr for Hidden {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Hidden {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why nobody's identity can be judged.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The secret.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// The environment.
    #[error("UNBROKEN_KEY_ENVIRONMENT is {0:?}; 1 to 16 small letters and digits were expected")]
    Environment(String),
    /// Tokens.
    #[error(transparent)]
    Jwt(#[from] jwt::Error),
}

impl Settings {
    /// Whether anybody is asked who they are. `here`: only this machine reaches the gateway.
    pub fn asks(&self, here: bool) -> bool {
        match self.auth {
            Some(auth) => auth == Auth::On,
            None => !here,
        }
    }
}

impl KeySettings {
    /// The secret: of the setting, else of the file.
    ///
    /// # Errors
    /// There is neither, or it is no good.
    pub fn secret(&self) -> Result<Secret, secret::Error> {
        match (&self.key_secret, &self.key_secret_file) {
            (Some(Hidden(text)), _) if !text.is_empty() => Secret::new(text),
            (_, Some(file)) => Secret::of_file(file),
            _ => Err(secret::Error::Missing),
        }
    }

    /// The environment of keys.
    ///
    /// # Errors
    /// It has not the form of one.
    pub fn environment(&self) -> Result<&str, Error> {
        if key::is_environment(&self.key_environment) {
            Ok(&self.key_environment)
        } else {
            Err(Error::Environment(self.key_environment.clone()))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn settings(arguments: &[&str]) -> Settings {
        Command::parse_from(["test"].iter().chain(arguments)).settings
    }

    #[test]
    fn who_listens_for_others_asks_them_unless_told_otherwise() {
        assert!(!settings(&[]).asks(true) && settings(&[]).asks(false));
        assert!(settings(&["--auth", "on"]).asks(true) && !settings(&["--auth", "off"]).asks(false));
    }

    #[test]
    fn a_secret_is_not_printed_and_not_short() {
        let given = settings(&["--key-secret", "hunter2hunter2hunter2hunter2hunter2"]);
        assert!(given.keys.secret().is_ok() && !format!("{given:?}").contains("hunter2"));
        let short = settings(&["--key-secret", "hunter2"]).keys.secret().unwrap_err().to_string();
        assert!(short.contains("UNBROKEN_KEY_SECRET") && !short.contains("hunter2"), "{short}");
        assert!(matches!(settings(&[]).keys.secret(), Err(secret::Error::Missing)));
    }

    #[test]
    fn a_file_is_made_once_for_its_owner_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("data/key-secret");
        let of_file = || settings(&["--key-secret-file", path.to_str().unwrap()]).keys.secret();
        let made = of_file().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(of_file().unwrap().id(), made.id(), "the second time it is read");
        assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        assert!(matches!(of_file(), Err(secret::Error::Open(_))));
    }
}
