//! A router takes over what another one carried.

use proto::v1::{AttachRequest, ChatRequest, DisconnectPolicy, Failure, GenerateResponse, Head, Principal, Reason, entry::Event};

use crate::{
    fake_worker::{FakeWorker, Line, Seen, text, token},
    mesh::{all, ask, joined, mesh, tenant, text_of},
};

async fn attached(worker: &FakeWorker) -> (AttachRequest, Line) {
    match worker.seen().await {
        Seen::Attach(request, line) => (request, line),
        _ => panic!("an attach was expected"),
    }
}

/// Tells who adopts what was asked.
async fn tell(line: &Line, principal: Option<Principal>) {
    tell_of(line, ChatRequest { principal, ..ask("hi") }).await;
}

async fn tell_of(line: &Line, request: ChatRequest) {
    let request = ChatRequest {
        model: "m".to_owned(),
        n: 1,
        ..request
    };
    let head = Head {
        epoch: 3,
        model: "m".to_owned(),
        created: 1_700_000_000,
        ..Head::default()
    };
    let told = GenerateResponse {
        head: Some(Box::new(head)),
        request: Some(Box::new(request)),
        ..GenerateResponse::default()
    };
    line.send(told).await;
}

#[tokio::test]
async fn an_unknown_answer_is_taken_over_from_the_worker_that_makes_it() {
    let workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.attach(1, "ans_other", 4).await;
    workers[0].knows_nothing().await;
    let (request, line) = attached(&workers[1]).await;
    assert_eq!(
        (request.stream_id.as_str(), request.position, request.adopt),
        ("ans_other", 0, true)
    );
    tell(&line, None).await;
    assert!(
        matches!(workers[1].seen().await, Seen::Own(call, 4) if call == line.call),
        "the next epoch is this router's"
    );
    line.tokens(0, 6).await;
    line.tokens(6, 9).await;
    line.finish(9).await;
    let head = exchange.next().await.head.unwrap();
    assert_eq!((head.epoch, head.created), (4, 1_700_000_000));
    assert_eq!(text_of(&exchange.whole(1, 4).await), "4 5 6 7 8 ");
    assert_eq!(joined(&all(mesh.resume("ans_other", 0).await.unwrap()).await.unwrap(), 0), text(9));
    mesh.until_idle().await;
}

#[tokio::test]
async fn what_was_taken_over_can_move_on() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    let mesh = mesh(&[&workers[0], &workers[1]], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.attach(1, "ans_other", 0).await;
    workers[1].knows_nothing().await;
    let (_, line) = attached(&workers[0]).await;
    tell(&line, None).await;
    line.tokens(0, 3).await;
    mesh.until_answers(|answers| answers.len() == 1 && answers[0].entries == 3 && answers[0].epoch == 4)
        .await;
    workers[0].kill();
    let making = loop {
        match workers[1].seen().await {
            Seen::Start(making) => break making,
            Seen::Detach => {} // the other worker's yes came before this one's no: the question was withdrawn
            _ => panic!("a start was expected"),
        }
    };
    assert_eq!((making.request.epoch, making.request.position), (5, 3));
    assert_eq!(making.request.resume[0].token_ids, [100, 101, 102]);
    making.line.tokens(3, 5).await;
    making.line.finish(5).await;
    exchange.next().await.head.unwrap();
    assert_eq!(text_of(&exchange.whole(1, 0).await), text(5));
}

#[tokio::test]
async fn an_answer_that_no_worker_has_is_not_found() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let (resumed, ()) = tokio::join!(mesh.resume("ans_nowhere", 0), worker.knows_nothing());
    assert_eq!(Failure::from_status(&resumed.unwrap_err()).reason(), Reason::NotFound);
}

#[tokio::test]
async fn somebody_elses_answer_is_not_found_and_goes_on() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let serve = async {
        let (_, line) = attached(&worker).await;
        tell(&line, Some(tenant("theirs"))).await;
        line.entries(0, vec![token(0)]).await;
    };
    let (resumed, ()) = tokio::join!(mesh.resume("ans_theirs", 0), serve);
    assert_eq!(Failure::from_status(&resumed.unwrap_err()).reason(), Reason::NotFound);
    assert!(matches!(worker.seen().await, Seen::Detach), "it is let go of, not ended");
    assert!(mesh.answers().await.is_empty());
}

