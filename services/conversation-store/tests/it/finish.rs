//! Closing turns: many at once, each once, and none at the cost of another.

use proto::v1::{DeleteConversationRequest, FinishTurnsRequest, FinishedTurn, GetAnswerRequest, Reason, StoredAnswer};

use crate::stage::{
    Client, Stage, ann, at_once, begin, conversation, conversations, failure, finish, finished, messages, settings, texts, turn, who,
};

crate::contract![
    a_finished_turn_says_all_that_is_known_of_it,
    finishing_again_changes_nothing,
    the_same_batch_sent_at_once_is_counted_once,
    a_bad_turn_does_not_cost_the_others,
    a_turn_without_a_conversation_is_only_logged,
    a_turn_that_was_never_opened_finds_its_place,
    a_turn_of_an_ended_epoch_is_not_stored,
    of_two_ends_in_one_batch_the_later_epoch_counts,
    a_failure_gives_way_to_the_whole_answer,
    what_never_began_gives_way_to_what_did,
    a_batch_has_a_bound,
];

async fn answer(client: &mut Client, stream_id: &str) -> StoredAnswer {
    let request = GetAnswerRequest {
        principal: ann(),
        stream_id: stream_id.to_owned(),
    };
    client.get_answer(request).await.unwrap().into_inner()
}

async fn a_finished_turn_says_all_that_is_known_of_it(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    assert_eq!(answer(&mut client, "a").await.state, "running");
    let done = finished(&id, "a", "hi there");
    assert_eq!(finish(&mut client, vec![done.clone()]).await, 1);
    let known = answer(&mut client, "a").await;
    assert_eq!(
        (known.state.as_str(), known.finish_reason.as_str(), known.epoch),
        ("finished", "stop", 1)
    );
    assert_eq!((known.message, known.usage), (done.message, done.usage));
    assert_eq!((known.conversation_id, known.model.as_str()), (id, "m"));
    let logged = "SELECT COUNT(*) FROM request_log WHERE tenant_id = 'acme' AND user_id = 'ann' AND stream_id = 'a' AND request_id = 'r'
        AND model = 'm' AND state = 'finished' AND finish_reason = 'stop' AND prompt_tokens = 3 AND completion_tokens = 5
        AND reasoning_tokens = 1 AND cached_tokens = 2 AND started_ms = 1700000000000 AND ttft_ms = 7 AND duration_ms = 70
        AND worker = 'w' AND epoch = 1 AND logged_ms > started_ms";
    assert_eq!(stage.count(logged).await, 1);
}

async fn finishing_again_changes_nothing(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    let other = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    begin(&mut client, turn(&other, "b", "hello")).await;
    assert_eq!(finish(&mut client, vec![finished(&id, "a", "hi there")]).await, 1);
    let before = (answer(&mut client, "a").await, messages(&mut client, &id).await);
    let listed = conversations(&mut client, 10, "").await;
    assert_eq!(finish(&mut client, vec![finished(&id, "a", "something else")]).await, 0);
    assert_eq!((answer(&mut client, "a").await, messages(&mut client, &id).await), before);
    assert_eq!(conversations(&mut client, 10, "").await, listed);
    // With a new one, only the new one counts; twice in one batch is once.
    let batch = vec![finished(&id, "a", "x"), finished(&other, "b", "yes"), finished(&other, "b", "no")];
    assert_eq!(finish(&mut client, batch).await, 1);
    assert_eq!(texts(&mut client, &other).await, ["hello", "yes"]);
    assert_eq!(stage.count("SELECT COUNT(*) FROM request_log").await, 2);
}

async fn the_same_batch_sent_at_once_is_counted_once(stage: Stage) {
    let mut client = stage.client();
    let mut turns = Vec::new();
    for n in 0..20 {
        let id = conversation(&mut client, ann()).await.id;
        begin(&mut client, turn(&id, &format!("s{n}"), "hello")).await;
        turns.push(finished(&id, &format!("s{n}"), "hi there"));
        turns.push(finished("", &format!("log{n}"), ""));
    }
    let calls = (0..6).map(|n| {
        let (mut client, mut turns) = (stage.client(), turns.clone());
        // Each in another order: the database may not make them wait for one another in a circle.
        turns.rotate_left(n * 6);
        async move { finish(&mut client, turns).await }
    });
    assert_eq!(at_once(calls).await.into_iter().sum::<u32>(), 40);
    assert_eq!(stage.count("SELECT COUNT(*) FROM request_log").await, 40);
    assert_eq!(
        stage
            .count("SELECT COUNT(*) FROM answers WHERE state = 'finished' AND text = 'hi there'")
            .await,
        20
    );
}

