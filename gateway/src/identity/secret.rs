//! The secret that the gateways of one mesh share: API keys are hashed with it, tickets and stream tokens are signed with it. It comes from
//! a setting, or from a file that only its owner may read, made at first need.

use std::{
    fmt, fs,
    io::{self, Write as _},
    os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
};

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

/// A keyed hash that is ready for its message.
type Keyed = Hmac<Sha256>;

/// The fewest bytes of a secret: those of the hash, so that it is no easier to guess.
const LEAST: usize = 32;
/// Bytes of a secret that is made here.
const MADE: usize = 32;
/// Bytes of a hash.
pub(crate) const HASH: usize = 32;

/// The secret. It is never printed.
#[derive(Clone)]
pub struct Secret {
    keys: Keyed,
    tokens: Keyed,
    id: String,
}

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is too short.
    #[error("UNBROKEN_KEY_SECRET has fewer than {LEAST} characters; make one with: openssl rand -hex 32")]
    Short,
    /// None was given, and there is no place to keep one.
    #[error("keys need a secret that all gateways share: set UNBROKEN_KEY_SECRET (openssl rand -hex 32), or UNBROKEN_KEY_SECRET_FILE")]
    Missing,
    /// The file cannot be used.
    #[error("the file of the key secret, {path:?} (UNBROKEN_KEY_SECRET_FILE), cannot be used")]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Others may read the file.
    #[error("the file of the key secret, {0:?} (UNBROKEN_KEY_SECRET_FILE), may be read by others: chmod 600 it")]
    Open(PathBuf),
    /// The operating system has no random numbers.
    #[error("the operating system gives no random numbers")]
    Random,
}

impl Secret {
    /// Of this text.
    ///
    /// # Errors
    /// It is too short.
    pub fn new(text: &str) -> Result<Self, Error> {
        let text = text.trim();
        if text.len() < LEAST {
            return Err(Error::Short);
        }
        Ok(Self::of(text.as_bytes()))
    }

    /// One that nobody else knows: for what no other gateway has to understand.
    ///
    /// # Errors
    /// There are no random numbers.
    pub fn random() -> Result<Self, Error> {
        Ok(Self::of(&random::<MADE>()?))
    }

    /// Of the text in this file, which is made if there is none.
    ///
    /// # Errors
    /// The file cannot be read or made, others may read it, or it is too short.
    pub fn of_file(path: &Path) -> Result<Self, Error> {
        let broken = |source| Error::File {
            path: path.to_owned(),
            source,
        };
        if !path.exists() {
            make(path, &hex(&random::<MADE>()?)).map_err(broken)?;
        }
        let mode = fs::metadata(path).map_err(broken)?.permissions().mode();
        if mode & 0o077 != 0 {
            return Err(Error::Open(path.to_owned()));
        }
        Self::new(&fs::read_to_string(path).map_err(broken)?)
    }

    fn of(bytes: &[u8]) -> Self {
        let named = |name: &[u8]| keyed(&keyed(bytes).chain_update(name).finalize().into_bytes());
        Self {
            keys: named(b"unbroken api key"),
            tokens: named(b"unbroken token"),
            id: hex(&named(b"unbroken secret id").finalize().into_bytes()[..4]),
        }
    }

    /// What tells it from another one, and tells nothing else of it.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The hash of an API key.
    pub(super) fn hash_of_key(&self, key: &str) -> [u8; HASH] {
        self.keys.clone().chain_update(key).finalize().into_bytes().into()
    }

    /// Whether `hash` is that of an API key. Takes the same time wherever they differ.
    pub(super) fn is_hash_of_key(&self, hash: &[u8], key: &str) -> bool {
        self.keys.clone().chain_update(key).verify_slice(hash).is_ok()
    }

    /// The signature of a ticket or a stream token.
    pub(super) fn sign(&self, token: &[u8]) -> [u8; HASH] {
        self.tokens.clone().chain_update(token).finalize().into_bytes().into()
    }

    /// Whether `signature` is ours. Takes the same time wherever it differs.
    pub(super) fn has_signed(&self, token: &[u8], signature: &[u8]) -> bool {
        self.tokens.clone().chain_update(token).verify_slice(signature).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secret({})", self.id)
    }
}

fn keyed(key: &[u8]) -> Keyed {
    // HMAC takes keys of any length.
    Keyed::new_from_slice(key).unwrap_or_else(|_| unreachable!("HMAC takes keys of any length"))
}

/// Random bytes from the operating system.
///
/// # Errors
/// It has none.
pub(super) fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(bytes)
}

/// Bytes as a text.
pub(crate) fn hex(bytes: &[u8]) -> String {
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 15]);
    digits.filter_map(|digit| char::from_digit(digit.into(), 16)).collect()
}

/// Makes the file whole or not at all. One that somebody else has made meanwhile stays.
fn make(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mine = path.with_extension(format!("{}.new", std::process::id()));
    let _ = fs::remove_file(&mine);
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&mine)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    let linked = fs::hard_link(&mine, path);
    fs::remove_file(&mine)?;
    match linked {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
        _ => Ok(()),
    }
}