fn keyed(fingerprint: &[u8]) -> ChatRequest {
    ChatRequest {
        stream_id: "ans_keyed".to_owned(),
        fingerprint: fingerprint.to_vec(),
        ..ask("hi")
    }
}

#[tokio::test]
async fn a_repeated_start_reads_what_a_lost_router_has_started() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, keyed(b"a")).await;
    let (request, line) = attached(&worker).await;
    assert_eq!((request.stream_id.as_str(), request.adopt), ("ans_keyed", true));
    tell_of(&line, keyed(b"a")).await;
    assert!(matches!(worker.seen().await, Seen::Own(..)));
    line.tokens(0, 3).await;
    line.finish(3).await;
    let head = exchange.next().await.head.unwrap();
    assert_eq!(head.created, 1_700_000_000, "it is the first one's");
    assert_eq!(text_of(&exchange.whole(1, 0).await), text(3));
    assert!(!worker.has_seen().await, "nothing was started");

    exchange.start(2, keyed(b"b")).await;
    let refused = exchange.next().await.refused.unwrap();
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Conflict, "fingerprint"));
}

#[tokio::test]
async fn a_first_start_under_a_chosen_name_asks_the_workers_and_then_begins() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, keyed(b"a")).await;
    exchange.start(2, keyed(b"a")).await;
    worker.knows_nothing().await;
    worker.knows_nothing().await;
    let making = worker.started().await;
    assert!(making.request.created > 0);
    making.whole(2).await;
    let mut texts = [String::new(), String::new()];
    let mut ends = 0;
    while ends < 2 {
        let response = exchange.next().await;
        texts[response.call as usize - 1] += &text_of(&response.entries);
        ends += usize::from(response.entries.last().is_some_and(proto::v1::Entry::is_terminal));
    }
    assert_eq!(texts, [text(2), text(2)]);
    assert!(!worker.has_seen().await, "one generation for both");
}

#[tokio::test]
async fn what_was_given_up_in_a_queue_elsewhere_is_begun_and_what_was_cancelled_later_is_not() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let cancelled = |prompt_tokens| proto::v1::StoredAnswer {
        state: "cancelled".to_owned(),
        usage: Some(proto::v1::Usage {
            prompt_tokens,
            ..proto::v1::Usage::default()
        }),
        ..proto::v1::StoredAnswer::default()
    };
    let mut exchange = mesh.exchange().await;
    store.change(|held| drop(held.answers.insert("ans_keyed".to_owned(), cancelled(3))));
    exchange.start(1, keyed(b"a")).await;
    worker.knows_nothing().await;
    assert_eq!(exchange.next().await.refused.unwrap().reason(), Reason::Expired);
    store.change(|held| drop(held.answers.insert("ans_keyed".to_owned(), cancelled(0))));
    exchange.start(2, keyed(b"a")).await;
    worker.knows_nothing().await;
    worker.started().await.whole(2).await;
    exchange.next().await.head.unwrap();
    assert_eq!(text_of(&exchange.whole(2, 0).await), text(2));
}