async fn a_bad_turn_does_not_cost_the_others(stage: Stage) {
    let mut client = stage.client();
    let good = conversation(&mut client, ann()).await.id;
    let deleted = conversation(&mut client, ann()).await.id;
    for (id, stream) in [(&good, "good"), (&deleted, "deleted"), (&good, "odd")] {
        begin(&mut client, turn(id, stream, "hello")).await;
    }
    let delete = DeleteConversationRequest {
        principal: ann(),
        id: deleted.clone(),
    };
    client.delete_conversation(delete).await.unwrap();
    let mut wrong_state = finished(&good, "wrong", "x");
    "running".clone_into(&mut wrong_state.state);
    let mut wrong_name = finished("", "wrong", "x");
    wrong_name.principal = who("a\0b", "");
    let mut odd = finished(&good, "odd", "nul\0");
    odd.request_id = "é".repeat(1_000);
    "\0".clone_into(&mut odd.message.as_mut().unwrap().reasoning);
    let batch = vec![
        finished(&deleted, "deleted", "a secret"),
        wrong_state,
        finished("", "", "x"),
        wrong_name,
        odd,
        finished("never-was", "stray", "x"),
        finished(&good, "good", "hi there"),
    ];
    // Logged are also the turns whose conversation is away: they took place.
    assert_eq!(finish(&mut client, batch).await, 4);
    assert_eq!(texts(&mut client, &good).await, ["hello", "hi there", "hello", "nul\u{fffd}"]);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 2);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers WHERE text LIKE '%secret%'").await, 0);
}

async fn a_turn_without_a_conversation_is_only_logged(stage: Stage) {
    let mut client = stage.client();
    assert_eq!(finish(&mut client, vec![finished("", "a", "not kept")]).await, 1);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 0);
    let known = answer(&mut client, "a").await;
    assert_eq!((known.state.as_str(), known.message), ("finished", None));
    assert_eq!(known.usage, finished("", "a", "").usage);
}

async fn a_turn_that_was_never_opened_finds_its_place(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    let batch = ["a", "b", "c"].map(|stream| finished(&id, stream, &format!("said in {stream}")));
    assert_eq!(finish(&mut client, batch.to_vec()).await, 3);
    assert_eq!(texts(&mut client, &id).await, ["hello", "said in a", "said in b", "said in c"]);
    assert_eq!(conversations(&mut client, 1, "").await[0].messages, 4);
    assert_eq!(answer(&mut client, "c").await.state, "finished");
}

async fn a_turn_of_an_ended_epoch_is_not_stored(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    let claim = proto::v1::ClaimAnswerRequest {
        stream_id: "a".to_owned(),
        epoch: 1,
        owner: "another router".to_owned(),
    };
    assert!(client.claim_answer(claim).await.unwrap().into_inner().won);
    assert_eq!(finish(&mut client, vec![finished(&id, "a", "from the zombie")]).await, 0);
    let mut second = finished(&id, "a", "from the second");
    second.epoch = 2;
    assert_eq!(finish(&mut client, vec![second]).await, 1);
    assert_eq!(texts(&mut client, &id).await, ["hello", "from the second"]);
    assert_eq!(answer(&mut client, "a").await.epoch, 2);
}

async fn of_two_ends_in_one_batch_the_later_epoch_counts(stage: Stage) {
    let mut client = stage.client();
    for (stream, order) in [("a", [1, 2]), ("b", [2, 1])] {
        let id = conversation(&mut client, ann()).await.id;
        begin(&mut client, turn(&id, stream, "hello")).await;
        let claim = proto::v1::ClaimAnswerRequest {
            stream_id: stream.to_owned(),
            epoch: 1,
            owner: "its router".to_owned(),
        };
        assert!(client.claim_answer(claim).await.unwrap().into_inner().won);
        let ends = order.map(|epoch| FinishedTurn {
            epoch,
            ..finished(&id, stream, "whole")
        });
        assert_eq!(finish(&mut client, ends.to_vec()).await, 1);
        let known = answer(&mut client, stream).await;
        assert_eq!((known.state.as_str(), known.epoch), ("finished", 2));
        assert_eq!(texts(&mut client, &id).await, ["hello", "whole"]);
    }
    let mut failed = finished("", "logged", "");
    "failed".clone_into(&mut failed.state);
    assert_eq!(finish(&mut client, vec![failed, finished("", "logged", "")]).await, 1);
    assert_eq!(answer(&mut client, "logged").await.state, "finished");
}

