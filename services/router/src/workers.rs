//! All workers that discovery knows: which models they serve, and which of them takes the next answer.
//!
//! [`crate::router`] asks; [`crate::discovery`] says who there is. The choice itself is [`crate::pick`].

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use parking_lot::RwLock;
use proto::v1::{Failure, Model, Reason, WorkerStatus};

use crate::{
    pick,
    pulse::Pulse,
    worker::{Seats, Worker},
};

/// What an answer needs of a worker.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Want<'a> {
    /// The model.
    pub(crate) model: &'a str,
    /// One for each choice.
    pub(crate) seats: u32,
    /// What should lead it to the worker that holds its prefix.
    pub(crate) affinity: Option<u64>,
    /// It was begun elsewhere: the model must be able to go on.
    pub(crate) continues: bool,
    /// The worker that it just failed on, to be taken only if there is no other.
    pub(crate) avoid: Option<u64>,
}

/// The workers.
pub(crate) struct Workers {
    list: RwLock<Vec<Known>>,
    pulse: Arc<Pulse>,
    random: RandomState,
    drawn: AtomicU64,
}

struct Known {
    worker: Arc<Worker>,
    /// The setting that it was found by.
    source: Arc<str>,
    task: Option<tokio::task::AbortHandle>,
}

impl Workers {
    pub(crate) fn new(pulse: Arc<Pulse>) -> Self {
        Self {
            list: RwLock::default(),
            pulse,
            random: RandomState::new(),
            drawn: AtomicU64::new(0),
        }
    }

    /// These are all workers of this source now. `keep` starts the task that keeps the connection of a new one. One that is no
    /// longer named is let go of once nothing runs there.
    pub(crate) fn set(&self, source: &str, addresses: &BTreeSet<String>, keep: impl Fn(Arc<Worker>) -> tokio::task::AbortHandle) {
        let mut list = self.list.write();
        list.retain(|known| {
            let stays = &*known.source != source || addresses.contains(&**known.worker.address()) || known.worker.outstanding() > 0;
            if !stays && let Some(task) = &known.task {
                task.abort();
            }
            stays
        });
        for address in addresses {
            if list.iter().any(|known| **known.worker.address() == **address) {
                continue;
            }
            let worker = Arc::new(Worker::new(address, Arc::clone(&self.pulse)));
            let task = keep(Arc::clone(&worker));
            list.push(Known {
                worker,
                source: source.into(),
                task: Some(task),
            });
        }
        drop(list);
        self.pulse.slots_changed();
    }

    /// Takes seats at the worker that should make this answer. `None` while no ready one has room.
    pub(crate) fn pick(&self, want: Want<'_>) -> Option<Seats> {
        let list = self.list.read();
        let fits = |model: &Model| model.id == want.model && model.chat && (model.continuation || !want.continues);
        let able: Vec<&Arc<Worker>> = list
            .iter()
            .map(|known| &known.worker)
            .filter(|worker| worker.slots(fits).is_some())
            .collect();
        let others = able.iter().any(|worker| Some(worker.name()) != want.avoid);
        let (mut workers, mut candidates) = (Vec::with_capacity(able.len()), Vec::with_capacity(able.len()));
        for worker in able {
            if others && Some(worker.name()) == want.avoid {
                continue;
            }
            if let Some(candidate) = worker.candidate(want.seats) {
                workers.push(worker);
                candidates.push(candidate);
            }
        }
        let index = pick::pick(&candidates, want.affinity, self.random())?;
        Some(workers[index].take_seats(want.seats))
    }

    /// Slots of all ready workers that serve this model. 0: there is none.
    pub(crate) fn slots(&self, model: &str) -> u32 {
        let list = self.list.read();
        list.iter()
            .filter_map(|known| known.worker.slots(|one| one.id == model && one.chat))
            .sum()
    }

    /// Whether any worker, ready or not, can go on with an answer of this model.
    pub(crate) fn can_continue(&self, model: &str) -> bool {
        let fits = |one: &Model| one.id == model && one.chat && one.continuation;
        let list = self.list.read();
        list.iter().any(|known| known.worker.with_models(|models| models.iter().any(fits)))
    }

    /// Whether a ready worker serves this model and, if the answer `continues`, can go on with it.
    pub(crate) fn serves(&self, model: &str, continues: bool) -> bool {
        let fits = |one: &Model| one.id == model && one.chat && (one.continuation || !continues);
        self.list.read().iter().any(|known| known.worker.slots(fits).is_some())
    }

