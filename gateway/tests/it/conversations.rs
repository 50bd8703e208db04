//! Conversations, over a store that the test plays.

use std::pin::Pin;

use chassis::{drain::Drain, listen::listen};
use futures_util::{Stream, stream};
use proto::v1::{
    AddMessagesRequest, AddMessagesResponse, ApiKey, BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse,
    ClaimAnswerRequest, ClaimAnswerResponse, Conversation, CreateConversationRequest, CreateKeyRequest, DeleteConversationRequest,
    DeleteConversationResponse, DeleteMessageRequest, DeleteMessageResponse, DeleteRecordRequest, DeleteRecordResponse, Failure,
    FindKeyRequest, FinishTurnsRequest, FinishTurnsResponse, GetAnswerRequest, GetConversationRequest, GetMessageRequest, GetRecordRequest,
    ListConversationsRequest, ListKeysRequest, ListMessagesRequest, ListOrphansRequest, ListRecordsRequest, ListRequestsRequest,
    ListRevocationsRequest, ListRevocationsResponse, LoggedRequest, Message, NoteKeyUsesRequest, NoteKeyUsesResponse, OpenRecordRequest,
    OpenRecordResponse, Reason, Record, RenameConversationRequest, RevokeKeyRequest, Role, StoredAnswer, StoredMessage, TakeTicketRequest,
    TakeTicketResponse, UpdateConversationRequest,
    conversation_service_server::{ConversationService, ConversationServiceServer},
};
use tonic::{Request, Response, Status};

use crate::{client, gateway::Gateway};

struct Store;

fn conversation(id: &str, title: &str) -> Conversation {
    Conversation {
        id: id.to_owned(),
        title: title.to_owned(),
        created_ms: 1_700_000_000_000,
        updated_ms: 1_700_000_001_000,
        messages: 2,
        ..Conversation::default()
    }
}

type Many<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;
type Reply<T> = Result<Response<T>, Status>;

#[tonic::async_trait]
impl ConversationService for Store {
    type ListConversationsStream = Many<Conversation>;
    type ListKeysStream = Many<ApiKey>;
    type ListMessagesStream = Many<StoredMessage>;
    type ListOrphansStream = Many<StoredAnswer>;
    type ListRequestsStream = Many<LoggedRequest>;
    type ListRecordsStream = Many<Record>;

    async fn create_conversation(&self, request: Request<CreateConversationRequest>) -> Reply<Conversation> {
        Ok(Response::new(conversation("c1", &request.into_inner().title)))
    }
    async fn get_conversation(&self, request: Request<GetConversationRequest>) -> Reply<Conversation> {
        match request.into_inner().id.as_str() {
            "c1" => Ok(Response::new(conversation("c1", "Trees"))),
            _ => Err(Failure::new(Reason::NotFound, "no such conversation").into()),
        }
    }
    async fn list_conversations(&self, request: Request<ListConversationsRequest>) -> Reply<Self::ListConversationsStream> {
        let request = request.into_inner();
        let first: usize = request.after_id.strip_prefix('c').map_or(0, |n| n.parse::<usize>().unwrap() + 1);
        let all = (first..5).map(|n| Ok(conversation(&format!("c{n}"), "")));
        let page: Vec<_> = all.take(request.page_size as usize).collect();
        Ok(Response::new(Box::pin(stream::iter(page))))
    }
    async fn rename_conversation(&self, request: Request<RenameConversationRequest>) -> Reply<Conversation> {
        let request = request.into_inner();
        Ok(Response::new(conversation(&request.id, &request.title)))
    }
    async fn delete_conversation(&self, _: Request<DeleteConversationRequest>) -> Reply<DeleteConversationResponse> {
        Ok(Response::new(DeleteConversationResponse {}))
    }
    async fn list_messages(&self, _: Request<ListMessagesRequest>) -> Reply<Self::ListMessagesStream> {
        let message = StoredMessage {
            id: "m1".to_owned(),
            message: Some(Message {
                role: Role::Assistant.into(),
                text: "Oak.".to_owned(),
                ..Message::default()
            }),
            created_ms: 1_700_000_000_000,
            stream_id: "a1".to_owned(),
            state: "finished".to_owned(),
            finish_reason: "stop".to_owned(),
        };
        Ok(Response::new(Box::pin(stream::iter([Ok(message)]))))
    }
    async fn create_key(&self, _: Request<CreateKeyRequest>) -> Reply<ApiKey> {
        Err(Status::unimplemented(""))
    }
    async fn list_keys(&self, _: Request<ListKeysRequest>) -> Reply<Self::ListKeysStream> {
        Err(Status::unimplemented(""))
    }
    async fn revoke_key(&self, _: Request<RevokeKeyRequest>) -> Reply<ApiKey> {
        Err(Status::unimplemented(""))
    }
    async fn find_key(&self, _: Request<FindKeyRequest>) -> Reply<ApiKey> {
        Err(Status::unimplemented(""))
    }
    async fn list_revocations(&self, _: Request<ListRevocationsRequest>) -> Reply<ListRevocationsResponse> {
        Err(Status::unimplemented(""))
    }
    async fn note_key_uses(&self, _: Request<NoteKeyUsesRequest>) -> Reply<NoteKeyUsesResponse> {
        Err(Status::unimplemented(""))
    }
    async fn take_ticket(&self, _: Request<TakeTicketRequest>) -> Reply<TakeTicketResponse> {
        Err(Status::unimplemented(""))
    }
    async fn list_orphans(&self, _: Request<ListOrphansRequest>) -> Reply<Self::ListOrphansStream> {
        Err(Status::unimplemented(""))
    }
    async fn list_requests(&self, _: Request<ListRequestsRequest>) -> Reply<Self::ListRequestsStream> {
        Err(Status::unimplemented(""))
    }
    async fn begin_turn(&self, _: Request<BeginTurnRequest>) -> Reply<BeginTurnResponse> {
        Err(Status::unimplemented(""))
    }
    async fn checkpoint(&self, _: Request<CheckpointRequest>) -> Reply<CheckpointResponse> {
        Err(Status::unimplemented(""))
    }
    async fn finish_turns(&self, _: Request<FinishTurnsRequest>) -> Reply<FinishTurnsResponse> {
        Err(Status::unimplemented(""))
    }
    async fn claim_answer(&self, _: Request<ClaimAnswerRequest>) -> Reply<ClaimAnswerResponse> {
        Err(Status::unimplemented(""))
    }
    async fn get_answer(&self, _: Request<GetAnswerRequest>) -> Reply<StoredAnswer> {
        Err(Status::unimplemented(""))
    }
    async fn update_conversation(&self, _: Request<UpdateConversationRequest>) -> Reply<Conversation> {
        Err(Status::unimplemented(""))
    }
    async fn add_messages(&self, _: Request<AddMessagesRequest>) -> Reply<AddMessagesResponse> {
        Err(Status::unimplemented(""))
    }
    async fn get_message(&self, _: Request<GetMessageRequest>) -> Reply<StoredMessage> {
        Err(Status::unimplemented(""))
    }
    async fn delete_message(&self, _: Request<DeleteMessageRequest>) -> Reply<DeleteMessageResponse> {
        Err(Status::unimplemented(""))
    }
    async fn open_record(&self, _: Request<OpenRecordRequest>) -> Reply<OpenRecordResponse> {
        Err(Status::unimplemented(""))
    }
    async fn get_record(&self, _: Request<GetRecordRequest>) -> Reply<Record> {
        Err(Status::unimplemented(""))
    }
    async fn list_records(&self, _: Request<ListRecordsRequest>) -> Reply<Self::ListRecordsStream> {
        Err(Status::unimplemented(""))
    }
    async fn delete_record(&self, _: Request<DeleteRecordRequest>) -> Reply<DeleteRecordResponse> {
        Err(Status::unimplemented(""))
    }
}

