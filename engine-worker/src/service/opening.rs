//! What a reader is told before its first entry: the head, and what was asked to who takes the answer over. Once.

use proto::v1::{AttachRequest, GenerateResponse};

use super::answers::Record;

/// What is still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// The head.
    Head,
    /// The head, and what was asked.
    Adoption,
    /// Nothing: it has been told.
    Told,
}

impl Opening {
    /// What is told to who attaches.
    pub(super) fn of(request: &AttachRequest) -> Self {
        if request.adopt { Self::Adoption } else { Self::Head }
    }

    /// Writes it into the first response that goes out.
    pub(super) fn write(&mut self, record: &Record, response: &mut GenerateResponse) {
        if *self != Self::Told {
            response.head = record.head().map(Box::new);
        }
        if *self == Self::Adoption {
            response.request = record.asked();
        }
        *self = Self::Told;
    }
}
