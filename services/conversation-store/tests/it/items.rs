//! Single messages of a conversation, and its metadata.

use std::collections::HashMap;

use proto::v1::{
    AddMessagesRequest, CreateConversationRequest, DeleteMessageRequest, GetConversationRequest, GetMessageRequest, ListMessagesRequest,
    Message, MessagePart, Reason, Role, StoredMessage, ToolCall, UpdateConversationRequest,
};

use crate::stage::{Client, Stage, all, ann, begin, conversation, failure, finish, finished, says, texts, turn};

crate::contract![
    messages_are_added_listed_both_ways_and_read,
    what_was_taken_out_is_gone_from_the_history_and_the_count,
    a_part_that_was_taken_out_leaves_the_others_at_their_numbers,
    metadata_is_kept_and_replaced,
    a_large_message_is_listed_also_after_a_gap,
];

async fn add(client: &mut Client, conversation: &str, messages: Vec<Message>) -> Vec<StoredMessage> {
    let request = AddMessagesRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        messages,
    };
    client.add_messages(request).await.unwrap().into_inner().messages
}

async fn listed(client: &mut Client, conversation: &str, after_id: &str, newest_first: bool) -> Vec<String> {
    let request = ListMessagesRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        page_size: 2,
        after_id: after_id.to_owned(),
        newest_first,
    };
    let page = all(client.list_messages(request).await.unwrap().into_inner()).await;
    page.into_iter().map(|stored| stored.message.unwrap().text).collect()
}

fn delete(conversation: &str, id: &str, part: MessagePart, tool_call: u32) -> DeleteMessageRequest {
    DeleteMessageRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        id: id.to_owned(),
        part: part.into(),
        tool_call,
    }
}

fn get(conversation: &str, id: &str, stream_id: &str) -> GetMessageRequest {
    GetMessageRequest {
        principal: ann(),
        conversation_id: conversation.to_owned(),
        id: id.to_owned(),
        stream_id: stream_id.to_owned(),
    }
}

async fn messages_are_added_listed_both_ways_and_read(stage: Stage) {
    let mut client = stage.client();
    let request = CreateConversationRequest {
        principal: ann(),
        messages: vec![says(Role::System, "one")],
        ..CreateConversationRequest::default()
    };
    let made = client.create_conversation(request).await.unwrap().into_inner();
    assert_eq!(made.messages, 1);
    let id = made.id;
    let added = add(&mut client, &id, vec![says(Role::User, "two"), says(Role::Assistant, "three")]).await;
    assert_eq!(texts(&mut client, &id).await, ["one", "two", "three"]);
    assert_eq!(listed(&mut client, &id, "", true).await, ["three", "two"]);
    assert_eq!(listed(&mut client, &id, &added[0].id, true).await, ["one"]);
    assert_eq!(listed(&mut client, &id, &added[0].id, false).await, ["three"]);
    assert_eq!(begin(&mut client, turn(&id, "a", "four")).await, ["one", "two", "three"]);
    finish(&mut client, vec![finished(&id, "a", "five")]).await;
    let read = client.get_message(get(&id, &added[1].id, "")).await.unwrap().into_inner();
    assert_eq!(read, added[1]);
    let answer = client.get_message(get(&id, "", "a")).await.unwrap().into_inner();
    assert_eq!(
        (answer.id.as_str(), answer.message.unwrap().text.as_str()),
        (format!("{id}.4").as_str(), "five")
    );
    for wrong in [get(&id, &format!("{id}.9"), ""), get(&id, "x", ""), get(&id, "", "b")] {
        assert_eq!(failure(&client.get_message(wrong).await.unwrap_err()).reason(), Reason::NotFound);
    }
}

