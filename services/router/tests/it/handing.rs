//! Workers that stop, and answers that move while they are still being made.

use std::time::Duration;

use crate::{
    failing::whose,
    fake_store::FakeStore,
    fake_worker::{FakeWorker, Seen, text},
    mesh::{ask, joined, mesh},
};

/// The target's cache is brought to where the answer stands, and then it gets the answer.
async fn warmed(worker: &FakeWorker) -> Box<proto::v1::GenerateRequest> {
    match worker.seen().await {
        Seen::Warm(request) => request,
        _ => panic!("the cache was to be warmed first"),
    }
}

#[tokio::test]
async fn an_answer_of_a_worker_that_stops_moves_without_a_gap_and_costs_no_budget() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let store = FakeStore::start();
    let mesh = mesh(&[&workers[0], &workers[1]], &["--migrations", "0", "--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, old) = whose([&workers[0], &workers[1]]).await;
    old.line.head(1).await;
    old.line.tokens(0, 5).await;
    mesh.until_answers(|answers| answers[0].entries == 5).await;
    workers[first].tell(|load| load.draining = true);
    let request = warmed(&workers[1 - first]).await;
    assert_eq!(request.resume[0].token_ids, (100..105).collect::<Vec<_>>());
    let making = workers[1 - first].started().await;
    assert_eq!((making.request.epoch, making.request.position), (2, 5));
    assert_eq!(making.request.resume, request.resume);
    assert_eq!(workers[first].cancelled().await, old.line.call, "the old worker is let go at once");
    old.line.entries(5, vec![proto::v1::Entry::text("too late", 1)]).await;
    making.whole(20).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(20));
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!((held.claims.len(), held.finished.values().next().unwrap().epoch), (1, 2));
    mesh.until_idle().await;
}

#[tokio::test]
async fn an_answer_that_is_nearly_done_stays() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let mut request = ask("hi");
    request.max_tokens = Some(1001);
    let answer = mesh.streaming(request);
    let (first, old) = whose([&workers[0], &workers[1]]).await;
    old.line.head(1).await;
    old.line.tokens(0, 1000).await;
    mesh.until_answers(|answers| answers[0].entries == 1000).await;
    workers[first].tell(|load| load.draining = true);
    mesh.until(|status| crate::mesh::ready(status) == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await; // a few sweeps
    old.line.tokens(1000, 1001).await;
    old.line.finish(1001).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(1001));
    assert!(!workers[1 - first].has_seen().await);
}

#[tokio::test]
async fn an_answer_that_nobody_has_room_for_stays_until_somebody_has() {
    let workers = [FakeWorker::start(&["m"], 1), FakeWorker::start(&["m"], 1)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let answers = [mesh.streaming(ask("one")), mesh.streaming(ask("two"))];
    let (one, two) = tokio::join!(workers[0].started(), workers[1].started());
    for making in [&one, &two] {
        making.line.head(1).await;
        making.line.tokens(0, 2).await;
    }
    mesh.until_answers(|answers| answers.iter().all(|answer| answer.entries == 2)).await;
    workers[0].tell(|load| load.draining = true);
    mesh.until(|status| crate::mesh::ready(status) == 1).await;
    one.line.tokens(2, 4).await;
    mesh.until_answers(|answers| answers.iter().any(|answer| answer.entries == 4)).await;
    two.line.finish(2).await;
    warmed(&workers[1]).await;
    let making = workers[1].started().await;
    assert_eq!((making.request.position, making.request.epoch), (4, 2));
    making.whole(6).await;
    let mut texts = Vec::new();
    for answer in answers {
        texts.push(joined(&answer.await.unwrap().unwrap(), 0));
    }
    texts.sort();
    assert_eq!(texts, [text(2), text(6)]);
}

#[tokio::test]
async fn an_answer_that_waits_for_its_first_token_begins_anew_elsewhere() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, old) = whose([&workers[0], &workers[1]]).await;
    workers[first].tell(|load| load.draining = true);
    warmed(&workers[1 - first]).await;
    let making = workers[1 - first].started().await;
    assert_eq!((making.request.position, making.request.resume.len()), (0, 0));
    assert_eq!(workers[first].cancelled().await, old.line.call);
    making.whole(3).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(3));
}
