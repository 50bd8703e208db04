//! Claims and checkpoints: one writer at a time, and nothing that an older one says counts.

use std::time::{Duration, Instant};

use proto::v1::{
    ChatRequest, CheckpointRequest, ChoiceEnd, ClaimAnswerRequest, ClaimAnswerResponse, GetAnswerRequest, Reason, ResumePoint, Role,
    StoredAnswer,
};

use crate::stage::{Client, Stage, ann, at_once, begin, conversation, failure, finish, finished, says, texts, turn};

crate::contract![
    of_many_claimers_one_wins,
    a_claim_is_for_the_last_epoch_that_the_store_or_the_router_knows,
    a_winner_that_did_not_hear_it_wins_again,
    of_many_routers_one_begins_an_answer_and_the_next_one_only_after_its_lease,
    a_checkpoint_of_an_ended_epoch_is_refused,
    a_late_checkpoint_changes_nothing,
    a_background_answer_is_kept_with_all_that_it_needs_to_go_on,
    a_checkpoint_of_an_unknown_answer_is_refused,
];

async fn claim(client: &mut Client, epoch: u32, owner: &str) -> ClaimAnswerResponse {
    let request = ClaimAnswerRequest {
        stream_id: "a".to_owned(),
        epoch,
        owner: owner.to_owned(),
    };
    client.claim_answer(request).await.unwrap().into_inner()
}

async fn of_many_claimers_one_wins(stage: Stage) {
    let mut client = stage.client();
    for epoch in 1..6 {
        let calls = (0..16).map(|n| {
            let mut client = stage.client();
            async move { claim(&mut client, epoch, &format!("router {n}")).await }
        });
        let claims = at_once(calls).await;
        assert_eq!(claims.iter().filter(|claim| claim.won).count(), 1, "epoch {epoch}");
        assert!(claims.iter().all(|claim| claim.epoch == epoch + 1), "{claims:?}");
    }
    assert!(!claim(&mut client, 1, "late").await.won);
}

async fn a_claim_is_for_the_last_epoch_that_the_store_or_the_router_knows(stage: Stage) {
    let mut client = stage.client();
    let outcome = |won, epoch| ClaimAnswerResponse { won, epoch, lease_ms: 300 };
    assert_eq!(claim(&mut client, 1, "x").await, outcome(true, 2));
    assert_eq!(claim(&mut client, 1, "y").await, outcome(false, 2), "it has ended");
    assert_eq!(claim(&mut client, 2, "y").await, outcome(true, 3));
    assert_eq!(claim(&mut client, 7, "x").await, outcome(true, 8), "the store has missed some");
    assert_eq!(claim(&mut client, 3, "y").await, outcome(false, 8));
}

async fn of_many_routers_one_begins_an_answer_and_the_next_one_only_after_its_lease(stage: Stage) {
    let mut client = stage.client();
    let calls = (0..16).map(|n| {
        let mut client = stage.client();
        async move { (n, claim(&mut client, 0, &format!("router {n}")).await) }
    });
    let claims = at_once(calls).await;
    let winners: Vec<_> = claims.iter().filter(|(_, claim)| claim.won).collect();
    assert!(winners.len() == 1 && claims.iter().all(|(_, claim)| claim.epoch == 1), "{claims:?}");
    let winner = format!("router {}", winners[0].0);
    let lease = Duration::from_millis(claims[0].1.lease_ms.into());

    // As long as it claims again, nobody else has it.
    let until = Instant::now() + lease * 4;
    while Instant::now() < until {
        let renewed = Instant::now();
        assert!(claim(&mut client, 0, &winner).await.won);
        let other = claim(&mut client, 0, "other").await;
        assert!(!other.won || renewed.elapsed() >= lease, "{other:?}");
        if other.won {
            break; // this machine was too slow to renew in time
        }
    }
    let next = loop {
        let next = claim(&mut client, 0, "next").await;
        if next.won {
            break next;
        }
    };
    assert!(next.epoch >= 2, "{next:?}");
    let late = claim(&mut client, 1, &winner).await;
    assert!(!late.won, "its epoch has ended: {late:?}");
}

async fn a_winner_that_did_not_hear_it_wins_again(stage: Stage) {
    let mut client = stage.client();
    assert_eq!(claim(&mut client, 1, "x").await, claim(&mut client, 1, "x").await);
    assert!(!claim(&mut client, 1, "y").await.won);
    assert!(claim(&mut client, 2, "y").await.won);
    assert!(!claim(&mut client, 1, "x").await.won, "its epoch has ended");
}