async fn what_was_taken_out_is_gone_from_the_history_and_the_count(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "one")).await;
    let answer = client.get_message(get(&id, "", "a")).await.unwrap().into_inner().id;
    let early = client
        .delete_message(delete(&id, &answer, MessagePart::Unspecified, 0))
        .await
        .unwrap_err();
    assert_eq!(failure(&early).reason(), Reason::Conflict, "it still runs");
    finish(&mut client, vec![finished(&id, "a", "two")]).await;
    let added = add(&mut client, &id, vec![says(Role::User, "three")]).await;
    for gone in [&answer, &added[0].id] {
        client.delete_message(delete(&id, gone, MessagePart::Unspecified, 0)).await.unwrap();
        let again = client
            .delete_message(delete(&id, gone, MessagePart::Unspecified, 0))
            .await
            .unwrap_err();
        assert_eq!(failure(&again).reason(), Reason::NotFound);
    }
    assert_eq!(begin(&mut client, turn(&id, "b", "four")).await, ["one"]);
    let read = GetConversationRequest { principal: ann(), id };
    assert_eq!(client.get_conversation(read).await.unwrap().into_inner().messages, 3);
    assert_eq!(
        stage.count("SELECT COUNT(*) FROM answers").await,
        1,
        "and with the answer's message what it said"
    );
}

async fn a_part_that_was_taken_out_leaves_the_others_at_their_numbers(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let call = |id: &str| ToolCall {
        id: id.to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
    };
    let whole = Message {
        reasoning: "hm".to_owned(),
        tool_calls: vec![call("c1"), call("c2")],
        ..says(Role::Assistant, "said")
    };
    begin(&mut client, turn(&id, "a", "one")).await;
    let mut end = finished(&id, "a", "");
    end.message = Some(whole.clone());
    finish(&mut client, vec![end]).await;
    let added = add(&mut client, &id, vec![whole]).await[0].id.clone();
    let answer = client.get_message(get(&id, "", "a")).await.unwrap().into_inner().id;
    for of in [&answer, &added] {
        client.delete_message(delete(&id, of, MessagePart::Reasoning, 0)).await.unwrap();
        client.delete_message(delete(&id, of, MessagePart::ToolCall, 0)).await.unwrap();
        let left = client.get_message(get(&id, of, "")).await.unwrap().into_inner().message.unwrap();
        assert_eq!((left.text.as_str(), left.reasoning.as_str()), ("said", ""));
        assert_eq!(left.tool_calls, [ToolCall::default(), call("c2")]);
    }
    let next = client.begin_turn(turn(&id, "b", "two")).await.unwrap().into_inner();
    assert_eq!(next.history[1].tool_calls, [call("c2")], "a model hears nothing of the empty place");
    for part in [MessagePart::Text, MessagePart::ToolCall] {
        client.delete_message(delete(&id, &added, part, 1)).await.unwrap();
    }
    assert_eq!(
        failure(&client.get_message(get(&id, &added, "")).await.unwrap_err()).reason(),
        Reason::NotFound,
        "of which nothing is left"
    );
}

async fn metadata_is_kept_and_replaced(stage: Stage) {
    let mut client = stage.client();
    let pairs = |pairs: &[(&str, &str)]| -> HashMap<String, String> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let request = CreateConversationRequest {
        principal: ann(),
        metadata: pairs(&[("topic", "tr\u{00e9}es"), ("n", "1")]),
        ..CreateConversationRequest::default()
    };
    let made = client.create_conversation(request).await.unwrap().into_inner();
    let get = GetConversationRequest {
        principal: ann(),
        id: made.id.clone(),
    };
    assert_eq!(client.get_conversation(get).await.unwrap().into_inner().metadata, made.metadata);
    let mut update = UpdateConversationRequest {
        principal: ann(),
        id: made.id,
        metadata: pairs(&[("topic", "woods")]),
    };
    let updated = client.update_conversation(update.clone()).await.unwrap().into_inner();
    assert_eq!(updated.metadata, pairs(&[("topic", "woods")]));
    update.metadata = pairs(&[("", "x")]);
    assert_eq!(failure(&client.update_conversation(update).await.unwrap_err()).param, "metadata");
}

async fn a_large_message_is_listed_also_after_a_gap(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let large = "x".repeat(2 * 1024 * 1024);
    let messages = vec![says(Role::User, "one"), says(Role::User, "two"), says(Role::User, &large)];
    let added = add(&mut client, &id, messages).await;
    client
        .delete_message(delete(&id, &added[1].id, MessagePart::Unspecified, 0))
        .await
        .unwrap();
    let lens = |texts: Vec<String>| texts.iter().map(String::len).collect::<Vec<_>>();
    assert_eq!(lens(listed(&mut client, &id, "", false).await), [3, large.len()]);
    assert_eq!(lens(listed(&mut client, &id, "", true).await), [large.len(), 3]);
}
