//! Embeddings: one call to the least loaded worker whose model makes vectors. There is no journal: nothing streams.

use std::{sync::Arc, time::Duration};

use proto::v1::{EmbedRequest, EmbedResponse, Failure, Reason};
use tokio::time::timeout;

use super::Router;

/// Texts of one request.
const MAX_INPUTS: usize = 2048;
/// How long a worker may take.
const LIMIT: Duration = Duration::from_mins(2);

impl Router {
    /// Turns texts into vectors.
    ///
    /// # Errors
    /// The request is wrong, no worker can do it, or the worker failed.
    pub(crate) async fn embed(self: &Arc<Self>, mut request: EmbedRequest) -> Result<EmbedResponse, Failure> {
        let inputs = request.inputs.len() + request.token_inputs.len();
        if inputs == 0 || inputs > MAX_INPUTS {
            let message = format!("inputs has {inputs} texts; it must have 1 to {MAX_INPUTS}");
            return Err(Failure::invalid("inputs", message));
        }
        if self.drain.is_draining() {
            return Err(Failure::new(Reason::Draining, "this router is stopping"));
        }
        let model = self.workers.resolve(&request.model, |model| model.embeddings)?;
        model.as_ref().clone_into(&mut request.model);
        let worker = self.workers.least_loaded(|one| one.embeddings && *one.id == *model);
        let unavailable = || Failure::new(Reason::Unavailable, format!("no worker that serves the model {model:?} is ready"));
        let worker = worker.ok_or_else(unavailable)?;
        let seats = worker.take_seats(1);
        let mut client = worker.client().ok_or_else(unavailable)?;
        let embedded = timeout(LIMIT, client.embed(request)).await;
        drop(seats);
        match embedded {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::from_status(&status)),
            Err(_) => Err(Failure::new(Reason::Timeout, "the worker took too long for the vectors")),
        }
    }
}
