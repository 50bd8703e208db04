//! `ConversationService` over the [`Store`]: scopes, the time a call may take, faults as statuses; lists as [`pages`]. It holds no statement.

mod pages;

use std::{future::Future, time::Duration};

use chassis::trace;
use futures_util::stream;
use proto::v1::{
    AddMessagesRequest, AddMessagesResponse, ApiKey, BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse,
    ClaimAnswerRequest, ClaimAnswerResponse, Conversation, CreateConversationRequest, CreateKeyRequest, DeleteConversationRequest,
    DeleteConversationResponse, DeleteMessageRequest, DeleteMessageResponse, DeleteRecordRequest, DeleteRecordResponse, Failure,
    FindKeyRequest, FinishTurnsRequest, FinishTurnsResponse, GetAnswerRequest, GetConversationRequest, GetMessageRequest, GetRecordRequest,
    ListConversationsRequest, ListKeysRequest, ListMessagesRequest, ListOrphansRequest, ListRecordsRequest, ListRequestsRequest,
    ListRevocationsRequest, ListRevocationsResponse, LogScope, LoggedRequest, NoteKeyUsesRequest, NoteKeyUsesResponse, OpenRecordRequest,
    OpenRecordResponse, Principal, Record, RenameConversationRequest, RevokeKeyRequest, StoredAnswer, StoredMessage, TakeTicketRequest,
    TakeTicketResponse, UpdateConversationRequest, conversation_service_server::ConversationService,
};
use tonic::{Request, Response, Status};
use tracing::{Instrument as _, Span};

use self::pages::Page;
use crate::{
    check,
    error::{Fault, unavailable},
    scope::Scope,
    store::{Cursor, KeyCursor, LogCursor, MessageCursor, Store},
};

/// The service. Cloning shares.
#[derive(Clone)]
pub(crate) struct Conversations {
    store: Store,
    /// How long a call may wait for the database.
    limit: Duration,
}

impl Conversations {
    /// Over this store; calls take at most `limit`.
    pub(crate) fn new(store: Store, limit: Duration) -> Self {
        Self { store, limit }
    }

    /// What the store makes of a call, within the limit. A call that is cut off undoes itself: its transaction is dropped.
    async fn within<T>(&self, span: &Span, call: impl Future<Output = Result<T, Fault>> + Send) -> Result<T, Status> {
        match tokio::time::timeout(self.limit, call.instrument(span.clone())).await {
            Ok(outcome) => outcome.map_err(|fault| Failure::from(fault).into()),
            Err(_) => Err(unavailable("the conversation store's database does not answer in time").into()),
        }
    }

    async fn answer<T>(&self, span: &Span, call: impl Future<Output = Result<T, Fault>> + Send) -> Result<Response<T>, Status> {
        self.within(span, call).await.map(Response::new)
    }
}

/// The span of a call, in its caller's trace. A list's span goes on with its pages.
fn span<T>(rpc: &'static str, request: &Request<T>) -> Span {
    let span = tracing::info_span!("store", rpc);
    let traceparent = request.metadata().get(trace::TRACEPARENT).and_then(|value| value.to_str().ok());
    trace::continue_from(&span, traceparent.unwrap_or_default());
    span
}

/// The principal's scope, if its names are well formed.
fn scope(principal: Option<&Principal>) -> Result<Scope, Status> {
    check::principal(principal)?;
    Ok(Scope::of(principal))
}

#[tonic::async_trait]
impl ConversationService for Conversations {
    type ListConversationsStream = Page<Conversation>;
    type ListKeysStream = Page<ApiKey>;
    type ListMessagesStream = Page<StoredMessage>;
    type ListOrphansStream = Page<StoredAnswer>;
    type ListRequestsStream = Page<LoggedRequest>;
    type ListRecordsStream = Page<Record>;

    async fn create_conversation(&self, request: Request<CreateConversationRequest>) -> Result<Response<Conversation>, Status> {
        let span = span("CreateConversation", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.create_conversation(&scope, &request)).await
    }

    async fn get_conversation(&self, request: Request<GetConversationRequest>) -> Result<Response<Conversation>, Status> {
        let span = span("GetConversation", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.get_conversation(&scope, &request.id)).await
    }

