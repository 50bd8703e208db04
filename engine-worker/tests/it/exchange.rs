//! What becomes of answers when their exchange breaks.

use std::time::Duration;

use engine_worker::{scripted::oracle::Oracle, service::Bounds};

use crate::harness::{Worker, ask, bounds, load_until, seats};

#[tokio::test]
async fn a_broken_exchanges_answers_go_on_and_another_router_gets_the_rest() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut broken = worker.exchange().await;
    broken.start(1, ask("a", "id=r tokens=60 gap_us=4000")).await;
    let seen = broken.tokens(1, 10).await.text();
    assert!(seen.starts_with("r.0 "));
    drop(broken);
    let mut other = worker.exchange().await;
    other.attach(7, "a", 10).await;
    let got = other.end(7).await;
    assert_eq!(
        got.text(),
        (10..60).map(|index| Oracle::named("r").text(0, index)).collect::<String>()
    );
}

#[tokio::test]
async fn an_answer_that_nobody_reads_ends_after_its_grace_time() {
    let short = Bounds {
        unattended_grace: Duration::from_millis(80),
        ..bounds()
    };
    let worker = Worker::scripted(&seats(4), short);
    let mut client = worker.client().await;
    let mut first = worker.exchange().await;
    first.start(1, ask("a", "tokens=100000 gap_us=4000")).await;
    first.tokens(1, 1).await;
    let mut second = worker.exchange().await;
    second.attach(1, "a", 0).await;
    second.begun(1).await;
    drop(first);
    // Far longer than the grace time: the answer still has a reader.
    let before = second.tokens(1, 100).await.tokens();
    assert!(before >= 100 && !second.got[&1].is_over());
    second.detach(1).await;
    load_until(&mut client, |load| load.busy == 0).await;
    second.attach(2, "a", 0).await;
    assert!(second.end(2).await.is_cancelled());
}

#[tokio::test]
async fn a_detached_answer_goes_on_and_can_be_attached_again() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "id=r tokens=30 gap_us=2000")).await;
    let seen = u32::try_from(exchange.tokens(1, 3).await.tokens()).unwrap();
    exchange.detach(1).await;
    exchange.attach(2, "a", seen).await;
    let rest: String = (seen..30).map(|index| Oracle::named("r").text(0, index)).collect();
    assert_eq!(exchange.end(2).await.text(), rest);
}

#[tokio::test]
async fn wrong_commands_are_refused_and_the_exchange_goes_on() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("", "tokens=3")).await;
    assert_eq!(exchange.end(1).await.refused.as_ref().unwrap().param, "stream_id");
    exchange.start(2, proto::v1::GenerateRequest::default()).await;
    assert!(exchange.end(2).await.refused.is_some());
    exchange.cancel(99).await;
    exchange.detach(99).await;
    exchange.start(3, ask("c", "tokens=3 gap_us=0")).await;
    assert_eq!(exchange.end(3).await.tokens(), 3);
}

#[tokio::test]
async fn an_answer_that_waits_for_a_seat_outlives_its_exchange_too() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut client = worker.client().await;
    let mut other = worker.exchange().await;
    other.start(1, ask("a", "tokens=100000 gap_us=4000")).await;
    other.begun(1).await;
    let mut broken = worker.exchange().await;
    broken.start(1, ask("b", "id=r tokens=9 gap_us=0")).await;
    load_until(&mut client, |load| load.queued == 1).await;
    drop(broken);
    other.attach(2, "b", 0).await;
    other.cancel(1).await;
    assert_eq!(other.end(2).await.text(), Oracle::named("r").whole(0, 9));
}
