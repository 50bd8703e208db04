//! Ending answers, and what comes back when they end: seats, places in the queue.

use std::time::{Duration, Instant};

use engine_worker::service::Bounds;
use proto::v1::{AbortRequest, Failure, Reason};

use crate::harness::{Worker, ask, bounds, load_until, seats, whole, within};

const FOR_EVER: &str = "tokens=100000 gap_us=10000";

fn one_seat(queue: u32) -> Worker {
    Worker::scripted(&seats(1), Bounds { queue, ..bounds() })
}

#[tokio::test]
async fn an_abort_frees_the_seat_within_one_step() {
    let worker = one_seat(0);
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", FOR_EVER)).await;
    exchange.tokens(1, 5).await;
    let stream_id = "a".to_owned();
    let abort = AbortRequest { stream_id, epoch: 0 };
    let aborted = worker.client().await.abort(abort.clone()).await.unwrap().into_inner();
    assert!(aborted.was_running);
    // What was made until the abort was answered may still be on its way: at 10 ms a step that is little.
    let got = exchange.end(1).await;
    assert!(got.is_cancelled() && got.tokens() < 5 + 5, "{} tokens", got.tokens());
    exchange.start(2, ask("b", "tokens=2 gap_us=0")).await;
    assert!(exchange.begun(2).await.refused.is_none(), "the seat is free");
    let again = worker.client().await.abort(abort).await.unwrap().into_inner();
    assert!(!again.was_running);
}

#[tokio::test]
async fn a_cancel_takes_effect_between_distant_tokens() {
    let worker = one_seat(0);
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "tokens=9 ttft_us=0 gap_us=3000000000")).await;
    exchange.tokens(1, 1).await;
    let cancelled = Instant::now();
    exchange.cancel(1).await;
    let got = exchange.end(1).await;
    assert!(got.is_cancelled() && got.tokens() == 1);
    assert!(
        cancelled.elapsed() < Duration::from_secs(5),
        "not with the next token, in 50 minutes"
    );
}

#[tokio::test]
async fn dropping_the_call_that_generates_ends_the_answer() {
    let worker = one_seat(0);
    let mut client = worker.client().await;
    let mut call = client.generate(ask("a", FOR_EVER)).await.unwrap().into_inner();
    within(call.message()).await.unwrap().unwrap();
    load_until(&mut client, |load| load.busy == 1).await;
    drop(call);
    load_until(&mut client, |load| load.busy == 0).await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_how_many_wait() {
    let worker = one_seat(1);
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", FOR_EVER)).await;
    exchange.begun(1).await;
    exchange.start(2, ask("b", "tokens=2 gap_us=0")).await;
    let mut client = worker.client().await;
    load_until(&mut client, |load| load.queued == 1).await;
    exchange.start(3, ask("c", "tokens=2")).await;
    let refused = exchange.end(3).await.refused.clone().unwrap();
    assert_eq!((refused.reason(), refused.queue_depth), (Reason::QueueFull, 1));
    assert!(refused.retry_after_ms > 0);
    let status = client.generate(ask("c", "tokens=2")).await.unwrap_err();
    assert_eq!(
        Failure::from_status(&status).reason(),
        Reason::QueueFull,
        "and a call of its own fails the same way"
    );
    exchange.cancel(1).await;
    assert_eq!(exchange.end(2).await.tokens(), 2, "who waited has the seat");
    exchange.start(4, ask("c", "tokens=2 gap_us=0")).await;
    assert_eq!(exchange.end(4).await.tokens(), 2, "what was refused may come again under its name");
}

#[tokio::test]
async fn a_wrong_request_is_refused_before_it_waits() {
    let worker = one_seat(0);
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", FOR_EVER)).await;
    exchange.begun(1).await;
    let mut wrong = ask("b", "tokens=2");
    wrong.request.as_mut().unwrap().model = "other".to_owned();
    exchange.start(2, wrong).await;
    assert_eq!(exchange.end(2).await.refused.as_ref().unwrap().reason(), Reason::ModelNotFound);
    exchange.start(3, ask("c", "colour=red")).await;
    assert_eq!(exchange.end(3).await.refused.as_ref().unwrap().reason(), Reason::InvalidRequest);
    let mut wide = ask("d", "tokens=2");
    wide.request.as_mut().unwrap().n = 2;
    exchange.start(4, wide).await;
    assert_eq!(
        exchange.end(4).await.refused.as_ref().unwrap().param,
        "n",
        "two choices never fit on one seat"
    );
}

#[tokio::test]
async fn a_waiting_answer_that_is_cancelled_leaves_the_queue_and_ends_as_cancelled() {
    let worker = one_seat(1);
    let mut exchange = worker.exchange().await;
    let mut client = worker.client().await;
    exchange.start(1, ask("a", FOR_EVER)).await;
    exchange.begun(1).await;
    exchange.start(2, ask("b", FOR_EVER)).await;
    load_until(&mut client, |load| load.queued == 1).await;
    exchange.cancel(2).await;
    let got = exchange.end(2).await;
    assert!(got.is_cancelled() && got.tokens() == 0);
    load_until(&mut client, |load| load.queued == 0 && load.busy == 1).await;
    exchange.start(3, ask("c", FOR_EVER)).await;
    load_until(&mut client, |load| load.queued == 1).await;
    exchange.detach(3).await;
    load_until(&mut client, |load| load.queued == 0).await;
}

#[tokio::test]
async fn nothing_leaks_over_many_answers_that_end_in_every_way() {
    let settings = engine_worker::scripted::Settings {
        script_faults: true,
        ..seats(4)
    };
    let worker = Worker::scripted(&settings, Bounds { queue: 200, ..bounds() });
    let mut exchange = worker.exchange().await;
    for call in 0..120 {
        let script = match call % 4 {
            0 => "tokens=5 gap_us=100",
            1 => "tokens=5 fail_at=2 gap_us=100",
            2 => "tokens=5 stall_at=1 gap_us=100",
            _ => "tokens=5 colour=red",
        };
        exchange.start(call, ask(&format!("s{call}"), script)).await;
        if call % 4 == 2 {
            exchange.cancel(call).await;
        }
    }
    let all = exchange.close().await;
    assert_eq!(all.len(), 120);
    let mut client = worker.client().await;
    load_until(&mut client, |load| load.busy == 0 && load.queued == 0).await;
    let calls = (0..4).map(async |call| {
        let mut client = worker.client().await;
        whole(
            client
                .generate(ask(&format!("last{call}"), "tokens=3 gap_us=0"))
                .await
                .unwrap()
                .into_inner(),
        )
        .await
    });
    for got in futures_util::future::join_all(calls).await {
        assert_eq!(got.tokens(), 3);
    }
}
