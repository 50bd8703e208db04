//! Who waits for a slot, and whose turn it is: the pure core of admission. [`crate::router`] asks it whenever a slot may be free.
//!
//! Each model has a [`queue`]. A queue is bounded: past the bound a request is refused at once. It holds no clock and knows no workers: the
//! caller says who can be placed.

mod queue;

use std::{collections::HashMap, sync::Arc};

use self::queue::Queue;

/// What a request waits with.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Claim {
    /// The model that it needs.
    pub(crate) model: Arc<str>,
    /// Whose turn it takes.
    pub(crate) tenant: Arc<str>,
    /// The higher goes first.
    pub(crate) priority: i32,
}

/// The queue is at its bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QueueFull {
    /// How many wait.
    pub(crate) depth: u32,
}

/// Requests that wait, by model. `T` is the request.
#[derive(Debug)]
pub(crate) struct Admission<T> {
    models: HashMap<Arc<str>, Queue<T>>,
}

impl<T> Default for Admission<T> {
    fn default() -> Self {
        Self { models: HashMap::new() }
    }
}

impl<T> Admission<T> {
    /// Waits. `bound` is the most that may wait for this model.
    ///
    /// # Errors
    /// [`QueueFull`].
    pub(crate) fn push(&mut self, claim: &Claim, bound: usize, item: T) -> Result<(), QueueFull> {
        let queue = self.models.entry(Arc::clone(&claim.model)).or_default();
        if queue.len() >= bound {
            return Err(QueueFull { depth: count(queue.len()) });
        }
        queue.push(claim, item);
        Ok(())
    }

    /// Waits before all others, whatever the bound: it was admitted before.
    pub(crate) fn push_again(&mut self, model: &Arc<str>, item: T) {
        self.models.entry(Arc::clone(model)).or_default().push_again(item);
    }

    /// Gives the next turn to a request that `place` finds a place for. Of each model the first in turn is asked about: the others
    /// wait behind it, so that a wide request is not overtaken for ever by narrow ones. Only one that lost its worker holds up
    /// nobody: there may be no worker that can go on with it.
    pub(crate) fn next<P>(&mut self, mut place: impl FnMut(&Arc<str>, &T) -> Option<P>) -> Option<(T, P)> {
        let mut found = None;
        for (model, queue) in &mut self.models {
            let mut ask = |first: Option<&T>| first.and_then(|item| place(model, item));
            if let Some(placed) = ask(queue.first_again()) {
                found = queue.pop_again().map(|item| (item, placed));
            } else if let Some(placed) = ask(queue.first()) {
                found = queue.pop().map(|item| (item, placed));
            } else {
                continue;
            }
            if queue.len() == 0 {
                let model = Arc::clone(model);
                self.models.remove(&model);
            }
            return found;
        }
        found
    }

    /// Takes out those that `leaves` says of. Says what left.
    pub(crate) fn remove(&mut self, mut leaves: impl FnMut(&Arc<str>, &T) -> bool) -> Vec<T> {
        let mut gone = Vec::new();
        self.models.retain(|model, queue| {
            queue.remove(&mut |item| leaves(model, item), &mut gone);
            queue.len() > 0
        });
        gone
    }

    /// The models that somebody waits for.
    pub(crate) fn models(&self) -> Vec<Arc<str>> {
        self.models.keys().cloned().collect()
    }

    /// How many wait for a model.
    pub(crate) fn depth(&self, model: &str) -> u32 {
        self.models.get(model).map_or(0, |queue| count(queue.len()))
    }

    /// How many wait in all.
    pub(crate) fn total(&self) -> u32 {
        count(self.models.values().map(Queue::len).sum())
    }

