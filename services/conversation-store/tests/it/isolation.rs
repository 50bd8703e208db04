//! What belongs to another principal is not there: on every call, for another user, another tenant, and nobody.

use proto::v1::{
    AddMessagesRequest, ChatRequest, CheckpointRequest, DeleteConversationRequest, DeleteMessageRequest, DeleteRecordRequest,
    GetAnswerRequest, GetConversationRequest, GetMessageRequest, GetRecordRequest, ListConversationsRequest, ListMessagesRequest,
    ListRecordsRequest, OpenRecordRequest, Principal, Reason, Record, RenameConversationRequest, Role, UpdateConversationRequest,
};
use tonic::Status;

use crate::stage::{Client, Stage, all, ann, begin, conversation, failure, finish, finished, says, texts, turn, who};

crate::contract![
    what_is_anothers_is_not_found_on_any_call,
    nothing_can_be_written_into_anothers_conversation,
    the_same_names_of_two_principals_are_two_things,
];

fn others() -> [Option<Principal>; 5] {
    // The last two would be Ann if the names were joined carelessly.
    [
        who("acme", "bob"),
        who("other", "ann"),
        None,
        who("acmeann", ""),
        who("", "acmeann"),
    ]
}

/// Every call that names something, on behalf of `principal`.
async fn every_call(client: &mut Client, principal: Option<Principal>, id: &str, stream: &str) -> Vec<(&'static str, Result<(), Status>)> {
    let (id, stream_id) = (id.to_owned(), stream.to_owned());
    let get = GetConversationRequest {
        principal: principal.clone(),
        id: id.clone(),
    };
    let rename = RenameConversationRequest {
        principal: principal.clone(),
        id: id.clone(),
        title: "mine now".to_owned(),
    };
    let delete = DeleteConversationRequest {
        principal: principal.clone(),
        id: id.clone(),
    };
    let list = ListConversationsRequest {
        principal: principal.clone(),
        page_size: 1,
        after_id: id.clone(),
    };
    let messages = ListMessagesRequest {
        principal: principal.clone(),
        conversation_id: id.clone(),
        page_size: 1,
        ..ListMessagesRequest::default()
    };
    let mut begin = turn(&id, "mine", "hello");
    begin.principal.clone_from(&principal);
    let checkpoint = CheckpointRequest {
        principal: principal.clone(),
        stream_id: stream_id.clone(),
        epoch: 9,
        position: 9,
        message: Some(says(Role::Assistant, "not Ann's")),
        ..CheckpointRequest::default()
    };
    let update = UpdateConversationRequest {
        principal: principal.clone(),
        id: id.clone(),
        ..UpdateConversationRequest::default()
    };
    let add = AddMessagesRequest {
        principal: principal.clone(),
        conversation_id: id.clone(),
        messages: vec![says(Role::User, "not Ann's")],
    };
    let message = GetMessageRequest {
        principal: principal.clone(),
        conversation_id: id.clone(),
        id: format!("{id}.0"),
        ..GetMessageRequest::default()
    };
    let remove = DeleteMessageRequest {
        principal: principal.clone(),
        conversation_id: id.clone(),
        id: format!("{id}.0"),
        ..DeleteMessageRequest::default()
    };
    let open = OpenRecordRequest {
        principal: principal.clone(),
        record: Some(Record {
            stream_id: format!("{stream_id}-2"),
            conversation_id: id.clone(),
            ..Record::default()
        }),
        ..OpenRecordRequest::default()
    };
    let record = GetRecordRequest {
        principal: principal.clone(),
        stream_id: stream_id.clone(),
    };
    let records = ListRecordsRequest {
        principal: principal.clone(),
        stream_id: stream_id.clone(),
        page_size: 1,
    };
    let forget = DeleteRecordRequest {
        principal: principal.clone(),
        stream_id: stream_id.clone(),
    };
    let answer = GetAnswerRequest { principal, stream_id };
    vec![
        ("UpdateConversation", client.update_conversation(update).await.map(drop)),
        ("AddMessages", client.add_messages(add).await.map(drop)),
        ("GetMessage", client.get_message(message).await.map(drop)),
        ("OpenRecord", client.open_record(open).await.map(drop)),
        ("GetRecord", client.get_record(record).await.map(drop)),
        ("ListRecords", client.list_records(records).await.map(drop)),
        ("DeleteRecord", client.delete_record(forget).await.map(drop)),
        ("DeleteMessage", client.delete_message(remove).await.map(drop)),
        ("GetConversation", client.get_conversation(get).await.map(drop)),
        ("RenameConversation", client.rename_conversation(rename).await.map(drop)),
        ("DeleteConversation", client.delete_conversation(delete).await.map(drop)),
        ("ListConversations", client.list_conversations(list).await.map(drop)),
        ("ListMessages", client.list_messages(messages).await.map(drop)),
        ("BeginTurn", client.begin_turn(begin).await.map(drop)),
        ("Checkpoint", client.checkpoint(checkpoint).await.map(drop)),
        ("GetAnswer", client.get_answer(answer).await.map(drop)),
    ]
}