    /// Whether a worker that surely lives serves this model and, if the answer `continues`, can go on with it.
    pub(crate) fn is_near(&self, model: &str, continues: bool) -> bool {
        let fits = |one: &Model| one.id == model && one.chat && (one.continuation || !continues);
        self.list.read().iter().any(|known| known.worker.is_near(fits))
    }

    /// The model of that name that can do what `able` asks, or the first one if no name is given.
    ///
    /// # Errors
    /// There is no such model, or nobody to run it.
    pub(crate) fn resolve(&self, name: &str, able: impl Fn(&Model) -> bool) -> Result<Arc<str>, Failure> {
        let list = self.list.read();
        let fits = |model: &Model| (name.is_empty() || model.id == name) && able(model);
        let of = |worker: &Worker| {
            worker.with_models(|models| models.iter().find(|model| fits(model)).map(|model| Arc::from(model.id.as_str())))
        };
        let ready = list
            .iter()
            .filter(|known| known.worker.is_ready())
            .find_map(|known| of(&known.worker));
        if let Some(model) = ready {
            return Ok(model);
        }
        let known = list.iter().any(|known| of(&known.worker).is_some());
        if known || expects_more(&list) || !list.iter().any(|known| known.worker.is_met()) {
            let message = if name.is_empty() {
                "no worker is ready".to_owned()
            } else {
                format!("no worker that serves the model {name:?} is ready")
            };
            return Err(Failure {
                retry_after_ms: 1000,
                ..Failure::new(Reason::Unavailable, message)
            });
        }
        let message = if name.is_empty() {
            "no worker has a model that can do this".to_owned()
        } else {
            format!("there is no model {name:?}, or it cannot do this")
        };
        Err(Failure {
            param: "model".to_owned(),
            ..Failure::new(Reason::ModelNotFound, message)
        })
    }

    /// Whether one was named so lately that it may turn up soon.
    pub(crate) fn expects_more(&self) -> bool {
        expects_more(&self.list.read())
    }

    /// The ready workers.
    pub(crate) fn ready(&self) -> Vec<Arc<Worker>> {
        let list = self.list.read();
        list.iter()
            .map(|known| &known.worker)
            .filter(|worker| worker.is_ready())
            .cloned()
            .collect()
    }

    /// Of the ready workers that serve a model which fits, the one with the least to do: for calls that are no answers.
    pub(crate) fn least_loaded(&self, fits: impl Fn(&Model) -> bool) -> Option<Arc<Worker>> {
        let serves = |worker: &Arc<Worker>| worker.with_models(|models| models.iter().any(&fits));
        self.ready().into_iter().filter(serves).min_by_key(|worker| worker.outstanding())
    }

    /// The names of those that are stopping and still have answers of this router.
    pub(crate) fn draining(&self) -> Vec<u64> {
        let list = self.list.read();
        let draining = list.iter().map(|known| &known.worker).filter(|worker| worker.is_draining());
        draining
            .filter(|worker| worker.outstanding() > 0)
            .map(|worker| worker.name())
            .collect()
    }

    /// The workers that can be reached: the ready ones, and those that finish what they have.
    pub(crate) fn reachable(&self) -> Vec<Arc<Worker>> {
        let list = self.list.read();
        list.iter()
            .map(|known| &known.worker)
            .filter(|worker| worker.client().is_some())
            .cloned()
            .collect()
    }

    /// What operators see: the workers in their order, and the models that ready ones serve.
    pub(crate) fn status(&self) -> (Vec<WorkerStatus>, Vec<Model>) {
        let list = self.list.read();
        let mut models = BTreeMap::new();
        let mut order = Vec::new();
        for known in list.iter().filter(|known| known.worker.is_ready()) {
            known.worker.with_models(|own| {
                for model in own {
                    if models.insert(model.id.clone(), model.clone()).is_none() {
                        order.push(model.id.clone());
                    }
                }
            });
        }
        let models = order.iter().filter_map(|id| models.remove(id)).collect();
        (list.iter().map(|known| known.worker.status()).collect(), models)
    }

    /// A number that differs each time; nobody's secret depends on it.
    fn random(&self) -> u64 {
        self.random.hash_one(self.drawn.fetch_add(1, Ordering::Relaxed))
    }
}

fn expects_more(list: &[Known]) -> bool {
    list.iter().any(|known| known.worker.is_new())
}