    /// Whether nobody waits.
    pub(crate) fn is_empty(&self) -> bool {
        self.models.is_empty()
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn claim(model: &str, tenant: &str, priority: i32) -> Claim {
        Claim {
            model: model.into(),
            tenant: tenant.into(),
            priority,
        }
    }

    fn all(admission: &mut Admission<u32>) -> Vec<u32> {
        std::iter::from_fn(|| admission.next(|_, _| Some(())).map(|(item, ())| item)).collect()
    }

    #[test]
    fn tenants_have_turns() {
        let mut admission = Admission::default();
        for item in 0..4 {
            admission.push(&claim("m", "greedy", 0), 10, item).unwrap();
        }
        admission.push(&claim("m", "modest", 0), 10, 10).unwrap();
        assert_eq!(all(&mut admission), [0, 10, 1, 2, 3]);
    }

    #[test]
    fn a_higher_priority_goes_first_and_one_that_lost_its_worker_before_it() {
        let mut admission = Admission::default();
        admission.push(&claim("m", "a", 0), 10, 1).unwrap();
        admission.push(&claim("m", "a", 5), 10, 2).unwrap();
        admission.push_again(&"m".into(), 3);
        assert_eq!(all(&mut admission), [3, 2, 1]);
    }

    #[test]
    fn one_that_no_worker_can_go_on_with_holds_up_nobody() {
        let mut admission = Admission::default();
        admission.push_again(&"m".into(), 1);
        admission.push(&claim("m", "a", 0), 10, 2).unwrap();
        assert_eq!(admission.next(|_, &item| (item != 1).then_some(())), Some((2, ())));
        assert_eq!(admission.next(|_, &item| (item != 1).then_some(())), None);
        assert_eq!(admission.total(), 1);
    }

    #[test]
    fn a_model_without_a_free_slot_holds_up_no_other() {
        let mut admission = Admission::default();
        admission.push(&claim("busy", "a", 0), 10, 1).unwrap();
        admission.push(&claim("free", "a", 0), 10, 2).unwrap();
        assert_eq!(admission.next(|model, _| (&**model == "free").then_some(())), Some((2, ())));
        assert_eq!(admission.next(|model, _| (&**model == "free").then_some(())), None);
        assert_eq!((admission.depth("busy"), admission.total()), (1, 1));
    }

    #[derive(Clone, Debug)]
    enum Step {
        Push { model: u8, tenant: u8, priority: i32 },
        Again { model: u8 },
        Next,
        Leave(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0..2_u8, 0..3_u8, 0..2).prop_map(|(model, tenant, priority)| Step::Push { model, tenant, priority }),
            1 => (0..2_u8).prop_map(|model| Step::Again { model }),
            2 => Just(Step::Next),
            1 => any::<usize>().prop_map(Step::Leave),
        ];
        prop::collection::vec(step, 0..200)
    }

    proptest! {
        #[test]
        fn nobody_is_lost_or_served_twice_and_no_queue_grows_past_its_bound(steps in steps()) {
            const BOUND: u32 = 6;
            let mut admission = Admission::default();
            let mut waiting: Vec<u32> = Vec::new();
            let mut fresh = 0;
            for step in steps {
                match step {
                    Step::Push { model, tenant, priority } => {
                        let depth = admission.depth(&model.to_string());
                        let claim = claim(&model.to_string(), &tenant.to_string(), priority);
                        match admission.push(&claim, BOUND as usize, fresh) {
                            Ok(()) => waiting.push(fresh),
                            Err(full) => prop_assert!(full.depth == depth && depth >= BOUND),
                        }
                        fresh += 1;
                    }
                    Step::Again { model } => {
                        admission.push_again(&model.to_string().into(), fresh);
                        waiting.push(fresh);
                        fresh += 1;
                    }
                    Step::Next => match admission.next(|_, _| Some(())) {
                        Some((item, ())) => {
                            let place = waiting.iter().position(|&one| one == item);
                            prop_assert!(place.is_some());
                            waiting.remove(place.unwrap());
                        }
                        None => prop_assert!(waiting.is_empty()),
                    },
                    Step::Leave(which) if !waiting.is_empty() => {
                        let item = waiting.remove(which % waiting.len());
                        prop_assert_eq!(admission.remove(|_, &one| one == item), vec![item]);
                    }
                    Step::Leave(_) => {}
                }
                prop_assert_eq!(admission.total() as usize, waiting.len());
            }
            let mut rest = all(&mut admission);
            rest.sort_unstable();
            waiting.sort_unstable();
            prop_assert_eq!(rest, waiting);
            prop_assert!(admission.is_empty());
        }

        #[test]
        fn a_tenant_waits_one_round_of_turns_at_most(counts in prop::collection::vec(1..20_u32, 2..5)) {
            let mut admission = Admission::default();
            for (tenant, &count) in counts.iter().enumerate() {
                for _ in 0..count {
                    admission.push(&claim("m", &tenant.to_string(), 0), 1000, u32::try_from(tenant).unwrap()).unwrap();
                }
            }
            let order = all(&mut admission);
            let mut first: Vec<u32> = order[..counts.len()].to_vec();
            first.sort_unstable();
            prop_assert_eq!(first, (0..u32::try_from(counts.len()).unwrap()).collect::<Vec<_>>());
        }
    }
}
