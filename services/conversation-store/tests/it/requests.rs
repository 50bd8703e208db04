//! The request log, as it is read: in pages, in a scope, and by the names of answers.

use proto::v1::{FinishedTurn, ListRequestsRequest, LogScope, LoggedRequest, Principal};
use tokio_stream::StreamExt as _;

use crate::stage::{Client, Stage, ann, failure, finish, finished, who};

crate::contract![
    what_was_logged_is_read_as_it_was,
    pages_follow_each_other_and_leave_nothing_out,
    a_scope_shows_what_is_within_it,
    answers_are_looked_up_by_name_within_their_principal,
    a_refused_request_is_only_a_line,
    a_list_is_bounded_by_time,
    what_cannot_be_asked_is_named,
];

async fn list(client: &mut Client, request: ListRequestsRequest) -> Vec<LoggedRequest> {
    let listed = client.list_requests(request).await.unwrap().into_inner();
    listed.map(Result::unwrap).collect().await
}

fn asked(principal: Option<Principal>, scope: LogScope) -> ListRequestsRequest {
    ListRequestsRequest {
        principal,
        scope: scope.into(),
        ..ListRequestsRequest::default()
    }
}

fn names(logged: &[LoggedRequest]) -> Vec<String> {
    logged
        .iter()
        .map(|logged| logged.turn.as_ref().unwrap().stream_id.clone())
        .collect()
}

fn of(principal: Option<Principal>, stream_id: &str) -> FinishedTurn {
    FinishedTurn {
        principal,
        ..finished("", stream_id, "")
    }
}

async fn what_was_logged_is_read_as_it_was(stage: Stage) {
    let mut client = stage.client();
    let turn = finished("", "a", "a secret");
    finish(&mut client, vec![turn.clone()]).await;
    let logged = list(&mut client, asked(ann(), LogScope::Unspecified)).await.remove(0);
    let bare = FinishedTurn { message: None, ..turn };
    assert_eq!(logged.turn, Some(bare));
    assert!(logged.logged_ms > 1_700_000_000_000);
}

async fn pages_follow_each_other_and_leave_nothing_out(stage: Stage) {
    let mut client = stage.client();
    let turns = (0..150).map(|n| of(ann(), &format!("s{n:03}"))).collect();
    assert_eq!(finish(&mut client, turns).await, 150);
    finish(&mut client, vec![of(ann(), "latest")]).await;
    let mut found = Vec::new();
    let mut request = ListRequestsRequest {
        page_size: 70,
        ..asked(ann(), LogScope::Tenant)
    };
    loop {
        let page = list(&mut client, request.clone()).await;
        let Some(last) = page.last() else { break };
        request.after.clone_from(&last.cursor);
        found.extend(names(&page));
    }
    assert_eq!((found.len(), found[0].as_str()), (151, "latest"));
    found.sort();
    found.dedup();
    assert_eq!(found.len(), 151);
}

async fn a_scope_shows_what_is_within_it(stage: Stage) {
    let mut client = stage.client();
    let turns = vec![of(ann(), "ann"), of(who("acme", "bob"), "bob"), of(who("other", "ann"), "other")];
    finish(&mut client, turns).await;
    let mut seen = async |scope| {
        let mut names = names(&list(&mut client, asked(ann(), scope)).await);
        names.sort();
        names.join(" ")
    };
    assert_eq!(seen(LogScope::Unspecified).await, "ann");
    assert_eq!(seen(LogScope::Tenant).await, "ann bob");
    assert_eq!(seen(LogScope::All).await, "ann bob other");
}

async fn answers_are_looked_up_by_name_within_their_principal(stage: Stage) {
    let mut client = stage.client();
    finish(&mut client, vec![of(ann(), "a"), of(ann(), "b"), of(who("acme", "bob"), "c")]).await;
    let request = ListRequestsRequest {
        stream_ids: ["a", "c", "unknown"].map(str::to_owned).to_vec(),
        ..asked(ann(), LogScope::Unspecified)
    };
    assert_eq!(names(&list(&mut client, request).await), ["a"]);
}

async fn a_refused_request_is_only_a_line(stage: Stage) {
    let mut client = stage.client();
    let refused = FinishedTurn {
        state: "refused".to_owned(),
        finish_reason: "rate_limit_exceeded".to_owned(),
        status: 429,
        worker: String::new(),
        message: None,
        ..of(ann(), "r")
    };
    assert_eq!(finish(&mut client, vec![refused.clone()]).await, 1);
    let logged = list(&mut client, asked(ann(), LogScope::Unspecified)).await.remove(0);
    assert_eq!(logged.turn, Some(refused.clone()));
    // It never was a turn of a conversation.
    let of_a_conversation = FinishedTurn {
        conversation_id: "c".to_owned(),
        stream_id: "s".to_owned(),
        ..refused
    };
    assert_eq!(finish(&mut client, vec![of_a_conversation]).await, 0);
}

async fn a_list_is_bounded_by_time(stage: Stage) {
    let mut client = stage.client();
    finish(&mut client, vec![of(ann(), "a")]).await;
    let logged_ms = list(&mut client, asked(ann(), LogScope::All)).await[0].logged_ms;
    let mut within = async |from_ms, until_ms| {
        let request = ListRequestsRequest {
            from_ms,
            until_ms,
            ..asked(ann(), LogScope::All)
        };
        list(&mut client, request).await.len()
    };
    assert_eq!(within(logged_ms, logged_ms + 1).await, 1);
    assert_eq!(within(logged_ms + 1, 0).await, 0);
    assert_eq!(within(0, logged_ms).await, 0);
}

async fn what_cannot_be_asked_is_named(stage: Stage) {
    let mut client = stage.client();
    let base = asked(ann(), LogScope::Tenant);
    let bad = [
        (
            ListRequestsRequest {
                after: "x".to_owned(),
                ..base.clone()
            },
            "after",
        ),
        (ListRequestsRequest { scope: 9, ..base.clone() }, "scope"),
        (
            ListRequestsRequest {
                page_size: 1001,
                ..base.clone()
            },
            "page_size",
        ),
        (
            ListRequestsRequest {
                stream_ids: vec!["a".to_owned()],
                ..base.clone()
            },
            "stream_ids",
        ),
        (
            ListRequestsRequest {
                scope: LogScope::Unspecified.into(),
                stream_ids: vec!["a".to_owned(); 513],
                ..base
            },
            "stream_ids",
        ),
    ];
    for (request, param) in bad {
        let error = client.list_requests(request).await.unwrap_err();
        assert_eq!(failure(&error).param, param);
    }
}