    async fn list_conversations(
        &self,
        request: Request<ListConversationsRequest>,
    ) -> Result<Response<Self::ListConversationsStream>, Status> {
        let span = span("ListConversations", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        let size = check::page(request.page_size)?;
        let cursor = self
            .within(&span, self.store.conversation_cursor(&scope, &request.after_id))
            .await?;
        let service = self.clone();
        let pieces = move |cursor, wanted| {
            let (service, span, scope) = (service.clone(), span.clone(), scope.clone());
            async move {
                let piece = service
                    .within(&span, service.store.list_conversations(&scope, &cursor, wanted))
                    .await?;
                let full = piece.len() >= wanted as usize;
                Ok((piece.last().filter(|_| full).map(Cursor::after), piece))
            }
        };
        pages::page(size, cursor, pieces).await
    }

    async fn rename_conversation(&self, request: Request<RenameConversationRequest>) -> Result<Response<Conversation>, Status> {
        let span = span("RenameConversation", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.rename_conversation(&scope, &request)).await
    }

    async fn delete_conversation(
        &self,
        request: Request<DeleteConversationRequest>,
    ) -> Result<Response<DeleteConversationResponse>, Status> {
        let span = span("DeleteConversation", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.within(&span, self.store.delete_conversation(&scope, &request.id)).await?;
        Ok(Response::new(DeleteConversationResponse {}))
    }

    async fn list_messages(&self, request: Request<ListMessagesRequest>) -> Result<Response<Self::ListMessagesStream>, Status> {
        let span = span("ListMessages", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        let conversation = request.conversation_id;
        check::name("conversation_id", &conversation)?;
        let size = check::page(request.page_size)?;
        self.within(&span, self.store.conversation_must_exist(&scope, &conversation))
            .await?;
        let after = MessageCursor::of(&conversation, &request.after_id, request.newest_first)?;
        let service = self.clone();
        let pieces = move |after: MessageCursor, wanted| {
            let (service, span, scope, conversation) = (service.clone(), span.clone(), scope.clone(), conversation.clone());
            async move {
                let piece = service
                    .within(&span, service.store.list_messages(&scope, &conversation, after, wanted))
                    .await?;
                let next = piece.last().map(|(last, _)| after.after(*last));
                Ok((next, piece.into_iter().map(|(_, message)| message).collect()))
            }
        };
        pages::page(size, after, pieces).await
    }

    async fn update_conversation(&self, request: Request<UpdateConversationRequest>) -> Result<Response<Conversation>, Status> {
        let span = span("UpdateConversation", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.update_conversation(&scope, &request)).await
    }

    async fn add_messages(&self, request: Request<AddMessagesRequest>) -> Result<Response<AddMessagesResponse>, Status> {
        let span = span("AddMessages", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.add_messages(&scope, &request)).await
    }

    async fn get_message(&self, request: Request<GetMessageRequest>) -> Result<Response<StoredMessage>, Status> {
        let span = span("GetMessage", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.get_message(&scope, &request)).await
    }

    async fn delete_message(&self, request: Request<DeleteMessageRequest>) -> Result<Response<DeleteMessageResponse>, Status> {
        let span = span("DeleteMessage", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.within(&span, self.store.delete_message(&scope, &request)).await?;
        Ok(Response::new(DeleteMessageResponse {}))
    }

    async fn open_record(&self, request: Request<OpenRecordRequest>) -> Result<Response<OpenRecordResponse>, Status> {
        let span = span("OpenRecord", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        let opened = self.within(&span, self.store.open_record(&scope, &request)).await?;
        Ok(Response::new(OpenRecordResponse { opened }))
    }

    async fn get_record(&self, request: Request<GetRecordRequest>) -> Result<Response<Record>, Status> {
        let span = span("GetRecord", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.get_record(&scope, &request.stream_id)).await
    }

    async fn list_records(&self, request: Request<ListRecordsRequest>) -> Result<Response<Self::ListRecordsStream>, Status> {
        let span = span("ListRecords", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        let size = check::page(request.page_size)?;
        let records = self
            .within(&span, self.store.list_records(&scope, &request.stream_id, size))
            .await?;
        Ok(Response::new(Box::pin(stream::iter(records.into_iter().map(Ok)))))
    }

    async fn delete_record(&self, request: Request<DeleteRecordRequest>) -> Result<Response<DeleteRecordResponse>, Status> {
        let span = span("DeleteRecord", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.within(&span, self.store.delete_record(&scope, &request.stream_id)).await?;
        Ok(Response::new(DeleteRecordResponse {}))
    }

    async fn begin_turn(&self, request: Request<BeginTurnRequest>) -> Result<Response<BeginTurnResponse>, Status> {
        let span = span("BeginTurn", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.begin_turn(&scope, &request)).await
    }

    async fn checkpoint(&self, request: Request<CheckpointRequest>) -> Result<Response<CheckpointResponse>, Status> {
        let span = span("Checkpoint", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.checkpoint(&scope, &request)).await
    }

    async fn finish_turns(&self, request: Request<FinishTurnsRequest>) -> Result<Response<FinishTurnsResponse>, Status> {
        let span = span("FinishTurns", &request);
        let closed = self.within(&span, self.store.finish_turns(request.get_ref())).await?;
        Ok(Response::new(FinishTurnsResponse { closed }))
    }

    async fn claim_answer(&self, request: Request<ClaimAnswerRequest>) -> Result<Response<ClaimAnswerResponse>, Status> {
        let span = span("ClaimAnswer", &request);
        self.answer(&span, self.store.claim_answer(request.get_ref())).await
    }

    async fn get_answer(&self, request: Request<GetAnswerRequest>) -> Result<Response<StoredAnswer>, Status> {
        let span = span("GetAnswer", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        self.answer(&span, self.store.get_answer(&scope, &request.stream_id)).await
    }

    async fn list_orphans(&self, request: Request<ListOrphansRequest>) -> Result<Response<Self::ListOrphansStream>, Status> {
        let span = span("ListOrphans", &request);
        let size = check::page(request.get_ref().page_size)?;
        let orphans = self.within(&span, self.store.list_orphans(size)).await?;
        Ok(Response::new(Box::pin(stream::iter(orphans.into_iter().map(Ok)))))
    }

    async fn list_requests(&self, request: Request<ListRequestsRequest>) -> Result<Response<Self::ListRequestsStream>, Status> {
        let span = span("ListRequests", &request);
        let request = request.into_inner();
        let scope = scope(request.principal.as_ref())?;
        let wide = LogScope::try_from(request.scope)
            .map_err(|_| Failure::invalid("scope", format!("scope is {}, which is none: 0 to 2 was expected", request.scope)))?;
        if !request.stream_ids.is_empty() {
            if wide != LogScope::Unspecified {
                return Err(Failure::invalid("stream_ids", "stream_ids can be asked for within the principal's own scope only").into());
            }
            let found = self.within(&span, self.store.requests_of(&scope, &request.stream_ids)).await?;
            return Ok(Response::new(Box::pin(stream::iter(found.into_iter().map(Ok)))));
        }
        let size = check::page(request.page_size)?;
        let cursor = LogCursor::of(&request)?;
        let (service, from_ms) = (self.clone(), request.from_ms);
        let pieces = move |cursor, wanted| {
            let (service, span, scope) = (service.clone(), span.clone(), scope.clone());
            async move {
                let page = service.store.list_requests((&scope, wide), from_ms, &cursor, wanted);
                let piece = service.within(&span, page).await?;
                let full = piece.len() >= wanted as usize;
                Ok((piece.last().filter(|_| full).map(LogCursor::after), piece))
            }
        };
        pages::page(size, cursor, pieces).await
    }

    async fn create_key(&self, request: Request<CreateKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let span = span("CreateKey", &request);
        self.answer(&span, self.store.create_key(request.get_ref())).await
    }

    async fn list_keys(&self, request: Request<ListKeysRequest>) -> Result<Response<Self::ListKeysStream>, Status> {
        let span = span("ListKeys", &request);
        let request = request.into_inner();
        let size = check::page(request.page_size)?;
        let cursor = self
            .within(&span, self.store.key_cursor(request.tenant.as_deref(), &request.after_id))
            .await?;
        let (service, tenant) = (self.clone(), request.tenant);
        let pieces = move |cursor, wanted| {
            let (service, span, tenant) = (service.clone(), span.clone(), tenant.clone());
            async move {
                let piece = service
                    .within(&span, service.store.list_keys(tenant.as_deref(), &cursor, wanted))
                    .await?;
                Ok((piece.last().map(KeyCursor::after), piece))
            }
        };
        pages::page(size, cursor, pieces).await
    }

    async fn revoke_key(&self, request: Request<RevokeKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let span = span("RevokeKey", &request);
        self.answer(&span, self.store.revoke_key(request.get_ref())).await
    }

    async fn find_key(&self, request: Request<FindKeyRequest>) -> Result<Response<ApiKey>, Status> {
        let span = span("FindKey", &request);
        self.answer(&span, self.store.find_key(&request.get_ref().id)).await
    }

    async fn list_revocations(&self, request: Request<ListRevocationsRequest>) -> Result<Response<ListRevocationsResponse>, Status> {
        let span = span("ListRevocations", &request);
        self.answer(&span, self.store.list_revocations(request.get_ref().within_ms)).await
    }

    async fn note_key_uses(&self, request: Request<NoteKeyUsesRequest>) -> Result<Response<NoteKeyUsesResponse>, Status> {
        let span = span("NoteKeyUses", &request);
        self.within(&span, self.store.note_key_uses(&request.get_ref().uses)).await?;
        Ok(Response::new(NoteKeyUsesResponse {}))
    }

    async fn take_ticket(&self, request: Request<TakeTicketRequest>) -> Result<Response<TakeTicketResponse>, Status> {
        let span = span("TakeTicket", &request);
        let taken = self.within(&span, self.store.take_ticket(request.get_ref())).await?;
        Ok(Response::new(TakeTicketResponse { taken }))
    }
}
