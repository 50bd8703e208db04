//! Which routers there are: those of the setting, and all addresses of each `dns:///name:port` in it (a Kubernetes headless service),
//! resolved again and again. A router whose address has gone is not asked for new answers, and left when it has no more.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use chassis::{channel, drain::Drain};
use parking_lot::RwLock;
use tokio::{net::lookup_host, time::sleep};
use tokio_util::sync::CancellationToken;

use super::router::Router;
use crate::Settings;

/// How an address that stands for many begins.
const DNS: &str = "dns:///";
/// How often it is looked whether a router is stopping and its readers can go to another: a reader does not notice so little.
const LOOK: Duration = Duration::from_millis(50);
/// How often a router whose address has gone is looked at, whether it still has answers.
const LEAVE: Duration = Duration::from_secs(1);

/// The routers.
#[derive(Debug)]
pub(super) struct Routers {
    all: RwLock<Arc<[Arc<Router>]>>,
    fixed: Vec<String>,
    names: Vec<String>,
    exchanges: usize,
    drain: Drain,
    stop: CancellationToken,
}

impl Routers {
    /// Begins to connect to the fixed ones and to resolve the names.
    ///
    /// # Errors
    /// An address is not one.
    pub(super) fn start(settings: &Settings, drain: &Drain, stop: &CancellationToken) -> Result<Arc<Self>, channel::Error> {
        let (names, fixed): (Vec<String>, Vec<String>) = settings.routers.iter().cloned().partition(|address| address.starts_with(DNS));
        let names: Vec<String> = names.iter().map(|name| name[DNS.len()..].to_owned()).collect();
        for name in &names {
            channel::endpoint(name)?;
        }
        let routers = Arc::new(Self {
            all: RwLock::new(Arc::new([])),
            fixed,
            names,
            exchanges: settings.gateway_exchanges,
            drain: drain.clone(),
            stop: stop.clone(),
        });
        let look = Arc::clone(&routers).empty_the_draining();
        let until = stop.clone();
        drain.spawn(async move {
            until.run_until_cancelled(look).await;
        });
        routers.become_these(&routers.fixed.iter().cloned().collect())?;
        if !routers.names.is_empty() {
            let resolve = Arc::clone(&routers).resolve(settings.gateway_dns_interval);
            let stop = stop.clone();
            drain.spawn(async move {
                stop.run_until_cancelled(resolve).await;
            });
        }
        Ok(routers)
    }

    /// Moves the readers of routers that are stopping to others, for ever. Where there is no other they stay: a router that is stopping
    /// finishes what is read from it.
    async fn empty_the_draining(self: Arc<Self>) {
        loop {
            sleep(LOOK).await;
            let all = self.all();
            if has_room(&all) {
                all.iter()
                    .filter(|router| router.is_draining())
                    .for_each(|router| router.send_away());
            }
        }
    }

    /// All of them.
    pub(super) fn all(&self) -> Arc<[Arc<Router>]> {
        Arc::clone(&self.all.read())
    }

    /// Resolves the names for ever. What cannot be resolved stays as it was.
    async fn resolve(self: Arc<Self>, interval: Duration) {
        loop {
            let mut found: BTreeSet<String> = self.fixed.iter().cloned().collect();
            let mut whole = true;
            for name in &self.names {
                match lookup_host(name).await {
                    Ok(addresses) => found.extend(addresses.map(|address| address.to_string())),
                    Err(error) => {
                        tracing::warn!(name, %error, "the routers' name cannot be resolved");
                        whole = false;
                    }
                }
            }
            if whole && let Err(error) = self.become_these(&found) {
                tracing::warn!(%error, "a router's address cannot be used");
            }
            sleep(interval).await;
        }
    }

    /// Keeps the routers that are wanted, starts new ones, and leaves the others.
    fn become_these(&self, wanted: &BTreeSet<String>) -> Result<(), channel::Error> {
        let before = self.all();
        let (mut stay, leave): (Vec<_>, Vec<_>) = before.iter().cloned().partition(|router| wanted.contains(router.address()));
        for address in wanted {
            if stay.iter().all(|router| router.address() != address) {
                stay.push(Router::start(address, self.exchanges, &self.drain, self.stop.child_token())?);
            }
        }
        *self.all.write() = stay.into();
        for router in leave {
            tracing::info!(router = router.address(), "router left");
            let others = self.all();
            self.drain.spawn(async move {
                while router.answers() > 0 {
                    if router.is_draining() && has_room(&others) {
                        router.send_away();
                    }
                    sleep(LEAVE).await;
                }
                router.stop();
            });
        }
        Ok(())
    }
}

/// Whether one of these takes readers.
fn has_room(routers: &[Arc<Router>]) -> bool {
    let takes = |router: &Arc<Router>| router.is_live() && router.status().is_some_and(|status| !status.draining);
    routers.iter().any(takes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(routers: &Routers) -> Vec<String> {
        routers.all().iter().map(|router| router.address().to_owned()).collect()
    }

    #[tokio::test]
    async fn a_router_that_stays_keeps_its_connections() {
        let routers = Routers {
            all: RwLock::new(Arc::new([])),
            fixed: Vec::new(),
            names: Vec::new(),
            exchanges: 1,
            drain: Drain::new(),
            stop: CancellationToken::new(),
        };
        let of = |list: &[&str]| list.iter().map(|&address| address.to_owned()).collect::<BTreeSet<_>>();
        routers.become_these(&of(&["127.0.0.1:1", "127.0.0.1:2"])).unwrap();
        let kept = Arc::clone(&routers.all()[1]);
        routers.become_these(&of(&["127.0.0.1:2", "127.0.0.1:3"])).unwrap();
        assert_eq!(addresses(&routers), ["127.0.0.1:2", "127.0.0.1:3"]);
        assert!(Arc::ptr_eq(&routers.all()[0], &kept));
        routers.stop.cancel();
        assert!(routers.drain.finish(Duration::from_secs(5)).await, "nothing is left running");
    }
}
