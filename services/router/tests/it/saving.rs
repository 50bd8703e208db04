//! Answers that are saved while they run, and what becomes of those that nobody makes any more.

use proto::v1::{ChatRequest, DisconnectPolicy, Failure, Reason, StoredAnswer};

use crate::{
    fake_store::FakeStore,
    fake_worker::{FakeWorker, Line, Seen, text, token},
    mesh::{Mesh, all, ask, joined, mesh},
};

async fn with_store(worker: &FakeWorker, store: &FakeStore) -> Mesh {
    let mesh = mesh(&[worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    mesh
}

fn background(prompt: &str) -> ChatRequest {
    let mut request = ask(prompt);
    request.disconnect = DisconnectPolicy::Background.into();
    request
}

async fn asked(worker: &FakeWorker) -> Line {
    match worker.seen().await {
        Seen::Attach(request, line) if request.adopt => line,
        _ => panic!("the worker was to be asked first"),
    }
}

fn orphan(conversation_id: &str) -> StoredAnswer {
    StoredAnswer {
        stream_id: "ans_lost".to_owned(),
        conversation_id: conversation_id.to_owned(),
        state: "running".to_owned(),
        epoch: 4,
        position: 3,
        model: "m".to_owned(),
        orphan: true,
        created_ms: 1_700_000_000_000,
        ..StoredAnswer::default()
    }
}

#[tokio::test]
async fn an_answer_of_a_conversation_is_saved_as_text_and_a_background_one_with_all_that_it_needs() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = with_store(&worker, &store).await;
    let mut request = ask("turn");
    "conv".clone_into(&mut request.conversation_id);
    let _turn = mesh.streaming(request);
    let turn = worker.started().await;
    let _background = mesh.streaming(background("long"));
    let long = worker.started().await;
    for making in [&turn, &long] {
        making.line.head(1).await;
        making.line.tokens(0, 3).await;
    }
    let id = turn.request.stream_id.clone();
    let held = store
        .until(|held| held.checkpoints.iter().any(|saved| saved.stream_id == id && saved.position == 3))
        .await;
    let saved = held.checkpoints.iter().rfind(|saved| saved.stream_id == id).unwrap();
    assert_eq!(saved.message.as_ref().unwrap().text, text(3));
    assert!(
        saved.request.is_none() && saved.entries.is_empty(),
        "the store can show it, and that is enough"
    );
    let id = long.request.stream_id.clone();
    store
        .until(|held| held.checkpoints.iter().any(|saved| saved.stream_id == id && saved.position == 3))
        .await;
    long.line.tokens(3, 5).await;
    let held = store
        .until(|held| held.checkpoints.iter().any(|saved| saved.stream_id == id && saved.position == 5))
        .await;
    let saved: Vec<_> = held.checkpoints.iter().filter(|saved| saved.stream_id == id).collect();
    assert_eq!(saved[0].request.as_ref().unwrap().messages[0].text, "long");
    assert!(saved[1..].iter().all(|saved| saved.request.is_none()), "once is enough");
    let ids: Vec<u32> = saved
        .iter()
        .flat_map(|saved| &saved.entries)
        .flat_map(|entry| entry.token_ids.clone())
        .collect();
    assert_eq!(ids, [100, 101, 102, 103, 104], "each entry once, with its ids");
    turn.line.finish(3).await;
    long.line.finish(5).await;
    store.until(|held| held.finished.len() == 2).await;
}

#[tokio::test]
async fn plain_answers_are_not_saved() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = with_store(&worker, &store).await;
    let plain = mesh.streaming(ask("plain"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 100).await;
    let _background = mesh.streaming(background("long"));
    let long = worker.started().await;
    store.until(|held| !held.checkpoints.is_empty()).await; // so the plain one has been looked at, too
    making.line.finish(100).await;
    plain.await.unwrap().unwrap();
    long.whole(1).await;
    let held = store.until(|held| held.finished.len() == 2).await;
    assert!(held.checkpoints.iter().all(|saved| saved.stream_id == long.request.stream_id));
}

#[tokio::test]
async fn a_background_answer_that_nobody_makes_goes_on_from_what_was_saved() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    store.change(|held| {
        let lost = StoredAnswer {
            request: Some(ChatRequest {
                stream_id: "ans_lost".to_owned(),
                model: "m".to_owned(),
                n: 1,
                ..background("long")
            }),
            entries: (0..3).map(token).collect(),
            ..orphan("")
        };
        held.answers.insert("ans_lost".to_owned(), lost);
    });
    let mesh = with_store(&worker, &store).await;
    worker.knows_nothing().await;
    let making = worker.started().await;
    assert_eq!((making.request.epoch, making.request.position), (5, 3));
    assert_eq!(making.request.resume[0].token_ids, [100, 101, 102]);
    making.line.head(5).await;
    making.line.tokens(3, 6).await;
    let mut reading = mesh.resume("ans_lost", 2).await.unwrap();
    let first = reading.message().await.unwrap().unwrap();
    assert_eq!(
        (first.position, first.token.as_deref()),
        (Some(2), Some("2 ")),
        "what was saved can be read again"
    );
    making.line.finish(6).await;
    assert_eq!(joined(&all(mesh.resume("ans_lost", 0).await.unwrap()).await.unwrap(), 0), text(6));
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!((held.claims[0].epoch, held.finished["ans_lost"].epoch), (4, 5));
}

