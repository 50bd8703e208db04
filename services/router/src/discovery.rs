//! Where the workers are: fixed addresses, or all addresses of a name that is resolved again and again.
//!
//! [`crate::run`] starts [`watch`], which says whenever the addresses may have changed. A name that cannot be resolved now keeps
//! its last addresses: a resolver that is away must not take the mesh with it.

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use chassis::drain::Drain;
use hickory_resolver::{Resolver, net::runtime::TokioRuntimeProvider};

use crate::Error;

/// How a name that stands for several workers is written.
const DNS: &str = "dns:///";
/// Addresses of one name: more would be a mistake.
const MAX_ADDRESSES: usize = 1024;

/// Where one or more workers are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// One worker.
    Fixed(String),
    /// All addresses of a name.
    Name { host: String, port: u16 },
}

impl Place {
    /// Reads `host:port` or `dns:///name:port`.
    ///
    /// # Errors
    /// [`Error::Worker`].
    pub(crate) fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |reason: String| Error::Worker {
            address: text.to_owned(),
            reason,
        };
        let Some(name) = text.strip_prefix(DNS) else {
            chassis::channel::endpoint(text).map_err(|error| wrong(error.to_string()))?;
            return Ok(Self::Fixed(text.to_owned()));
        };
        let (host, port) = name.rsplit_once(':').ok_or_else(|| wrong("the port is missing".to_owned()))?;
        let port = port.parse().map_err(|_| wrong(format!("{port:?} is not a port")))?;
        if host.is_empty() {
            return Err(wrong("the name is missing".to_owned()));
        }
        Ok(Self::Name {
            host: host.to_owned(),
            port,
        })
    }
}

/// Tells `known` the addresses of each place: fixed ones now, those of a name now and every `interval`.
///
/// # Errors
/// The system's resolver cannot be set up though there are names to resolve.
pub(crate) fn watch<F>(places: Vec<Place>, interval: Duration, drain: &Drain, known: F) -> Result<(), Error>
where
    F: Fn(&str, &BTreeSet<String>) + Clone + Send + Sync + 'static,
{
    for place in places {
        match place {
            Place::Fixed(address) => known(&address, &BTreeSet::from([address.clone()])),
            Place::Name { host, port } => {
                let resolver = Resolver::builder_tokio()
                    .and_then(hickory_resolver::ResolverBuilder::build)
                    .map_err(|error| Error::Resolver(error.to_string()))?;
                let known = known.clone();
                drain.spawn_until_draining(async move {
                    let mut failing = false;
                    loop {
                        resolve(&resolver, &host, port, &mut failing, &known).await;
                        tokio::time::sleep(interval).await;
                    }
                });
            }
        }
    }
    Ok(())
}

async fn resolve(
    resolver: &Resolver<TokioRuntimeProvider>,
    host: &str,
    port: u16,
    failing: &mut bool,
    known: &(impl Fn(&str, &BTreeSet<String>) + Sync),
) {
    let source = format!("{DNS}{host}:{port}");
    match resolver.lookup_ip(host).await {
        Ok(found) => {
            let addresses = found
                .iter()
                .take(MAX_ADDRESSES)
                .map(|ip| SocketAddr::new(ip, port).to_string())
                .collect();
            *failing = false;
            known(&source, &addresses);
        }
        Err(error) => {
            if !std::mem::replace(failing, true) {
                tracing::warn!(name = %source, %error, "cannot resolve the workers' name; keeping the last addresses");
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_an_address_or_a_name() {
        assert_eq!(Place::parse("127.0.0.1:50061").unwrap(), Place::Fixed("127.0.0.1:50061".to_owned()));
        let name = Place::Name {
            host: "workers.mesh.svc".to_owned(),
            port: 50061,
        };
        assert_eq!(Place::parse("dns:///workers.mesh.svc:50061").unwrap(), name);
        for wrong in ["worker", "dns:///workers", "dns:///workers:port", "dns:///:1", ""] {
            let error = Place::parse(wrong).unwrap_err().to_string();
            assert!(error.contains(&format!("{wrong:?}")), "{error}");
        }
    }
}
