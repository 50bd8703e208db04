//! Conversations and lists.

use proto::v1::{
    CreateConversationRequest, DeleteConversationRequest, GetConversationRequest, ListConversationsRequest, ListMessagesRequest, Reason,
    RenameConversationRequest, Role,
};

use crate::stage::{
    Client, Stage, all, ann, begin, conversation, conversations, failure, finish, finished, messages, says, texts, turn, who,
};

crate::contract![
    a_conversation_is_made_read_renamed_and_deleted,
    a_list_is_the_last_changed_first_in_pages,
    a_deleted_conversation_takes_its_words_along,
    messages_come_in_pages_while_others_are_added,
    large_messages_come_whole,
    a_wrong_field_is_named,
];

async fn a_conversation_is_made_read_renamed_and_deleted(stage: Stage) {
    let mut client = stage.client();
    let made = conversation(&mut client, ann()).await;
    assert_eq!((made.title.as_str(), made.messages), ("a title", 0));
    assert!(made.created_ms > 1_700_000_000_000 && made.updated_ms == made.created_ms);

    let get = GetConversationRequest {
        principal: ann(),
        id: made.id.clone(),
    };
    assert_eq!(client.get_conversation(get.clone()).await.unwrap().into_inner(), made);

    let rename = RenameConversationRequest {
        principal: ann(),
        id: made.id.clone(),
        title: "naïve 🦀 'quoted'".to_owned(),
    };
    let renamed = client.rename_conversation(rename.clone()).await.unwrap().into_inner();
    assert_eq!(renamed.title, rename.title);
    assert_eq!(client.get_conversation(get.clone()).await.unwrap().into_inner(), renamed);

    let delete = DeleteConversationRequest {
        principal: ann(),
        id: made.id,
    };
    client.delete_conversation(delete.clone()).await.unwrap();
    for error in [
        client.get_conversation(get).await.unwrap_err(),
        client.rename_conversation(rename).await.unwrap_err(),
        client.delete_conversation(delete).await.unwrap_err(),
    ] {
        assert_eq!(failure(&error).reason(), Reason::NotFound);
    }
}

async fn a_list_is_the_last_changed_first_in_pages(stage: Stage) {
    let mut client = stage.client();
    let mut ids = Vec::new();
    // More than one piece of what the store reads at once.
    for _ in 0..150 {
        ids.push(conversation(&mut client, ann()).await.id);
    }
    // The oldest becomes the last changed: by a turn in it.
    begin(&mut client, turn(&ids[0], "a", "hello")).await;
    let mut listed: Vec<String> = Vec::new();
    loop {
        let page = conversations(&mut client, 70, listed.last().map_or("", String::as_str)).await;
        assert!(page.len() <= 70);
        if page.is_empty() {
            break;
        }
        listed.extend(page.into_iter().map(|one| one.id));
    }
    assert_eq!(listed[0], ids[0]);
    let mut sorted = listed.clone();
    sorted.sort();
    ids.sort();
    assert_eq!(sorted, ids, "each conversation once");
    assert_eq!(conversations(&mut client, 0, "").await.len(), 100);
    let changes: Vec<i64> = conversations(&mut client, 1_000, "")
        .await
        .iter()
        .map(|one| one.updated_ms)
        .collect();
    assert!(changes.is_sorted_by(|a, b| a >= b));

    let gone = ListConversationsRequest {
        principal: ann(),
        page_size: 1,
        after_id: "gone".to_owned(),
    };
    let refused = failure(&client.list_conversations(gone).await.unwrap_err());
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::NotFound, "after_id"));
}

async fn a_deleted_conversation_takes_its_words_along(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let other = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "a secret")).await;
    begin(&mut client, turn(&other, "b", "hello")).await;
    finish(
        &mut client,
        vec![finished(&id, "a", "another secret"), finished(&other, "b", "hello back")],
    )
    .await;
    let delete = DeleteConversationRequest { principal: ann(), id };
    client.delete_conversation(delete).await.unwrap();
    assert_eq!(stage.count("SELECT COUNT(*) FROM messages WHERE text LIKE '%secret%'").await, 0);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers WHERE text LIKE '%secret%'").await, 0);
    assert_eq!(texts(&mut client, &other).await, ["hello", "hello back"]);
}