async fn a_failure_gives_way_to_the_whole_answer(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    let ended = |conversation: &str, stream_id: &str, state: &str| FinishedTurn {
        state: state.to_owned(),
        finish_reason: "interrupted".to_owned(),
        message: None,
        ..finished(conversation, stream_id, "")
    };
    for (stream, of) in [("a", id.as_str()), ("logged", "")] {
        assert_eq!(finish(&mut client, vec![ended(of, stream, "failed")]).await, 1);
        assert_eq!(finish(&mut client, vec![ended(of, stream, "failed")]).await, 0);
        assert_eq!(
            finish(&mut client, vec![ended(of, stream, "cancelled")]).await,
            0,
            "nothing is whole of it"
        );
        assert_eq!(answer(&mut client, stream).await.state, "failed");
        assert_eq!(finish(&mut client, vec![finished(of, stream, "hi there")]).await, 1);
        assert_eq!(
            finish(&mut client, vec![ended(of, stream, "failed")]).await,
            0,
            "what is whole stays"
        );
        let known = answer(&mut client, stream).await;
        assert_eq!((known.state.as_str(), known.finish_reason.as_str()), ("finished", "stop"));
    }
    assert_eq!(texts(&mut client, &id).await, ["hello", "hi there"]);
    assert_eq!(stage.count("SELECT COUNT(*) FROM request_log WHERE state = 'finished'").await, 2);
    assert_eq!(stage.count("SELECT COUNT(*) FROM request_log").await, 2);

    // But not to what a replaced writer has.
    begin(&mut client, turn(&id, "b", "again")).await;
    let second = FinishedTurn {
        epoch: 2,
        ..ended(&id, "b", "failed")
    };
    assert_eq!(finish(&mut client, vec![second]).await, 1);
    assert_eq!(finish(&mut client, vec![finished(&id, "b", "from the zombie")]).await, 0);
    assert_eq!(answer(&mut client, "b").await.state, "failed");
}

async fn what_never_began_gives_way_to_what_did(stage: Stage) {
    let mut client = stage.client();
    let never = |stream_id: &str, state: &str| FinishedTurn {
        state: state.to_owned(),
        finish_reason: "cancelled".to_owned(),
        usage: Some(proto::v1::Usage::default()),
        message: None,
        ..finished("", stream_id, "")
    };
    for (number, waited) in ["cancelled", "failed"].into_iter().enumerate() {
        for (began, is_whole) in [("finished", true), ("cancelled", false)] {
            let name = format!("{began}-{number}");
            let ended = FinishedTurn {
                state: began.to_owned(),
                ..finished("", &name, "")
            };
            assert_eq!(finish(&mut client, vec![never(&name, waited)]).await, 1);
            assert_eq!(answer(&mut client, &name).await.state, waited);
            assert_eq!(finish(&mut client, vec![ended.clone()]).await, 1, "{waited} before {began}");
            let late = vec![never(&name, waited), never(&name, "cancelled")];
            assert_eq!(finish(&mut client, late).await, 0, "what began stays");
            let known = answer(&mut client, &name).await;
            assert_eq!((known.state.as_str(), known.usage), (began, ended.usage));
            if is_whole {
                assert_eq!(finish(&mut client, vec![never(&name, waited), ended]).await, 0);
            }
        }
    }
    let (none, some) = (never("batch", "cancelled"), finished("", "batch", ""));
    let some = FinishedTurn {
        state: "cancelled".to_owned(),
        ..some
    };
    assert_eq!(finish(&mut client, vec![none, some.clone()]).await, 1);
    assert_eq!(answer(&mut client, "batch").await.usage, some.usage);
}

async fn a_batch_has_a_bound(stage: Stage) {
    let mut client = stage.client();
    let turns: Vec<_> = (0..513).map(|n| finished("", &format!("s{n}"), "")).collect();
    let error = client.finish_turns(FinishTurnsRequest { turns: turns.clone() }).await.unwrap_err();
    let refused = failure(&error);
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::InvalidRequest, "turns"));
    assert_eq!(finish(&mut client, turns[..512].to_vec()).await, 512);
    assert_eq!(finish(&mut client, Vec::new()).await, 0);
}

mod retention {
    use std::time::Duration;

    use super::{Client, finish, finished, settings};
    use crate::{postgres, stage::Running};

    async fn old_entries_go(database: &str) {
        let store = Running::start(settings(database)).await;
        finish(
            &mut store.client.clone(),
            (0..5).map(|n| finished("", &format!("s{n}"), "")).collect(),
        )
        .await;
        store.stop().await.unwrap();
        let mut forgetful = settings(database);
        forgetful.request_log_keep = Duration::ZERO;
        let store = Running::start(forgetful).await;
        // What is logged in the millisecond in which the store starts may stay; what was logged before goes at once.
        let gone = async {
            while known(&mut store.client.clone()).await {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
        store.stop().await.unwrap();
    }

    async fn known(client: &mut Client) -> bool {
        let request = proto::v1::GetAnswerRequest {
            principal: crate::stage::ann(),
            stream_id: "s0".to_owned(),
        };
        client.get_answer(request).await.is_ok()
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn old_entries_go_over_sqlite() {
        let folder = tempfile::TempDir::new().unwrap();
        old_entries_go(&format!("sqlite://{}/chat.db", folder.path().display())).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn old_entries_go_over_postgres() {
        old_entries_go(&postgres::shared().await.database().await).await;
    }
}