fn checkpoint(epoch: u32, position: u32, text: &str) -> CheckpointRequest {
    CheckpointRequest {
        principal: ann(),
        stream_id: "a".to_owned(),
        epoch,
        position,
        message: Some(says(Role::Assistant, text)),
        ..CheckpointRequest::default()
    }
}

async fn answer(client: &mut Client) -> StoredAnswer {
    let request = GetAnswerRequest {
        principal: ann(),
        stream_id: "a".to_owned(),
    };
    client.get_answer(request).await.unwrap().into_inner()
}

async fn a_checkpoint_of_an_ended_epoch_is_refused(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    client.checkpoint(checkpoint(1, 4, "first")).await.unwrap();
    claim(&mut client, 1, "x").await;
    let refused = failure(&client.checkpoint(checkpoint(1, 9, "zombie")).await.unwrap_err());
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Conflict, "epoch"));
    // The new writer may stand before the old one's last position.
    client.checkpoint(checkpoint(2, 3, "second")).await.unwrap();
    let known = answer(&mut client).await;
    assert_eq!((known.epoch, known.position), (2, 3));
    assert_eq!(texts(&mut client, &id).await, ["hello", "second"]);
    // Without a claim, what was written is what counts.
    client.checkpoint(checkpoint(5, 6, "fifth")).await.unwrap();
    assert_eq!(
        failure(&client.checkpoint(checkpoint(4, 9, "x")).await.unwrap_err()).reason(),
        Reason::Conflict
    );
}

async fn a_late_checkpoint_changes_nothing(stage: Stage) {
    let mut client = stage.client();
    let id = conversation(&mut client, ann()).await.id;
    begin(&mut client, turn(&id, "a", "hello")).await;
    client.checkpoint(checkpoint(1, 4, "further")).await.unwrap();
    client.checkpoint(checkpoint(1, 3, "before")).await.unwrap();
    assert_eq!(answer(&mut client).await.position, 4);
    finish(&mut client, vec![finished(&id, "a", "the end")]).await;
    client.checkpoint(checkpoint(1, 9, "late")).await.unwrap();
    let known = answer(&mut client).await;
    assert_eq!((known.state.as_str(), known.position), ("finished", 4));
    assert_eq!(texts(&mut client, &id).await, ["hello", "the end"]);
}

async fn a_background_answer_is_kept_with_all_that_it_needs_to_go_on(stage: Stage) {
    let mut client = stage.client();
    let request = ChatRequest {
        prompt: "a long story".to_owned(),
        model: "m".to_owned(),
        ..ChatRequest::default()
    };
    let resume = vec![
        ResumePoint {
            choice: 0,
            token_ids: vec![1, 2, 300_000],
            text: "Once".to_owned(),
            end: None,
        },
        ResumePoint {
            choice: 1,
            end: Some(ChoiceEnd {
                choice: 1,
                ..ChoiceEnd::default()
            }),
            ..ResumePoint::default()
        },
    ];
    let first = CheckpointRequest {
        request: Some(request.clone()),
        ..checkpoint(1, 0, "")
    };
    client.checkpoint(first).await.unwrap();
    let second = CheckpointRequest {
        resume: resume.clone(),
        ..checkpoint(1, 3, "Once")
    };
    client.checkpoint(second).await.unwrap();
    let known = answer(&mut client).await;
    assert_eq!((known.state.as_str(), known.position, known.model.as_str()), ("running", 3, "m"));
    assert_eq!((known.request, known.resume), (Some(request), resume));
    assert_eq!(known.message.unwrap().text, "Once");
    // Its end closes it, though it is in no conversation.
    assert_eq!(finish(&mut client, vec![finished("", "a", "Once upon a time")]).await, 1);
    let known = answer(&mut client).await;
    assert_eq!(
        (known.state.as_str(), known.message.unwrap().text.as_str()),
        ("finished", "Once upon a time")
    );
}

async fn a_checkpoint_of_an_unknown_answer_is_refused(stage: Stage) {
    let mut client = stage.client();
    let refused = client.checkpoint(checkpoint(1, 1, "of a deleted conversation")).await.unwrap_err();
    assert_eq!(failure(&refused).reason(), Reason::NotFound);
    assert_eq!(stage.count("SELECT COUNT(*) FROM answers").await, 0);
}
