//! Workers that die, fall silent or refuse.

use proto::v1::{Failure, Reason, entry::Event};

use crate::{
    fake_worker::{FakeWorker, Seen, text},
    mesh::{ask, joined, mesh, ready},
};

/// The worker that got the next answer, and the answer.
pub(crate) async fn whose(workers: [&FakeWorker; 2]) -> (usize, Box<crate::fake_worker::Making>) {
    tokio::select! {
        making = workers[0].started() => (0, making),
        making = workers[1].started() => (1, making),
    }
}

#[tokio::test]
async fn when_a_worker_is_killed_the_next_answer_comes_from_the_other() {
    let (mut one, two) = (FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4));
    let mesh = mesh(&[&one, &two], &[]).await;
    one.kill();
    mesh.until(|status| ready(status) == 1).await;
    for _ in 0..4 {
        let answer = mesh.streaming(ask("hi"));
        two.started().await.whole(3).await;
        assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(3));
    }
}

#[tokio::test]
async fn a_request_that_has_not_begun_starts_anew_elsewhere() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, making) = whose([&workers[0], &workers[1]]).await;
    making.line.head(1).await;
    workers[first].kill();
    let making = workers[1 - first].started().await;
    assert_eq!((making.request.position, making.request.resume.len()), (0, 0));
    making.whole(3).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(3));
}

#[tokio::test]
async fn a_worker_that_refuses_for_want_of_room_is_not_the_last_word() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, making) = whose([&workers[0], &workers[1]]).await;
    making.line.refuse(Failure::new(Reason::QueueFull, "full")).await;
    workers[1 - first].started().await.whole(2).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(2));
}

#[tokio::test]
async fn an_answer_whose_worker_dies_goes_on_at_the_next_token() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, making) = whose([&workers[0], &workers[1]]).await;
    let seed = making.request.request.as_ref().unwrap().sampling.as_ref().unwrap().seed;
    making.line.head(1).await;
    making.line.tokens(0, 7).await;
    mesh.until_answers(|answers| answers[0].entries == 7).await;
    workers[first].kill();
    let making = workers[1 - first].started().await;
    assert_eq!((making.request.epoch, making.request.position), (2, 7));
    assert_eq!(making.request.resume[0].token_ids, (100..107).collect::<Vec<_>>());
    assert_eq!(making.request.resume[0].text, text(7));
    assert_eq!(making.request.request.as_ref().unwrap().sampling.as_ref().unwrap().seed, seed);
    making.whole(20).await;
    let responses = answer.await.unwrap().unwrap();
    assert_eq!(joined(&responses, 0), text(20));
    let Some(Event::Finished(finished)) = &responses[20].entries[0].event else {
        panic!()
    };
    assert_eq!(finished.usage.unwrap().completion_tokens, 20);
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_worker_that_falls_silent_is_left_and_what_it_says_later_is_not_heard() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &["--worker-silence", "400ms"]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, zombie) = whose([&workers[0], &workers[1]]).await;
    zombie.line.head(1).await;
    zombie.line.tokens(0, 3).await;
    mesh.until_answers(|answers| answers[0].entries == 3).await;
    workers[first].freeze();
    let making = workers[1 - first].started().await;
    zombie.line.entries(3, vec![proto::v1::Entry::text("zombie", 1)]).await;
    making.whole(6).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(6));
    workers[first].thaw();
    match workers[first].seen().await {
        Seen::Abort(stale) => assert_eq!((stale.stream_id, stale.epoch), (making.request.stream_id, 1)),
        _ => panic!("the one that came back was not told to stop"),
    }
}

#[tokio::test]
async fn an_answer_that_stalls_moves_and_the_stalled_worker_is_told_to_stop() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &["--token-limit", "300ms"]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, stalled) = whose([&workers[0], &workers[1]]).await;
    stalled.line.head(1).await;
    stalled.line.tokens(0, 2).await;
    let making = workers[1 - first].started().await;
    assert_eq!(workers[first].cancelled().await, stalled.line.call);
    making.whole(4).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(4));
}

#[tokio::test]
async fn a_model_that_cannot_go_on_ends_with_worker_lost() {
    let mut worker = FakeWorker::start(&["m"], 4);
    worker.tell(|load| load.models[0].continuation = false);
    let mesh = mesh(&[&worker], &[]).await;
    mesh.until(|status| status.models.iter().all(|model| !model.continuation)).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 2).await;
    mesh.until_answers(|answers| answers[0].entries == 2).await;
    worker.kill();
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Failed(failure)) = &responses[2].entries[0].event else {
        panic!()
    };
    assert_eq!(failure.reason(), Reason::WorkerLost);
    assert_eq!(failure.usage.unwrap().completion_tokens, 2);
}

#[tokio::test]
async fn an_answer_that_finds_no_other_worker_in_time_is_lost() {
    let mut worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--failover-limit", "300ms"]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 2).await;
    mesh.until_answers(|answers| answers[0].entries == 2).await;
    worker.kill();
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Failed(failure)) = &responses[2].entries[0].event else {
        panic!()
    };
    assert_eq!(failure.reason(), Reason::WorkerLost);
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_request_that_kills_its_workers_moves_twice_and_no_more() {
    let mut workers: Vec<_> = (0..4).map(|_| FakeWorker::start(&["m"], 4)).collect();
    let mesh = mesh(&workers.iter().collect::<Vec<_>>(), &[]).await;
    let answer = mesh.streaming(ask("poison"));
    for round in 0..3_u32 {
        let (which, making) = {
            let started = workers.iter().map(|worker| Box::pin(worker.started()));
            let (making, which, _) = futures_util::future::select_all(started).await;
            (which, making)
        };
        making.line.head(round + 1).await;
        making.line.tokens(round, round + 1).await;
        mesh.until_answers(|answers| answers[0].entries == round + 1).await;
        workers.remove(which).kill();
    }
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Failed(failure)) = &responses[3].entries[0].event else {
        panic!()
    };
    assert_eq!(failure.reason(), Reason::WorkerLost);
    assert!(!workers[0].has_seen().await, "one worker is left in peace");
}

#[tokio::test]
async fn a_draining_worker_gets_nothing_new() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    workers[0].tell(|load| load.draining = true);
    mesh.until(|status| ready(status) == 1).await;
    for _ in 0..3 {
        let answer = mesh.streaming(ask("hi"));
        workers[1].started().await.whole(1).await;
        answer.await.unwrap().unwrap();
    }
}
