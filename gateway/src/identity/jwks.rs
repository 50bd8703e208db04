//! The keys of an identity provider (a JWKS, <https://www.rfc-editor.org/rfc/rfc7517>), by file or by address. Read again from time to time, and
//! when a token names a key that is not among them, but no more often than a bound says; while they cannot be read, the known ones stay good
//! for a time. Used by [`super::jwt`].

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use chassis::drain::Drain;
use jsonwebtoken::jwk::Jwk;
use parking_lot::{Mutex, RwLock};
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::jws::{Algorithm, PublicKey};

/// How long one reading may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest set, in bytes, and the most keys that are taken from it.
const BYTES: usize = 256 * 1024;
const KEYS: usize = 64;

/// Where the keys are.
#[derive(Debug)]
enum Source {
    File(PathBuf),
    Url(Client, Url),
}

/// When keys are read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    /// How old they may be before they are read again: so soon a key that the provider took out is refused.
    pub(super) refresh: Duration,
    /// The least time between two readings: whoever sends tokens with made-up key names does not make us ask more often.
    pub(super) pause: Duration,
    /// How old they may be while they cannot be read again.
    pub(super) stale: Duration,
}

/// The keys.
#[derive(Debug)]
pub(super) struct Jwks {
    shared: Arc<Shared>,
    times: Times,
    /// When the last reading began; its sender goes when it ends.
    last: Mutex<Option<(Instant, watch::Receiver<()>)>>,
    drain: Drain,
}

/// What a reading needs.
#[derive(Debug)]
struct Shared {
    source: Source,
    algorithms: Vec<Algorithm>,
    set: RwLock<Option<Arc<Set>>>,
}

/// A reading that runs, for at most [`PATIENCE`].
struct Reading {
    ended: watch::Receiver<()>,
    /// Whether it was begun for who asked.
    is_mine: bool,
}

/// No keys could be read, and none that are known are young enough.
#[derive(Debug)]
pub(super) struct Unread;

#[derive(Debug)]
struct Set {
    keys: Vec<Key>,
    read: Instant,
}

