//! With which API key an answer is read: what is read with a key that is revoked ends ([`super::Clients::cut`]).

use std::sync::Arc;

/// Who reads an answer. Cloning shares.
#[derive(Clone, Debug, Default)]
pub(crate) struct Bearer {
    /// The id of their key; nothing where they came without one.
    key: Option<Arc<str>>,
    /// They have asked for the answer, and not only for a look at it: it ends with their right to it.
    started: bool,
}

impl Bearer {
    /// Who starts an answer with the key of this id. An empty id is none.
    pub(crate) fn starting(key: &str) -> Self {
        Self {
            key: Some(key).filter(|key| !key.is_empty()).map(Arc::from),
            started: true,
        }
    }

    /// Who reads on, with the key of this id.
    pub(crate) fn reading(key: Option<&str>) -> Self {
        Self {
            key: key.map(Arc::from),
            started: false,
        }
    }

    /// The id of their key.
    pub(crate) fn key(&self) -> Option<&Arc<str>> {
        self.key.as_ref()
    }

    /// Whether they have asked for the answer.
    pub(crate) fn has_started(&self) -> bool {
        self.started
    }
}
