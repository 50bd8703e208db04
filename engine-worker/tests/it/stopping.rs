//! What the worker tells of itself, and how it stops.

use std::time::Duration;

use proto::v1::{Reason, WatchLoadRequest};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};
use tonic_reflection::pb::{
    v1::{ServerReflectionRequest, server_reflection_client::ServerReflectionClient, server_reflection_request::MessageRequest},
    v1alpha,
};

use crate::harness::{Worker, ask, bounds, seats, within};

#[tokio::test]
async fn draining_refuses_what_is_new_and_ends_when_what_runs_has_ended() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "tokens=60 gap_us=4000")).await;
    exchange.tokens(1, 2).await;
    worker.drain.begin();
    exchange.start(2, ask("b", "tokens=2")).await;
    assert_eq!(exchange.end(2).await.refused.as_ref().unwrap().reason(), Reason::Draining);
    assert_eq!(exchange.end(1).await.tokens(), 60, "what runs is finished");
    assert!(!exchange.read().await, "then the exchange ends");
    within(worker.serving).await.unwrap().unwrap();
    assert!(worker.drain.finish(Duration::from_secs(5)).await, "no task is left");
}

#[tokio::test]
async fn draining_waits_for_an_answer_that_nobody_reads_now() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "tokens=30 gap_us=4000")).await;
    exchange.tokens(1, 2).await;
    exchange.detach(1).await;
    worker.drain.begin();
    drop(exchange);
    within(worker.serving).await.unwrap().unwrap();
    assert!(worker.drain.finish(Duration::from_secs(5)).await);
}

#[tokio::test]
async fn the_load_comes_at_once_then_on_change_and_at_least_as_often_as_asked() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut client = worker.client().await;
    let mut seldom = client
        .watch_load(WatchLoadRequest { interval_ms: 60_000 })
        .await
        .unwrap()
        .into_inner();
    let load = within(seldom.message()).await.unwrap().unwrap();
    assert_eq!((load.slots, load.busy, load.queue_limit, load.models.len()), (4, 0, 4, 1));
    assert!(!load.instance.is_empty());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "tokens=9 gap_us=3000000000")).await;
    let load = within(seldom.message()).await.unwrap().unwrap();
    assert_eq!(load.busy, 1, "told because it changed: a minute has not passed");
    let mut often = client.watch_load(WatchLoadRequest { interval_ms: 30 }).await.unwrap().into_inner();
    for _ in 0..3 {
        assert_eq!(within(often.message()).await.unwrap().unwrap().busy, 1);
    }
    worker.drain.begin();
    let load = within(seldom.message()).await.unwrap().unwrap();
    assert!(load.draining);
    exchange.cancel(1).await;
    within(async { while seldom.message().await.unwrap().is_some() {} }).await;
}

#[tokio::test]
async fn reflection_speaks_both_versions_and_health_says_serving() {
    let worker = Worker::scripted(&seats(1), bounds());
    let channel = worker.channel().await;
    let ask = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..ServerReflectionRequest::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let asked = tokio_stream::iter([ask]);
    let mut answer = reflection.server_reflection_info(asked).await.unwrap().into_inner();
    let answer = format!("{:?}", within(answer.message()).await.unwrap().unwrap());
    assert!(
        answer.contains("chat.v1.EngineService") && answer.contains("grpc.health.v1.Health"),
        "{answer}"
    );

    let ask = v1alpha::ServerReflectionRequest {
        message_request: Some(v1alpha::server_reflection_request::MessageRequest::ListServices(String::new())),
        ..v1alpha::ServerReflectionRequest::default()
    };
    let mut reflection = v1alpha::server_reflection_client::ServerReflectionClient::new(channel.clone());
    let mut answer = reflection
        .server_reflection_info(tokio_stream::iter([ask]))
        .await
        .unwrap()
        .into_inner();
    assert!(format!("{:?}", within(answer.message()).await.unwrap().unwrap()).contains("chat.v1.EngineService"));

    let service = "chat.v1.EngineService".to_owned();
    let health = HealthClient::new(channel).check(HealthCheckRequest { service }).await.unwrap();
    assert_eq!(health.into_inner().status, 1);
}
