//! Which model answers a request.

use std::sync::Arc;

use proto::v1::{ChatRequest, Failure, Reason};

use super::Router;

impl Router {
    /// The model that is asked for, or the first that can answer. A request that shows pictures is for one that sees them.
    ///
    /// # Errors
    /// There is no such model, it cannot do this, or nobody is there to run it.
    pub(super) fn model_for(&self, request: &ChatRequest) -> Result<Arc<str>, Failure> {
        if request.messages.iter().all(|message| message.images.is_empty()) {
            return self.workers.resolve(&request.model, |model| model.chat);
        }
        let seeing = self.workers.resolve(&request.model, |model| model.chat && model.images);
        match seeing {
            Err(failure) if failure.reason() == Reason::ModelNotFound => {
                let blind = self.workers.resolve(&request.model, |model| model.chat)?;
                Err(Failure {
                    param: "model".to_owned(),
                    ..Failure::new(Reason::Unsupported, format!("the model {blind:?} does not see images"))
                })
            }
            seeing => seeing,
        }
    }
}
