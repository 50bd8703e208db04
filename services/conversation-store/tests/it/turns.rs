//! Opening turns: once per answer, whole, and with the right history.

use proto::v1::{CheckpointRequest, Image, Message, Reason, Role, ToolCall};

use crate::stage::{Stage, ann, at_once, begin, conversation, failure, finish, finished, messages, says, texts, turn};

crate::contract![
    a_turn_brings_the_history_before_it,
    the_same_turn_again_stores_nothing_and_sees_the_same_history,
    a_turn_retried_at_once_by_many_is_stored_once,
    turns_opened_at_once_in_one_conversation_keep_their_messages_together,
    a_turn_without_its_conversation_stores_nothing,
    an_answer_belongs_to_one_conversation,
    an_interrupted_answer_is_history_as_far_as_it_came,
    a_long_history_leaves_out_the_oldest,
    a_large_history_leaves_out_the_oldest,
    a_message_comes_back_as_it_was,
];

async fn a_turn_brings_the_history_before_it(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    assert!(begin(&mut client, turn(&id, "a", "hello")).await.is_empty());
    finish(&mut client, vec![finished(&id, "a", "hi there")]).await;
    assert_eq!(begin(&mut client, turn(&id, "b", "and now?")).await, ["hello", "hi there"]);
    let stored = messages(&mut client, &id).await;
    let states: Vec<_> = stored.iter().map(|one| (one.stream_id.as_str(), one.state.as_str())).collect();
    assert_eq!(states, [("a", ""), ("a", "finished"), ("b", ""), ("b", "running")]);
    let roles: Vec<Role> = stored.iter().map(|one| one.message.as_ref().unwrap().role()).collect();
    assert_eq!(roles, [Role::User, Role::Assistant, Role::User, Role::Assistant]);
}

async fn the_same_turn_again_stores_nothing_and_sees_the_same_history(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    finish(&mut client, vec![finished(&id, "a", "hi there")]).await;
    let first = begin(&mut client, turn(&id, "b", "more")).await;
    let stored = messages(&mut client, &id).await;
    assert_eq!(begin(&mut client, turn(&id, "b", "more")).await, first);
    // Also when it is closed, and when others have followed.
    finish(&mut client, vec![finished(&id, "b", "yes")]).await;
    begin(&mut client, turn(&id, "c", "and more")).await;
    assert_eq!(begin(&mut client, turn(&id, "b", "more")).await, first);
    assert_eq!(messages(&mut client, &id).await.len(), stored.len() + 2);
}

async fn a_turn_retried_at_once_by_many_is_stored_once(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    finish(&mut client, vec![finished(&id, "a", "hi there")]).await;
    let calls = (0..12).map(|_| {
        let (mut client, turn) = (stage.client(), turn(&id, "b", "more"));
        async move { begin(&mut client, turn).await }
    });
    for history in at_once(calls).await {
        assert_eq!(history, ["hello", "hi there"]);
    }
    assert_eq!(texts(&mut client, &id).await, ["hello", "hi there", "more", ""]);
}

async fn turns_opened_at_once_in_one_conversation_keep_their_messages_together(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let calls = (0..12).map(|n| {
        let mut client = stage.client();
        let mut turn = turn(&id, &format!("s{n}"), "one");
        turn.messages.push(says(Role::User, "two"));
        async move { begin(&mut client, turn).await }
    });
    at_once(calls).await;
    let stored = messages(&mut client, &id).await;
    assert_eq!(stored.len(), 36);
    for (place, turn) in stored.chunks(3).enumerate() {
        assert!(turn.iter().all(|one| one.stream_id == turn[0].stream_id), "turn {place} is torn");
        let said: Vec<_> = turn.iter().map(|one| one.message.as_ref().unwrap().text.as_str()).collect();
        assert_eq!(said, ["one", "two", ""]);
    }
}

async fn a_turn_without_its_conversation_stores_nothing(stage: Stage) {
    let mut client = stage.client();
    let error = client.begin_turn(turn("gone", "a", "hello")).await.unwrap_err();
    assert_eq!(failure(&error).reason(), Reason::NotFound);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 0);
    assert_eq!(stage.count("SELECT COUNT(*) FROM messages").await, 0);
}