async fn gateway() -> Gateway {
    let listener = listen("127.0.0.1:0", "test").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let services = chassis::grpc::Services::new(proto::FILE_DESCRIPTOR_SET).unwrap();
    tokio::spawn(services.with(ConversationServiceServer::new(Store)).serve(listener, Drain::new()));
    Gateway::with(&[], &["--gateway-store", &address]).await
}

#[tokio::test]
async fn conversations_are_made_read_renamed_and_deleted() {
    let gateway = gateway().await;
    let call = async |method: &str, path: &str, body: &str| client::request(gateway.address, method, path, body).await.whole().await;
    let made = call("POST", "/conversations", r#"{"title":"Trees"}"#).await;
    assert_eq!((made.status, &made.json()["title"]), (201, &"Trees".into()));
    insta::assert_snapshot!(client::get(gateway.address, "/conversations/c1").await.body);
    assert_eq!(client::get(gateway.address, "/conversations/none").await.status, 404);
    assert_eq!(
        call("PATCH", "/conversations/c1", r#"{"title":"Woods"}"#).await.json()["title"],
        "Woods"
    );
    for title in ["", "x".repeat(201).as_str()] {
        let refused = call("PATCH", "/conversations/c1", &format!(r#"{{"title":"{title}"}}"#)).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &"title".into()));
    }
    assert_eq!(call("DELETE", "/conversations/c1", "").await.status, 204);
}

#[tokio::test]
async fn a_list_is_read_page_by_page() {
    let gateway = gateway().await;
    let (mut after, mut ids) = (String::new(), Vec::new());
    loop {
        let page = client::get(gateway.address, &format!("/conversations?limit=2&after={after}"))
            .await
            .json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 2);
        ids.extend(data.iter().map(|one| one["id"].as_str().unwrap().to_owned()));
        if page["has_more"] == false {
            break;
        }
        after = page["last_id"].as_str().unwrap().to_owned();
    }
    assert_eq!(ids, ["c0", "c1", "c2", "c3", "c4"]);
    insta::assert_snapshot!(client::get(gateway.address, "/conversations/c1/messages").await.body);
    assert_eq!(client::get(gateway.address, "/conversations?limit=0").await.status, 400);
}

#[tokio::test]
async fn a_store_that_is_away_is_said_to_be() {
    let gateway = Gateway::with(&[], &["--gateway-store", "127.0.0.1:1"]).await;
    let response = client::get(gateway.address, "/conversations").await;
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (503, &"store_unavailable".into())
    );
}
