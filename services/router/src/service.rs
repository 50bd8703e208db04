//! ChatService, as gRPC calls it: each call in a few lines, and what it does in [`crate::router`] and [`crate::relay`].

use std::{pin::Pin, sync::Arc};

use chassis::trace::TRACEPARENT;
use futures_util::{Stream, stream};
use proto::v1::{
    AnswerSummary, CancelChatRequest, CancelChatResponse, ChatCommand, ChatRequest, CountTokensRequest, CountTokensResponse, EmbedRequest,
    EmbedResponse, ListAnswersRequest, ResumeChatRequest, RouterStatus, WatchStatusRequest, chat_service_server::ChatService,
};
use tonic::{Request, Response, Status, Streaming};

use crate::{
    relay::{exchange::Exchange, solo::Solo},
    router::Router,
    status,
};

/// The service.
pub(crate) struct Service {
    router: Arc<Router>,
}

impl Service {
    pub(crate) fn new(router: Arc<Router>) -> Self {
        Self { router }
    }
}

type Listed<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl ChatService for Service {
    type StreamChatStream = Solo;
    type BiStreamChatStream = Exchange;
    type ResumeChatStream = Solo;
    type ListAnswersStream = Listed<AnswerSummary>;
    type WatchStatusStream = Listed<RouterStatus>;

    async fn stream_chat(&self, request: Request<ChatRequest>) -> Result<Response<Solo>, Status> {
        let traceparent = metadata(&request, TRACEPARENT);
        let mut request = request.into_inner();
        if request.traceparent.is_empty() {
            request.traceparent = traceparent;
        }
        let answer = self.router.find_or_start(request).await?;
        Ok(Response::new(Solo::open(&self.router, answer, 0).await?))
    }

    async fn bi_stream_chat(&self, request: Request<Streaming<ChatCommand>>) -> Result<Response<Exchange>, Status> {
        Ok(Response::new(Exchange::new(&self.router, request.into_inner())))
    }

    async fn resume_chat(&self, request: Request<ResumeChatRequest>) -> Result<Response<Solo>, Status> {
        let request = request.into_inner();
        let answer = self.router.find_or_adopt(&request.stream_id, request.principal.as_ref()).await?;
        Ok(Response::new(Solo::open(&self.router, answer, request.position).await?))
    }

    async fn cancel_chat(&self, request: Request<CancelChatRequest>) -> Result<Response<CancelChatResponse>, Status> {
        let request = request.into_inner();
        let answer = self.router.find_or_adopt(&request.stream_id, request.principal.as_ref()).await?;
        let was_running = self.router.cancel(&answer);
        Ok(Response::new(CancelChatResponse { was_running }))
    }

    async fn list_answers(&self, _: Request<ListAnswersRequest>) -> Result<Response<Self::ListAnswersStream>, Status> {
        let answers = self.router.answers();
        let summaries = answers.into_iter().map(|answer| Ok(answer.summary()));
        Ok(Response::new(Box::pin(stream::iter(summaries))))
    }

    async fn watch_status(&self, _: Request<WatchStatusRequest>) -> Result<Response<Self::WatchStatusStream>, Status> {
        Ok(Response::new(Box::pin(status::watch(&self.router))))
    }

    async fn embed(&self, request: Request<EmbedRequest>) -> Result<Response<EmbedResponse>, Status> {
        Ok(Response::new(self.router.embed(request.into_inner()).await?))
    }

    async fn count_tokens(&self, request: Request<CountTokensRequest>) -> Result<Response<CountTokensResponse>, Status> {
        Ok(Response::new(self.router.count_tokens(request.into_inner()).await?))
    }
}

/// A metadata value that is text, or nothing.
fn metadata<T>(request: &Request<T>, key: &str) -> String {
    let value = request.metadata().get(key).and_then(|value| value.to_str().ok());
    value.unwrap_or_default().to_owned()
}
