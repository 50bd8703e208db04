//! Leases: whose answers nobody makes any more, and what is kept of those that can go on.

use std::time::Duration;

use proto::v1::{
    ChatRequest, CheckpointRequest, CheckpointResponse, DeleteConversationRequest, Entry, GetAnswerRequest, ListOrphansRequest, Role,
    StoredAnswer,
};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt as _;

use crate::stage::{Client, Stage, ann, begin, conversation, finish, finished, says, turn};

crate::contract![
    an_answer_whose_lease_is_over_is_an_orphan_until_somebody_saves_or_ends_it,
    the_entries_of_a_background_answer_are_kept_once_and_without_a_gap,
    entries_go_with_their_answer,
];

/// A checkpoint that brings the entries from..to.
fn checkpoint(stream_id: &str, from: u32, to: u32) -> CheckpointRequest {
    CheckpointRequest {
        principal: ann(),
        stream_id: stream_id.to_owned(),
        epoch: 1,
        position: to,
        message: Some(says(Role::Assistant, "so far")),
        entries: (from..to).map(|index| Entry::text(format!("{index} "), 100 + index)).collect(),
        ..CheckpointRequest::default()
    }
}

async fn save(client: &mut Client, request: CheckpointRequest) -> CheckpointResponse {
    client.checkpoint(request).await.unwrap().into_inner()
}

async fn answer(client: &mut Client, stream_id: &str) -> StoredAnswer {
    let request = GetAnswerRequest {
        principal: ann(),
        stream_id: stream_id.to_owned(),
    };
    client.get_answer(request).await.unwrap().into_inner()
}

/// Waits until these are the orphans.
async fn until_orphans(client: &mut Client, expected: &[&str]) -> Vec<StoredAnswer> {
    let listed = async {
        loop {
            let orphans = client.list_orphans(ListOrphansRequest::default()).await.unwrap().into_inner();
            let orphans: Vec<StoredAnswer> = orphans.map(Result::unwrap).collect().await;
            let mut ids: Vec<&str> = orphans.iter().map(|orphan| orphan.stream_id.as_str()).collect();
            ids.sort_unstable();
            if ids == expected {
                return orphans;
            }
            sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(Duration::from_secs(20), listed)
        .await
        .expect("the orphans never came to be these")
}

async fn an_answer_whose_lease_is_over_is_an_orphan_until_somebody_saves_or_ends_it(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    begin(&mut client, turn(&id, "b", "hello")).await;
    let orphans = until_orphans(&mut client, &["a", "b"]).await;
    let orphan = orphans.iter().find(|orphan| orphan.stream_id == "a").unwrap();
    assert_eq!((&orphan.principal, orphan.conversation_id.as_str()), (&ann(), id.as_str()));
    assert!(answer(&mut client, "a").await.orphan);
    let released = CheckpointRequest {
        release: true,
        ..checkpoint("a", 0, 0)
    };
    let held = async |stage: &Stage| {
        stage
            .count("SELECT COUNT(*) FROM answers WHERE lease_ms > 0 AND stream_id = 'a'")
            .await
    };
    assert!(save(&mut client, checkpoint("a", 0, 0)).await.lease_ms > 0);
    assert_eq!(held(&stage).await, 1);
    save(&mut client, released).await;
    assert_eq!(held(&stage).await, 0, "its lease is over at once");
    finish(&mut client, vec![finished(&id, "a", "the end")]).await;
    until_orphans(&mut client, &["b"]).await;
    let lease = "SELECT COUNT(*) FROM answers WHERE lease_ms > (SELECT MAX(updated_ms) FROM answers) AND stream_id = 'b'";
    assert_eq!(stage.count(lease).await, 0, "its lease is over");
    begin(&mut client, turn(&id, "b", "hello")).await;
    assert_eq!(stage.count(lease).await, 1, "who opens it once more has a lease of its own");
    assert!(!answer(&mut client, "a").await.orphan);
}

async fn the_entries_of_a_background_answer_are_kept_once_and_without_a_gap(stage: Stage) {
    let mut client = stage.client();
    let first = CheckpointRequest {
        request: Some(ChatRequest {
            prompt: "a long story".to_owned(),
            ..ChatRequest::default()
        }),
        ..checkpoint("a", 0, 3)
    };
    assert_eq!(save(&mut client, first.clone()).await.position, 3);
    assert_eq!(save(&mut client, first).await.position, 3, "its reply was lost");
    assert_eq!(save(&mut client, checkpoint("a", 7, 9)).await.position, 3, "some are missing");
    assert_eq!(save(&mut client, checkpoint("a", 1, 6)).await.position, 6, "some were there");
    assert_eq!(save(&mut client, checkpoint("a", 6, 7)).await.position, 7);
    let known = answer(&mut client, "a").await;
    let ids: Vec<u32> = known.entries.iter().flat_map(|entry| entry.token_ids.clone()).collect();
    assert_eq!((ids, known.position), ((100..107).collect(), 7));
    finish(&mut client, vec![finished("", "a", "the end")]).await;
    assert_eq!(
        stage.count("SELECT COUNT(*) FROM answer_entries").await,
        0,
        "they were for going on"
    );
}

async fn entries_go_with_their_answer(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    save(&mut client, checkpoint("a", 0, 3)).await;
    assert_eq!(stage.count("SELECT COUNT(*) FROM answer_entries").await, 1);
    let request = DeleteConversationRequest { principal: ann(), id };
    client.delete_conversation(request).await.unwrap();
    assert_eq!(stage.count("SELECT COUNT(*) FROM answer_entries").await, 0);
}
