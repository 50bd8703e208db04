//! Counting the tokens of an input: one call to the least loaded worker of its model. Nothing is made, so nothing is admitted.

use std::{sync::Arc, time::Duration};

use proto::v1::{CountTokensRequest, CountTokensResponse, Failure, Reason};
use tokio::time::timeout;

use super::Router;
use crate::request;

/// How long a worker may take: a long input is tokenised in a fraction of a second.
const LIMIT: Duration = Duration::from_secs(10);

impl Router {
    /// Counts the tokens of a request's input.
    ///
    /// # Errors
    /// The request is wrong, no worker can do it, or the worker failed.
    pub(crate) async fn count_tokens(self: &Arc<Self>, asked: CountTokensRequest) -> Result<CountTokensResponse, Failure> {
        let mut chat = asked.request.unwrap_or_default();
        request::check(&chat)?;
        if self.drain.is_draining() {
            return Err(Failure::new(Reason::Draining, "this router is stopping"));
        }
        let model = self.model_for(&chat)?;
        model.as_ref().clone_into(&mut chat.model);
        let unavailable = || Failure::new(Reason::Unavailable, format!("no worker that serves the model {model:?} is ready"));
        let worker = self.workers.least_loaded(|one| one.chat && *one.id == *model);
        let mut client = worker.and_then(|worker| worker.client()).ok_or_else(unavailable)?;
        let request = CountTokensRequest { request: Some(chat) };
        match timeout(LIMIT, client.count_tokens(request)).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(Failure::from_status(&status)),
            Err(_) => Err(Failure::new(Reason::Timeout, "the worker took too long to count")),
        }
    }
}