async fn page(client: &mut Client, id: &str, page_size: u32, after_id: &str) -> Vec<(String, String)> {
    let request = ListMessagesRequest {
        principal: ann(),
        conversation_id: id.to_owned(),
        page_size,
        after_id: after_id.to_owned(),
        newest_first: false,
    };
    let page = all(client.list_messages(request).await.unwrap().into_inner()).await;
    page.into_iter().map(|stored| (stored.id, stored.message.unwrap().text)).collect()
}

async fn messages_come_in_pages_while_others_are_added(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let mut seen = Vec::new();
    let mut after = String::new();
    let mut sent = 0;
    // Between any two pages the conversation grows, faster than it is read at first.
    for round in 0.. {
        for _ in 0..if round < 20 { 6 } else { 0 } {
            begin(&mut client, turn(&id, &format!("s{sent}"), &sent.to_string())).await;
            sent += 1;
        }
        let page = page(&mut client, &id, 7, &after).await;
        let Some((last, _)) = page.last() else { break };
        after.clone_from(last);
        seen.extend(page.into_iter().map(|(_, text)| text));
    }
    let expected: Vec<String> = (0..sent).flat_map(|n| [n.to_string(), String::new()]).collect();
    assert_eq!(seen, expected);
    // And one long page is the same as many short ones.
    assert_eq!(page(&mut client, &id, 1_000, "").await.len(), seen.len());
}

async fn large_messages_come_whole(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let large = "ü".repeat(700 * 1024);
    for stream in ["a", "b", "c"] {
        let mut turn = turn(&id, stream, &large);
        turn.messages.push(says(Role::User, "small"));
        begin(&mut client, turn).await;
    }
    let lengths: Vec<usize> = texts(&mut client, &id).await.iter().map(String::len).collect();
    assert_eq!(lengths, [large.len(), 5, 0].repeat(3));
}

async fn a_wrong_field_is_named(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let long = "x".repeat(300);
    let create = |principal, title: String| CreateConversationRequest {
        principal,
        title,
        ..CreateConversationRequest::default()
    };
    let list = |page_size, after_id: &str| ListMessagesRequest {
        principal: ann(),
        conversation_id: id.clone(),
        page_size,
        after_id: after_id.to_owned(),
        newest_first: false,
    };
    let rename = |title: &str| RenameConversationRequest {
        principal: ann(),
        id: id.clone(),
        title: title.to_owned(),
    };
    let no_id = GetConversationRequest {
        principal: ann(),
        id: String::new(),
    };
    let refused = [
        (
            client.create_conversation(create(who(&long, ""), String::new())).await.unwrap_err(),
            "principal.tenant",
        ),
        (
            client
                .create_conversation(create(who("", "a\0b"), String::new()))
                .await
                .unwrap_err(),
            "principal.user_id",
        ),
        (
            client.create_conversation(create(ann(), "ü".repeat(201))).await.unwrap_err(),
            "title",
        ),
        (
            client.create_conversation(create(ann(), "a\0b".to_owned())).await.unwrap_err(),
            "title",
        ),
        (client.rename_conversation(rename("")).await.unwrap_err(), "title"),
        (client.get_conversation(no_id).await.unwrap_err(), "id"),
        (client.list_messages(list(1_001, "")).await.unwrap_err(), "page_size"),
        (client.list_messages(list(1, "other.3")).await.unwrap_err(), "after_id"),
        (client.begin_turn(turn("", "a", "")).await.unwrap_err(), "conversation_id"),
        (client.begin_turn(turn(&id, "", "")).await.unwrap_err(), "stream_id"),
        (client.begin_turn(turn(&id, &long, "")).await.unwrap_err(), "stream_id"),
    ];
    for (status, field) in refused {
        let failure = failure(&status);
        assert_eq!((failure.reason(), failure.param.as_str()), (Reason::InvalidRequest, field));
        assert!(failure.message.contains(field), "{}", failure.message);
    }
    assert!(client.create_conversation(create(None, "ü".repeat(200))).await.is_ok());
    assert!(messages(&mut client, &id).await.is_empty());
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 0);
}