#[tokio::test]
async fn of_two_routers_that_are_brought_one_key_at_once_one_begins_and_the_other_reads() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    let flags = ["--store", &store.address];
    let meshes = [mesh(&[&worker], &flags).await, mesh(&[&worker], &flags).await];
    let exchanges = [meshes[0].exchange().await, meshes[1].exchange().await];
    for (mesh, exchange) in meshes.iter().zip(&exchanges) {
        mesh.until(|status| status.store_up).await;
        exchange.start(1, keyed(b"a")).await;
    }
    let asked = [attached(&worker).await, attached(&worker).await];
    for (_, line) in &asked {
        line.refuse(Failure::new(Reason::NotFound, "no such answer")).await;
    }
    let making = worker.started().await;
    let [mut first, mut second] = exchanges;
    let (told, first_lost) = tokio::select! {
        told = first.next() => (told, true),
        told = second.next() => (told, false),
    };
    assert_eq!(told.refused.unwrap().reason(), Reason::Unavailable, "to be asked again");
    let (mut loser, mut winner) = if first_lost { (first, second) } else { (second, first) };
    making.line.head(1).await;
    making.line.tokens(0, 2).await;
    assert!(winner.next().await.head.is_some());
    assert!(!worker.has_seen().await, "it is begun once");

    loser.start(2, keyed(b"a")).await;
    let (_, line) = attached(&worker).await;
    tell_of(&line, keyed(b"a")).await;
    assert!(matches!(worker.seen().await, Seen::Own(..)));
    line.tokens(0, 3).await;
    line.finish(3).await;
    loser.next().await.head.unwrap();
    assert_eq!(text_of(&loser.whole(2, 0).await), text(3));
    making.line.tokens(2, 3).await;
    making.line.finish(3).await;
    assert_eq!(text_of(&winner.whole(1, 0).await), text(3));
}

#[tokio::test]
async fn a_start_whose_reader_goes_while_the_workers_are_asked_is_not_left_running() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--gateway-grace", "50ms"]).await;
    let exchange = mesh.exchange().await;
    exchange.start(1, keyed(b"a")).await;
    let (_, line) = attached(&worker).await;
    exchange.detach(1, false).await;
    line.refuse(Failure::new(Reason::NotFound, "no such answer")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    worker.cancelled().await;
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_start_that_is_cancelled_and_let_go_while_the_workers_are_asked_is_stopped_wherever_it_is_found() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--gateway-grace", "1h"]).await;
    for (call, found) in [(1, true), (2, false)] {
        let mut exchange = mesh.exchange().await;
        let request = || ChatRequest {
            stream_id: format!("ans_{call}"),
            disconnect: DisconnectPolicy::Background.into(),
            ..keyed(b"a")
        };
        exchange.start(call, request()).await;
        let (_, line) = attached(&worker).await;
        // As a gateway does when the key is revoked with which it was asked for.
        exchange.cancel(call).await;
        exchange.detach(call, false).await;
        exchange.start(9, ask("")).await;
        assert_eq!(exchange.next().await.call, 9, "a refusal: all before it was done");
        if found {
            tell_of(&line, request()).await;
            assert!(matches!(worker.seen().await, Seen::Own(..)));
            assert_eq!(worker.cancelled().await, line.call);
        } else {
            line.refuse(Failure::new(Reason::NotFound, "no such answer")).await;
        }
        mesh.until_answers(|answers| {
            let ended = answers.iter().filter(|answer| answer.state == "cancelled");
            ended.count() == call as usize
        })
        .await;
    }
    mesh.until_idle().await;
}

/// An answer that another router has taken over while this one carried it: `exchange` reads it, three tokens so far.
async fn disowned(mesh: &crate::mesh::Mesh, worker: &FakeWorker, exchange: &crate::mesh::Exchange) -> Box<crate::fake_worker::Making> {
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 3).await;
    let disowned = GenerateResponse {
        disowned: true,
        ..GenerateResponse::default()
    };
    making.line.send(disowned).await;
    making.line.tokens(3, 4).await;
    mesh.until_answers(|answers| answers[0].entries == 4).await;
    making
}

#[tokio::test]
async fn a_router_that_was_cut_off_neither_cancels_nor_stores_what_another_carries_now() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address, "--gateway-grace", "50ms"]).await;
    mesh.until(|status| status.store_up).await;
    let exchange = mesh.exchange().await;
    disowned(&mesh, &worker, &exchange).await;
    drop(exchange);
    assert!(matches!(worker.seen().await, Seen::Detach), "it is let go of, not ended");
    mesh.until_answers(<[_]>::is_empty).await;
    let other = mesh.streaming(ask("other"));
    worker.started().await.whole(1).await;
    other.await.unwrap().unwrap();
    let held = store.until(|held| !held.finished.is_empty()).await;
    assert_eq!(held.finished.len(), 1, "the other one's turn alone");
}

