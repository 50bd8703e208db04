//! How answers end before their time, and what comes back then.

use std::time::Duration;

use proto::v1::{CancelChatRequest, DisconnectPolicy, Failure, Reason, entry::Event};

use crate::{
    fake_worker::{FakeWorker, token},
    mesh::{all, ask, mesh},
};

#[tokio::test]
async fn a_cancel_reaches_the_worker_and_closes_the_journal() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 3).await;
    mesh.until_answers(|answers| answers[0].entries == 3).await;
    let request = CancelChatRequest {
        stream_id: making.request.stream_id.clone(),
        principal: None,
    };
    let mut client = mesh.client.clone();
    assert!(client.cancel_chat(request.clone()).await.unwrap().into_inner().was_running);
    assert_eq!(worker.cancelled().await, making.line.call);
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Cancelled(cancelled)) = &responses[3].entries[0].event else {
        panic!("{responses:?}")
    };
    let usage = cancelled.usage.unwrap();
    assert_eq!((usage.prompt_tokens, usage.completion_tokens), (3, 3));
    assert!(!client.cancel_chat(request).await.unwrap().into_inner().was_running);
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_reader_that_goes_ends_an_answer_that_nobody_else_wants() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    answer.abort();
    assert_eq!(worker.cancelled().await, making.line.call);
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_cancel_in_an_exchange_ends_the_answer_that_its_call_reads() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(5, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    exchange.cancel(5).await;
    assert_eq!(worker.cancelled().await, making.line.call);
    let entries = exchange.whole(5, 0).await;
    assert!(matches!(entries[0].event, Some(Event::Cancelled(_))));
}

#[tokio::test]
async fn a_detached_answer_goes_on_for_its_grace_time_only() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = ask("hi");
    request.disconnect = DisconnectPolicy::Detach.into();
    request.detach_grace_ms = 300;
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    making.line.head(1).await;
    answer.abort();
    mesh.until_answers(|answers| answers[0].readers == 0).await;
    making.line.tokens(0, 2).await;
    mesh.until_answers(|answers| answers[0].entries == 2).await;
    assert_eq!(worker.cancelled().await, making.line.call);
}

#[tokio::test]
async fn a_background_answer_needs_no_reader() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = ask("hi");
    request.disconnect = DisconnectPolicy::Background.into();
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    answer.abort();
    mesh.until_answers(|answers| answers[0].readers == 0).await;
    making.whole(3).await;
    mesh.until_answers(|answers| answers[0].state == "finished").await;
    let again = all(mesh.resume(&making.request.stream_id, 0).await.unwrap()).await.unwrap();
    assert_eq!(again.len(), 4);
}

#[tokio::test]
async fn a_gateway_that_dies_leaves_time_for_another_to_take_its_place() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--gateway-grace", "400ms"]).await;
    let exchange = mesh.exchange().await;
    exchange.start(1, ask("saved")).await;
    let saved = worker.started().await;
    exchange.start(2, ask("lost")).await;
    let lost = worker.started().await;
    saved.line.head(1).await;
    drop(exchange);
    mesh.until_answers(|answers| answers.iter().all(|answer| answer.readers == 0)).await;
    let mut other = mesh.exchange().await;
    other.attach(1, &saved.request.stream_id, 0).await;
    assert_eq!(worker.cancelled().await, lost.line.call, "the one that nobody came back for");
    saved.line.tokens(0, 2).await;
    saved.line.finish(2).await;
    other.whole(1, 0).await;
}

#[tokio::test]
async fn a_silent_worker_trips_the_clock_of_the_first_token() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--first-token-limit", "200ms"]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Failed(failure)) = &responses[0].entries[0].event else {
        panic!("{responses:?}")
    };
    assert_eq!(failure.reason(), Reason::Timeout);
    assert_eq!(worker.cancelled().await, making.line.call);
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_whole_answer_takes_no_longer_than_the_request_allows() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = ask("hi");
    request.timeout_ms = 300;
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    making.line.head(1).await;
    let mut position = 0;
    while !answer.is_finished() {
        making.line.entries(position, vec![token(position)]).await;
        position += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let responses = answer.await.unwrap().unwrap();
    let Some(Event::Failed(failure)) = &responses.last().unwrap().entries[0].event else {
        panic!("{responses:?}")
    };
    assert_eq!(failure.reason(), Reason::Timeout);
    assert_eq!(failure.usage.unwrap().completion_tokens as usize, responses.len() - 1);
}

#[tokio::test]
async fn a_draining_router_finishes_what_it_has_and_starts_nothing() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    assert!(exchange.next().await.head.is_some());
    mesh.drain.begin();
    exchange.start(2, ask("late")).await;
    let response = exchange.next().await;
    assert_eq!((response.call, response.refused.unwrap().reason()), (2, Reason::Draining));
    making.line.tokens(0, 3).await;
    exchange.attach(3, &making.request.stream_id, 0).await;
    making.line.finish(3).await;
    let mut ended = 0;
    while let Some(response) = exchange.responses.message().await.unwrap() {
        ended += usize::from(response.entries.last().is_some_and(proto::v1::Entry::is_terminal));
    }
    assert_eq!(ended, 2, "both readers have it whole, and then the exchange ends");
    mesh.stopped.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_fails_in_the_engine_ends_with_its_reason_once() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 2).await;
    let failed = proto::v1::Entry::failed(Failure::new(Reason::Internal, "no memory"));
    making.line.entries(2, vec![failed]).await;
    let responses = answer.await.unwrap().unwrap();
    assert_eq!(responses.len(), 3);
    assert!(matches!(&responses[2].entries[0].event, Some(Event::Failed(failure)) if failure.reason() == Reason::Internal));
    mesh.until_idle().await;
}

#[tokio::test]
async fn the_slot_comes_back_after_every_way_to_end() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &["--first-token-limit", "300ms", "--token-limit", "300ms"]).await;
    let mut exchange = mesh.exchange().await;
    for way in 0..7 {
        let mut request = ask("hi");
        if way == 3 {
            request.timeout_ms = 200;
        }
        exchange.start(way, request).await;
        let making = worker.started().await;
        if way != 1 {
            making.line.head(1).await;
            assert!(exchange.next().await.head.is_some());
        }
        match way {
            0 => making.line.finish(0).await,
            1 => making.line.refuse(Failure::invalid("messages", "no")).await,
            2 => exchange.cancel(way).await,
            3 | 4 => {} // the clocks of the whole, and of the first token
            5 => {
                let failed = proto::v1::Entry::failed(Failure::new(Reason::Internal, "no memory"));
                making.line.entries(0, vec![failed]).await;
            }
            _ => {
                exchange.detach(way, false).await;
                assert_eq!(worker.cancelled().await, making.line.call);
                continue;
            }
        }
        let end = exchange.next().await;
        assert_eq!((end.call, end.refused.is_some()), (way, way == 1));
        if (2..5).contains(&way) {
            assert_eq!(worker.cancelled().await, making.line.call);
        }
    }
    let last = mesh.streaming(ask("hi"));
    worker.started().await.whole(1).await;
    last.await.unwrap().unwrap();
    mesh.until_idle().await;
}