/// A key, and what a token calls it.
#[derive(Debug)]
struct Key {
    name: Option<String>,
    key: Arc<PublicKey>,
}

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting is no address.
    #[error("{0:?} is not an address; write it as https://host/path, or as the path of a file")]
    Address(String),
    /// An address without TLS, past this machine.
    #[error("{0:?} is not https: whoever sits between could choose the keys")]
    Plain(String),
    /// The file cannot be read.
    #[error("{0:?} cannot be read")]
    File(PathBuf, #[source] io::Error),
    /// The provider cannot be asked.
    #[error("the identity provider cannot be asked")]
    Http(#[source] reqwest::Error),
    /// It took too long.
    #[error("the identity provider does not answer in time")]
    Late,
    /// It is too large.
    #[error("the key set has more than {BYTES} bytes")]
    Large,
    /// It is no JWKS.
    #[error("it is not a JSON Web Key Set")]
    Form(#[source] serde_json::Error),
    /// There is nothing in it.
    #[error("it has no key for any of the algorithms of UNBROKEN_JWT_ALGORITHMS")]
    Empty,
}

impl Jwks {
    /// Those of a setting. A file is read at once, an address at first need.
    ///
    /// # Errors
    /// It is no address, or the file has no keys.
    pub(super) fn new(place: &str, algorithms: Vec<Algorithm>, times: Times, drain: &Drain) -> Result<Self, Error> {
        let source = match place.split_once("://") {
            None => Source::File(PathBuf::from(place)),
            Some(_) => Source::Url(client()?, url(place)?),
        };
        let set = match &source {
            Source::File(path) => {
                let bytes = fs::read(path).map_err(|source| Error::File(path.clone(), source))?;
                Some(Arc::new(Set::of(&bytes, &algorithms)?))
            }
            Source::Url(..) => None,
        };
        let shared = Shared {
            source,
            algorithms,
            set: RwLock::new(set),
        };
        Ok(Self {
            shared: Arc::new(shared),
            times,
            last: Mutex::new(None),
            drain: drain.clone(),
        })
    }

    /// The key of this name; without a name, the only one. Nothing if there is none, also after a look at the newest ones.
    ///
    /// # Errors
    /// There are no keys to look through.
    pub(super) async fn find(&self, name: Option<&str>) -> Result<Option<Arc<PublicKey>>, Unread> {
        let known = self.known();
        let found = known.as_ref().and_then(|set| set.find(name));
        if found.is_some() && known.is_some_and(|set| set.read.elapsed() < self.times.refresh) {
            return Ok(found);
        }
        match self.reading() {
            Some(mut reading) if reading.is_mine || found.is_none() => {
                let _ = reading.ended.changed().await;
            }
            // Old, but good enough for everybody but the one for whom the new ones are read.
            _ if found.is_some() => return Ok(found),
            _ => {}
        }
        match self.known() {
            Some(set) => Ok(set.find(name)),
            None => found.map(Some).ok_or(Unread),
        }
    }

    /// What was read last, if that is not too long ago.
    fn known(&self) -> Option<Arc<Set>> {
        self.shared.set.read().clone().filter(|set| set.read.elapsed() < self.times.stale)
    }

    /// The reading that runs, or a new one; nothing if the last was a moment ago. It is a task of its own: whoever waits for it may go, and
    /// would otherwise take it along, so that nobody reads for the time of a pause.
    fn reading(&self) -> Option<Reading> {
        let mut last = self.last.lock();
        if let Some((began, ended)) = &*last {
            if ended.has_changed().is_ok() {
                let ended = ended.clone();
                return Some(Reading { ended, is_mine: false });
            }
            if began.elapsed() < self.times.pause {
                return None;
            }
        }
        let (end, ended) = watch::channel(());
        *last = Some((Instant::now(), ended.clone()));
        let shared = Arc::clone(&self.shared);
        self.drain.spawn(async move {
            shared.read().await;
            drop(end);
        });
        Some(Reading { ended, is_mine: true })
    }
}

impl Shared {
    /// Reads the keys, and keeps them if they can be read.
    async fn read(&self) {
        let read = timeout(PATIENCE, self.bytes()).await.unwrap_or(Err(Error::Late));
        match read.and_then(|bytes| Set::of(&bytes, &self.algorithms)) {
            Ok(set) => *self.set.write() = Some(Arc::new(set)),
            Err(error) => tracing::warn!(
                error = &error as &dyn std::error::Error,
                "the keys of UNBROKEN_JWT_JWKS cannot be read"
            ),
        }
    }

    async fn bytes(&self) -> Result<Vec<u8>, Error> {
        let (client, url) = match &self.source {
            Source::File(path) => {
                return tokio::fs::read(path).await.map_err(|source| Error::File(path.clone(), source));
            }
            Source::Url(client, url) => (client, url),
        };
        let response = client.get(url.clone()).send().await.and_then(reqwest::Response::error_for_status);
        let mut response = response.map_err(Error::Http)?;
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(Error::Http)? {
            if bytes.len() + chunk.len() > BYTES {
                return Err(Error::Large);
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}

impl Set {
    /// The keys of a JWKS that are for these algorithms. Others are passed over: a provider may have keys for other purposes.
    fn of(bytes: &[u8], algorithms: &[Algorithm]) -> Result<Self, Error> {
        #[derive(Deserialize)]
        struct Raw {
            keys: Vec<Value>,
        }
        let raw: Raw = serde_json::from_slice(bytes).map_err(Error::Form)?;
        let keys = raw.keys.into_iter().filter_map(|key| {
            let jwk: Jwk = serde_json::from_value(key).ok()?;
            let key = PublicKey::of(&jwk).filter(|key| algorithms.contains(&key.algorithm()))?;
            Some(Key {
                name: jwk.common.key_id,
                key: Arc::new(key),
            })
        });
        let keys: Vec<_> = keys.take(KEYS).collect();
        if keys.is_empty() {
            return Err(Error::Empty);
        }
        Ok(Self {
            keys,
            read: Instant::now(),
        })
    }

    fn find(&self, name: Option<&str>) -> Option<Arc<PublicKey>> {
        let found = match (name, self.keys.as_slice()) {
            (None, [only]) => Some(only),
            (None, _) => None,
            (name, keys) => keys.iter().find(|key| key.name.as_deref() == name),
        };
        found.map(|key| Arc::clone(&key.key))
    }
}

fn url(place: &str) -> Result<Url, Error> {
    let url = Url::parse(place).map_err(|_| Error::Address(place.to_owned()))?;
    let here = matches!(url.host_str(), Some("localhost" | "127.0.0.1" | "[::1]"));
    match url.scheme() {
        "https" => Ok(url),
        "http" if here => Ok(url),
        "http" => Err(Error::Plain(place.to_owned())),
        _ => Err(Error::Address(place.to_owned())),
    }
}

fn client() -> Result<Client, Error> {
    // One provider of cryptography for the process; somebody else may have chosen it already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder()
        .redirect(redirect::Policy::none())
        .user_agent(concat!("unbroken/", env!("CARGO_PKG_VERSION")))
        .build()
        .map_err(Error::Http)
}

#[cfg(test)]
mod tests;
