//! History before an answer, its turn after, and epochs in the store.

use prost::Message as _;
use proto::v1::{DisconnectPolicy, Failure, GenerateResponse, Reason, Role, entry::Event};

use crate::{
    fake_store::FakeStore,
    fake_worker::{FakeWorker, text},
    mesh::{ask, joined, mesh},
};

fn in_conversation(prompt: &str) -> proto::v1::ChatRequest {
    let mut request = ask(prompt);
    "conv".clone_into(&mut request.conversation_id);
    request
}

#[tokio::test]
async fn the_history_goes_before_the_messages_and_the_turn_is_stored() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let mut request = in_conversation("now");
    request.request_id = "req-1".to_owned();
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    let asked: Vec<String> = making
        .request
        .request
        .as_ref()
        .unwrap()
        .messages
        .iter()
        .map(|message| message.text.clone())
        .collect();
    assert_eq!(asked, ["before", "now"]);
    making.whole(5).await;
    answer.await.unwrap().unwrap();
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!(held.begun[0].messages.len(), 1, "only what is new");
    let turn = held.finished.values().next().unwrap();
    assert_eq!(turn.message.as_ref().unwrap().text, text(5));
    assert_eq!((turn.state.as_str(), turn.finish_reason.as_str()), ("finished", "stop"));
    assert_eq!(
        (turn.conversation_id.as_str(), turn.request_id.as_str(), turn.worker.as_str()),
        ("conv", "req-1", worker.address.as_str())
    );
    assert_eq!(
        (turn.usage.unwrap().completion_tokens, turn.model.as_str(), turn.epoch),
        (5, "m", 1)
    );
}

#[tokio::test]
async fn an_answer_that_is_to_be_kept_is_stored_with_all_its_entries_and_saved_while_it_runs() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let mut request = ask("hi");
    request.keep = true;
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    let held = store.until(|held| !held.checkpoints.is_empty()).await;
    let saved = &held.checkpoints[0];
    assert!(
        saved.request.is_none() && saved.entries.is_empty(),
        "only as text: nobody goes on with it"
    );
    making.whole(5).await;
    let read = answer.await.unwrap().unwrap();
    let held = store.until(|held| !held.finished.is_empty()).await;
    let turn = held.finished.values().next().unwrap();
    assert_eq!(turn.message.as_ref().unwrap().text, text(5));
    let kept = GenerateResponse::decode(turn.journal.as_slice()).unwrap().entries;
    assert_eq!(kept.len(), read.len());
    assert!(kept.iter().all(|entry| entry.token_ids.is_empty()));
    assert!(matches!(kept.last().unwrap().event, Some(Event::Finished(_))));
    let tokens: String = kept.iter().map(|entry| entry.token.as_str()).collect();
    assert_eq!(tokens, text(5));
}

#[tokio::test]
async fn instructions_stand_before_the_history_and_are_not_stored() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    for (request, expected) in [
        (in_conversation("now"), &["Be brief.", "before", "now"][..]),
        (ask("now"), &["Be brief.", "now"]),
    ] {
        let request = proto::v1::ChatRequest {
            instructions: "Be brief.".to_owned(),
            ..request
        };
        let answer = mesh.streaming(request);
        let making = worker.started().await;
        let messages = &making.request.request.as_ref().unwrap().messages;
        assert_eq!(messages.iter().map(|message| message.text.as_str()).collect::<Vec<_>>(), expected);
        assert_eq!(messages[0].role(), Role::System);
        making.whole(1).await;
        answer.await.unwrap().unwrap();
    }
    let held = store.until(|held| held.finished.len() == 2).await;
    assert_eq!((held.begun.len(), held.begun[0].messages.len()), (1, 1));
}

#[tokio::test]
async fn turns_are_stored_once_though_the_store_was_away_and_replies_were_lost() {
    let (worker, mut store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let opened = mesh.streaming(in_conversation("now"));
    let making = worker.started().await;
    store.kill();
    mesh.until(|status| !status.store_up).await;
    making.whole(3).await;
    opened.await.unwrap().unwrap();
    for _ in 0..4 {
        let answer = mesh.streaming(ask("no conversation"));
        worker.started().await.whole(2).await;
        assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(2));
    }
    store.lose_replies(1);
    store.restart();
    let held = store
        .until(|held| held.finished.len() == 5 && held.sent.values().all(|&times| times == 2))
        .await;
    let said: Vec<_> = held.finished.values().filter_map(|turn| turn.message.as_ref()).collect();
    assert_eq!(said.len(), 1, "without a conversation no text leaves the router");
    assert_eq!(said[0].text, text(3));
    mesh.until(|status| status.store_up).await;
}

#[tokio::test]
async fn a_turn_that_the_store_refuses_holds_up_no_other() {
    let (worker, store) = (FakeWorker::start(&["m"], 8), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    let mut answers = Vec::new();
    let mut made = Vec::new();
    for request_id in ["a", "poison", "b"] {
        let mut request = ask("hi");
        request.request_id = request_id.to_owned();
        answers.push(mesh.streaming(request));
        made.push(worker.started().await);
    }
    for making in made {
        making.whole(1).await;
    }
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
    store.until(|held| held.finished.len() == 2).await;
}

#[tokio::test]
async fn without_the_store_a_conversation_is_refused_unless_its_history_is_optional() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--store", "127.0.0.1:9"]).await;
    let failure = Failure::from_status(&mesh.stream(in_conversation("now")).await.unwrap_err());
    assert_eq!(failure.reason(), Reason::StoreUnavailable);
    let mut request = in_conversation("now");
    request.history_optional = true;
    let answer = mesh.streaming(request);
    worker.started().await.whole(2).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(2));
    mesh.until_idle().await;
}