#[tokio::test]
async fn who_reads_what_another_router_carries_is_sent_there_when_its_worker_dies() {
    let mut workers = [FakeWorker::start(&["m"], 4), FakeWorker::start(&["m"], 4)];
    workers[1].tell(|load| load.draining = true);
    let mesh = crate::mesh::router_at(&format!("{},{}", workers[0].address, workers[1].address), &[]).await;
    mesh.until(|status| crate::mesh::ready(status) == 1).await;
    let mut exchange = mesh.exchange().await;
    disowned(&mesh, &workers[0], &exchange).await;
    workers[1].tell(|load| load.draining = false);
    mesh.until(|status| crate::mesh::ready(status) == 2).await;
    workers[0].kill();
    assert!(exchange.next().await.head.is_some());
    let entries = exchange.whole(1, 0).await;
    assert!(matches!(&entries[4].event, Some(Event::Failed(failure)) if failure.reason() == Reason::Moved));
    assert!(!workers[1].has_seen().await, "its owner moves it");
    mesh.until_answers(<[_]>::is_empty).await;
}

#[tokio::test]
async fn an_answer_that_its_router_has_just_claimed_is_not_adopted() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    store.change(|held| held.claimed_by_others = 4);
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let mut exchange = mesh.exchange().await;
    exchange.attach(1, "ans_other", 0).await;
    let (_, line) = attached(&worker).await;
    tell(&line, None).await; // in epoch 3
    let refused = exchange.next().await.refused.unwrap();
    assert_eq!(refused.reason(), Reason::Unavailable, "to be looked for again");
    assert!(matches!(worker.seen().await, Seen::Detach), "it is neither owned nor ended");
    assert!(mesh.answers().await.is_empty());
}

/// The worker says of an answer, of which it has made three tokens in epoch 1, that a later epoch has taken its place.
async fn superseded(worker: &FakeWorker, exchange: &crate::mesh::Exchange) {
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 3).await;
    let moved = proto::v1::Entry::failed(Failure::new(Reason::Moved, "a later epoch"));
    making.line.entries(3, vec![moved]).await;
}

#[tokio::test]
async fn an_answer_that_a_worker_has_in_a_later_epoch_of_another_router_is_left_to_that() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    store.change(|held| held.claimed_by_others = 2);
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let mut exchange = mesh.exchange().await;
    superseded(&worker, &exchange).await;
    assert!(exchange.next().await.head.is_some());
    let entries = exchange.whole(1, 0).await;
    assert!(matches!(&entries[3].event, Some(Event::Failed(failure)) if failure.reason() == Reason::Moved));
    mesh.until_answers(<[_]>::is_empty).await;
    assert!(!worker.has_seen().await, "its owner goes on with it");
}

#[tokio::test]
async fn an_answer_that_a_worker_gave_away_wrongly_goes_on_where_the_store_says_so() {
    let (worker, store) = (FakeWorker::start(&["m"], 4), crate::fake_store::FakeStore::start());
    let mesh = mesh(&[&worker], &["--store", &store.address]).await;
    mesh.until(|status| status.store_up).await;
    let mut exchange = mesh.exchange().await;
    superseded(&worker, &exchange).await;
    let making = worker.started().await;
    assert_eq!((making.request.epoch, making.request.position), (2, 3));
    making.line.tokens(3, 5).await;
    making.line.finish(5).await;
    assert!(exchange.next().await.head.is_some());
    assert_eq!(text_of(&exchange.whole(1, 0).await), text(5));
}

#[tokio::test]
async fn an_explicit_cancel_ends_the_answer_whosever_it_is() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let exchange = mesh.exchange().await;
    let making = disowned(&mesh, &worker, &exchange).await;
    exchange.cancel(1).await;
    loop {
        match worker.seen().await {
            Seen::Abort(request) => break assert_eq!((request.stream_id, request.epoch), (making.request.stream_id, 0)),
            Seen::Detach => {}
            _ => panic!("an abort was expected"),
        }
    }
}