async fn an_answer_belongs_to_one_conversation(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let other = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    let refused = failure(&client.begin_turn(turn(&other, "a", "hello")).await.unwrap_err());
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Conflict, "stream_id"));
    assert!(messages(&mut client, &other).await.is_empty());
}

async fn an_interrupted_answer_is_history_as_far_as_it_came(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "first")).await;
    begin(&mut client, turn(&id, "b", "second")).await;
    let checkpoint = CheckpointRequest {
        principal: ann(),
        stream_id: "b".to_owned(),
        epoch: 1,
        position: 2,
        message: Some(says(Role::Assistant, "so far")),
        ..CheckpointRequest::default()
    };
    client.checkpoint(checkpoint).await.unwrap();
    // `a` has said nothing: it is left out. `b` has.
    assert_eq!(begin(&mut client, turn(&id, "c", "third")).await, ["first", "second", "so far"]);
    // Whoever ends it has only its name left: what it had said stays.
    let mut failed = finished(&id, "b", "");
    failed.message = None;
    "failed".clone_into(&mut failed.state);
    let mut cancelled = finished(&id, "c", "up to here");
    "cancelled".clone_into(&mut cancelled.state);
    assert_eq!(finish(&mut client, vec![failed, cancelled]).await, 2);
    let history = begin(&mut client, turn(&id, "d", "fourth")).await;
    assert_eq!(history, ["first", "second", "so far", "third", "up to here"]);
    let states: Vec<_> = messages(&mut client, &id).await.into_iter().map(|one| one.state).collect();
    assert_eq!(states, ["", "running", "", "failed", "", "cancelled", "", "running"]);
}

async fn a_long_history_leaves_out_the_oldest(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let mut long = turn(&id, "a", "");
    long.messages = (0..4_096).map(|n| says(Role::User, &n.to_string())).collect();
    begin(&mut client, long).await;
    finish(&mut client, vec![finished(&id, "a", "the end")]).await;
    let history = begin(&mut client, turn(&id, "b", "more")).await;
    assert_eq!(history.len(), 4_096);
    assert_eq!((history[0].as_str(), history[4_095].as_str()), ("1", "the end"));
}

async fn a_large_history_leaves_out_the_oldest(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let large = "x".repeat(3 * 1024 * 1024);
    for n in 0..3 {
        begin(&mut client, turn(&id, &format!("s{n}"), &format!("{n}{large}"))).await;
    }
    let history = begin(&mut client, turn(&id, "last", "hello")).await;
    let begins: Vec<&str> = history.iter().map(|text| &text[..1]).collect();
    assert_eq!(begins, ["1", "2"], "8 MiB hold two of them");
}

async fn a_message_comes_back_as_it_was(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let call = Message {
        role: Role::Assistant.into(),
        text: "\"quotes\", \\ and\nlines \u{1}".to_owned(),
        tool_calls: vec![ToolCall {
            id: "call_1".to_owned(),
            name: "weather".to_owned(),
            arguments: "{\"city\":\"Århus\"}".to_owned(),
        }],
        reasoning: "hm 🦀".to_owned(),
        ..Message::default()
    };
    let result = Message {
        role: Role::Tool.into(),
        text: "sunny".to_owned(),
        tool_call_id: "call_1".to_owned(),
        name: "weather".to_owned(),
        ..Message::default()
    };
    let image = |media_type: &str, at| Image {
        media_type: media_type.to_owned(),
        data: vec![0, 255, 7],
        detail: "low".to_owned(),
        at,
    };
    let picture = Message {
        images: vec![image("image/png", 0), image("image/gif", 4)],
        ..says(Role::User, "look")
    };
    let mut first = turn(&id, "a", "");
    first.messages = vec![says(Role::System, "be brief"), call.clone(), result.clone(), picture.clone()];
    client.begin_turn(first.clone()).await.unwrap();
    let mut done = finished(&id, "a", "");
    done.message = Some(call.clone());
    finish(&mut client, vec![done]).await;
    let history = client.begin_turn(turn(&id, "b", "nul\0")).await.unwrap().into_inner().history;
    assert_eq!(history, [first.messages, vec![call]].concat());
    // PostgreSQL has no place for U+0000, so neither database keeps it.
    assert_eq!(texts(&mut client, &id).await[5], "nul\u{fffd}");
    assert_eq!(messages(&mut client, &id).await[3].message, Some(picture));
}