async fn what_is_anothers_is_not_found_on_any_call(stage: Stage) {
    let mut client = stage.client();
    let made = conversation(&mut client, ann()).await;
    begin(&mut client, turn(&made.id, "a", "hello")).await;
    let record = Record {
        stream_id: "a".to_owned(),
        conversation_id: made.id.clone(),
        ..Record::default()
    };
    let open = OpenRecordRequest {
        principal: ann(),
        record: Some(record),
        model: "m".to_owned(),
    };
    client.open_record(open).await.unwrap();
    for principal in others() {
        let theirs = every_call(&mut client, principal.clone(), &made.id, "a").await;
        let nobodys = every_call(&mut client, principal.clone(), "never-was", "never-was").await;
        for ((call, theirs), (_, nobodys)) in theirs.into_iter().zip(nobodys) {
            let refused = failure(&theirs.expect_err(call));
            assert_eq!(refused.reason(), Reason::NotFound, "{call} as {principal:?}");
            assert_eq!(refused, failure(&nobodys.unwrap_err()), "{call} must not tell that it is there");
        }
        let list = ListConversationsRequest {
            principal,
            ..ListConversationsRequest::default()
        };
        assert!(all(client.list_conversations(list).await.unwrap().into_inner()).await.is_empty());
    }
    assert_eq!(texts(&mut client, &made.id).await, ["hello", ""]);
    let get = GetConversationRequest {
        principal: ann(),
        id: made.id.clone(),
    };
    assert_eq!(client.get_conversation(get).await.unwrap().into_inner().title, made.title);
    // The same calls on Ann's own behalf all go through: the refusals above are not for another reason.
    let mut own = every_call(&mut client, ann(), &made.id, "a").await;
    own.retain(|(_, outcome)| outcome.is_err());
    let after_delete: Vec<_> = own.iter().map(|(call, _)| *call).collect();
    assert_eq!(
        after_delete,
        ["ListConversations", "ListMessages", "BeginTurn", "Checkpoint", "GetAnswer"],
        "it was deleted by the third of these"
    );
}

async fn nothing_can_be_written_into_anothers_conversation(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    for principal in others() {
        for stream in ["a", "b"] {
            let mut theirs = finished(&id, stream, "not Ann's");
            theirs.principal.clone_from(&principal);
            finish(&mut client, vec![theirs]).await;
        }
    }
    assert_eq!(texts(&mut client, &id).await, ["hello", ""]);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 1);
    // Ann's own end of the same answer still counts.
    assert_eq!(finish(&mut client, vec![finished(&id, "a", "Ann's")]).await, 1);
    assert_eq!(texts(&mut client, &id).await, ["hello", "Ann's"]);
}

async fn the_same_names_of_two_principals_are_two_things(stage: Stage) {
    let mut client = stage.client();
    let bob = who("acme", "bob");
    let mut texts = Vec::new();
    for (principal, text) in [(ann(), "of Ann"), (bob.clone(), "of Bob")] {
        let checkpoint = CheckpointRequest {
            principal,
            stream_id: "same".to_owned(),
            epoch: 1,
            position: 1,
            message: Some(says(Role::Assistant, text)),
            request: Some(ChatRequest::default()),
            ..CheckpointRequest::default()
        };
        client.checkpoint(checkpoint).await.unwrap();
    }
    for principal in [ann(), bob] {
        let request = GetAnswerRequest {
            principal,
            stream_id: "same".to_owned(),
        };
        texts.push(client.get_answer(request).await.unwrap().into_inner().message.unwrap().text);
    }
    assert_eq!(texts, ["of Ann", "of Bob"]);
}
