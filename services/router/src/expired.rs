//! The names of answers that were kept, and are not any more: who comes back too late is told so, instead of that there was nothing.
//!
//! Only names and owners, the oldest forgotten first. It is lost with the router, and then nobody remembers: that is no harm.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use proto::v1::Principal;

/// The most names: some megabytes, and twice as many as journals are kept.
const NAMES: usize = 32 * 1024;

/// Names and their owners.
#[derive(Debug, Default)]
pub(crate) struct Expired {
    owners: HashMap<Arc<str>, Principal>,
    oldest_first: VecDeque<Arc<str>>,
}

impl Expired {
    /// The answer of that name is not kept any more.
    pub(crate) fn remember(&mut self, id: &Arc<str>, owner: &Principal) {
        if self.owners.insert(Arc::clone(id), owner.clone()).is_some() {
            return;
        }
        self.oldest_first.push_back(Arc::clone(id));
        if self.oldest_first.len() > NAMES
            && let Some(oldest) = self.oldest_first.pop_front()
        {
            self.owners.remove(&oldest);
        }
    }

    /// Whether it was one of this owner's; nobody hears of another's.
    pub(crate) fn knows(&self, id: &str, owner: Option<&Principal>) -> bool {
        self.owners
            .get(id)
            .is_some_and(|known| owner.map_or(*known == Principal::default(), |owner| owner == known))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_owner_hears_of_it_and_the_oldest_is_forgotten() {
        let mut expired = Expired::default();
        let owner = Principal {
            tenant: "mine".to_owned(),
            ..Principal::default()
        };
        expired.remember(&"first".into(), &owner);
        assert!(expired.knows("first", Some(&owner)));
        assert!(!expired.knows("first", None) && !expired.knows("second", Some(&owner)));
        for number in 0..NAMES {
            expired.remember(&number.to_string().into(), &owner);
        }
        assert!(!expired.knows("first", Some(&owner)) && expired.knows("0", Some(&owner)));
        assert_eq!((expired.owners.len(), expired.oldest_first.len()), (NAMES, NAMES));
    }
}