#[tokio::test]
async fn a_turn_that_lost_both_copies_ends_as_interrupted_and_whoever_asks_is_told_so() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    store.change(|held| {
        held.answers.insert("ans_lost".to_owned(), orphan("conv"));
    });
    let mesh = with_store(&worker, &store).await;
    worker.knows_nothing().await;
    let held = store.until(|held| !held.finished.is_empty()).await;
    let turn = &held.finished["ans_lost"];
    assert_eq!((turn.state.as_str(), turn.finish_reason.as_str()), ("failed", "interrupted"));
    assert_eq!((turn.epoch, turn.conversation_id.as_str()), (4, "conv"));
    assert!(turn.message.is_none(), "the text that was saved stays");
    assert!(held.claims.is_empty(), "a router that has it after all is not shut out");
    store.change(|held| {
        let answer = held.answers.get_mut("ans_lost").unwrap();
        (answer.state, answer.finish_reason) = ("failed".to_owned(), "interrupted".to_owned());
    });
    let (resumed, ()) = tokio::join!(mesh.resume("ans_lost", 3), worker.knows_nothing());
    assert_eq!(Failure::from_status(&resumed.unwrap_err()).reason(), Reason::Interrupted);
}

#[tokio::test]
async fn an_orphan_that_a_worker_still_makes_is_taken_over_and_not_interrupted() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    store.change(|held| {
        held.answers.insert("ans_lost".to_owned(), orphan("conv"));
    });
    let mesh = with_store(&worker, &store).await;
    let line = asked(&worker).await;
    let head = proto::v1::Head {
        epoch: 4,
        model: "m".to_owned(),
        conversation_id: "conv".to_owned(),
        ..proto::v1::Head::default()
    };
    line.send(proto::v1::GenerateResponse {
        head: Some(Box::new(head)),
        request: Some(Box::new(ChatRequest {
            conversation_id: "conv".to_owned(),
            ..ask("hi")
        })),
        ..proto::v1::GenerateResponse::default()
    })
    .await;
    assert!(matches!(worker.seen().await, Seen::Own(_, 5)));
    line.tokens(0, 2).await;
    line.finish(2).await;
    let stored = store.until(|held| !held.finished.is_empty()).await;
    let turn = &stored.finished["ans_lost"];
    assert_eq!((turn.state.as_str(), turn.epoch), ("finished", 5));
    assert_eq!(turn.message.as_ref().unwrap().text, text(2));
    mesh.until_idle().await;
}
