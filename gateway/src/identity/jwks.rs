//! The keys of an identity provider (a JWKS, <https://www.rfc-editor.org/rfc/rfc7517>), by file or by address. Read again from time to time, and
//! when a token names a key that is not among them, but no more often than a bound says; while they cannot be read, the known ones stay good
//! for a time. Used by [`super::jwt`].

use std::{fs, io, path::PathBuf, sync::Arc, time::Duration};

use jsonwebtoken::jwk::Jwk;
use parking_lot::RwLock;
use reqwest::{Client, Url, redirect};
use serde::Deserialize;
use serde_json::Value;
use tokio::{
    sync::{Mutex, MutexGuard},
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
    source: Source,
    times: Times,
    algorithms: Vec<Algorithm>,
    set: RwLock<Option<Arc<Set>>>,
    /// When it was last tried to read them. Whoever reads holds it.
    tried: Mutex<Option<Instant>>,
}

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
    pub(super) fn new(place: &str, algorithms: Vec<Algorithm>, times: Times) -> Result<Self, Error> {
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
        Ok(Self {
            source,
            times,
            algorithms,
            set: RwLock::new(set),
            tried: Mutex::new(None),
        })
    }

    /// The key of this name; without a name, the only one. Nothing if there is none, also after a look at the newest ones.
    ///
    /// # Errors
    /// There are no keys to look through.
    pub(super) async fn find(&self, name: Option<&str>) -> Result<Option<Arc<PublicKey>>, Error> {
        let set = self.set.read().clone();
        if let Some(set) = &set {
            let found = set.find(name);
            let age = set.read.elapsed();
            if found.is_some() && age < self.times.refresh {
                return Ok(found);
            }
            if found.is_some() && age < self.times.stale {
                // Old, but good enough for everybody but the one who reads the new ones.
                return match self.tried.try_lock() {
                    Ok(tried) => Ok(self.read(tried).await.map_or(found, |set| set.find(name))),
                    Err(_) => Ok(found),
                };
            }
        }
        let tried = self.tried.lock().await;
        Ok(self.read(tried).await?.find(name))
    }

    /// The newest set; the one that is there and not too old, if no other can be read or if that was tried a moment ago.
    async fn read(&self, mut tried: MutexGuard<'_, Option<Instant>>) -> Result<Arc<Set>, Error> {
        let known = self.set.read().clone().filter(|set| set.read.elapsed() < self.times.stale);
        if tried.is_some_and(|tried| tried.elapsed() < self.times.pause) {
            return known.ok_or(Error::Late);
        }
        *tried = Some(Instant::now());
        let read = timeout(PATIENCE, self.bytes()).await.unwrap_or(Err(Error::Late));
        match read.and_then(|bytes| Set::of(&bytes, &self.algorithms)) {
            Ok(set) => {
                let set = Arc::new(set);
                *self.set.write() = Some(Arc::clone(&set));
                Ok(set)
            }
            Err(error) => {
                tracing::warn!(
                    error = &error as &dyn std::error::Error,
                    "the keys of UNBROKEN_JWT_JWKS cannot be read"
                );
                known.ok_or(error)
            }
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
mod tests {
    use super::*;

    const ALL: [Algorithm; 3] = [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa];

    #[test]
    fn keys_for_other_purposes_are_passed_over() {
        let set = |keys: &str| Set::of(format!("{{\"keys\":[{keys}]}}").as_bytes(), &ALL);
        let ed = r#"{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#;
        assert!(set(ed).unwrap().find(Some("a")).is_some());
        assert!(set(ed).unwrap().find(None).is_some(), "the only one");
        assert!(set(ed).unwrap().find(Some("b")).is_none());
        for other in [r#"{"kty":"oct","kid":"a","k":"c2VjcmV0"}"#, "3"] {
            assert!(matches!(set(other), Err(Error::Empty)), "{other}");
            assert_eq!(set(&format!("{other},{ed}")).unwrap().keys.len(), 1, "{other}");
        }
        assert!(
            set(&format!("{ed},{}", ed.replace("\"a\"", "\"b\""))).unwrap().find(None).is_none(),
            "which of them?"
        );
        assert!(matches!(Set::of(ed.as_bytes(), &ALL), Err(Error::Form(_))));
        assert!(matches!(
            Set::of(format!("{{\"keys\":[{ed}]}}").as_bytes(), &ALL[..2]),
            Err(Error::Empty)
        ));
    }

    #[test]
    fn keys_come_over_tls_or_from_this_machine() {
        assert!(url("https://login.example.com/keys").is_ok() && url("http://127.0.0.1:8000/keys").is_ok());
        assert!(matches!(url("http://login.example.com/keys"), Err(Error::Plain(_))));
        assert!(matches!(url("ftp://login.example.com/keys"), Err(Error::Address(_))));
    }
}