#[tokio::test]
async fn what_the_store_refuses_fails_the_call_with_its_reason() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    let mut request = ask("hi");
    request.conversation_id = "unknown".to_owned();
    let failure = Failure::from_status(&mesh.stream(request).await.unwrap_err());
    assert_eq!(failure.reason(), Reason::NotFound);
}

#[tokio::test]
async fn a_cancelled_turn_is_stored_as_far_as_it_came() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    let answer = mesh.streaming(in_conversation("now"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 2).await;
    mesh.until_answers(|answers| answers[0].entries == 2).await;
    answer.abort();
    let held = store.until(|held| !held.finished.is_empty()).await;
    let turn = held.finished.values().next().unwrap();
    assert_eq!((turn.state.as_str(), turn.finish_reason.as_str()), ("cancelled", "cancelled"));
    assert_eq!(turn.message.as_ref().unwrap().text, text(2));
}

#[tokio::test]
async fn one_who_leaves_the_queue_is_logged_as_having_taken_nothing_and_one_who_is_told_is_not() {
    let (worker, store) = (FakeWorker::start(&["m"], 1), FakeStore::start());
    let flags = ["--store", &store.address, "--queue-factor", "2", "--detach-grace", "50ms"];
    let mesh = mesh(&[&worker], &flags).await;
    let first = mesh.streaming(ask("1"));
    let making = worker.started().await;
    let stopped = mesh.streaming(ask("2"));
    let mut detached = ask("3");
    detached.disconnect = DisconnectPolicy::Detach.into();
    let detached = mesh.streaming(detached);
    mesh.until(|status| status.queue_depth == 2).await;
    let refused = Failure::from_status(&mesh.stream(ask("4")).await.unwrap_err());
    assert_eq!(refused.reason(), Reason::QueueFull);
    stopped.abort();
    detached.abort();
    let held = store.until(|held| held.finished.len() == 2).await;
    for turn in held.finished.values() {
        assert_eq!((turn.state.as_str(), turn.worker.as_str()), ("cancelled", ""));
        assert_eq!(turn.usage, Some(proto::v1::Usage::default()));
    }
    making.whole(1).await;
    first.await.unwrap().unwrap();
    let held = store.until(|held| held.finished.len() > 2).await;
    assert_eq!(held.finished.len(), 3, "who was refused has heard of it");
}

#[tokio::test]
async fn a_background_answer_whose_worker_is_gone_before_it_began_is_left_to_be_found() {
    let (mut worker, store) = (FakeWorker::start(&["m"], 1), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address, "--failover-limit", "50ms"]).await;
    mesh.until(|status| status.store_up).await;
    let first = mesh.streaming(ask("1"));
    let making = worker.started().await;
    making.line.head(1).await;
    let mut background = ask("2");
    background.disconnect = DisconnectPolicy::Background.into();
    let background = mesh.streaming(background);
    mesh.until(|status| status.queue_depth == 1).await;
    background.abort();
    store.until(|held| !held.checkpoints.is_empty()).await;
    worker.kill();
    mesh.until_idle().await;
    drop(first);
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!(
        held.finished.len(),
        1,
        "the first one's alone: the store counts the other as running"
    );
}

#[tokio::test]
async fn an_answer_moves_in_an_epoch_that_the_store_has_given() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let store = FakeStore::start();
    let mesh = mesh(&[&workers[0], &workers[1]], &["--store", &store.address]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, making) = crate::failing::whose([&workers[0], &workers[1]]).await;
    making.line.head(1).await;
    making.line.tokens(0, 3).await;
    mesh.until_answers(|answers| answers[0].entries == 3).await;
    workers[first].kill();
    let making = workers[1 - first].started().await;
    assert_eq!((making.request.epoch, making.request.position), (2, 3));
    making.whole(6).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(6));
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!((held.claims.len(), held.claims[0].epoch), (1, 1));
    assert_eq!(held.finished.values().next().unwrap().epoch, 2);
}

#[tokio::test]
async fn who_reads_an_answer_that_another_router_has_claimed_is_sent_there() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let store = FakeStore::start();
    store.change(|held| held.claimed_by_others = 2);
    let mesh = mesh(&[&workers[0], &workers[1]], &["--store", &store.address]).await;
    let answer = mesh.streaming(ask("hi"));
    let (first, making) = crate::failing::whose([&workers[0], &workers[1]]).await;
    making.line.head(1).await;
    making.line.tokens(0, 3).await;
    mesh.until_answers(|answers| answers[0].entries == 3).await;
    workers[first].kill();
    let responses = answer.await.unwrap().unwrap();
    assert!(matches!(&responses[3].entries[0].event, Some(Event::Failed(failure)) if failure.reason() == Reason::Moved));
    assert!(!workers[1 - first].has_seen().await);
}

#[tokio::test]
async fn draining_flushes_the_outbox_last() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    let mut request = in_conversation("now");
    request.disconnect = DisconnectPolicy::Background.into();
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    mesh.drain.begin();
    making.whole(2).await;
    answer.await.unwrap().unwrap();
    drop(mesh.client);
    mesh.stopped.await.unwrap();
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!(held.finished.len(), 1);
}
