//! What is left to be told when a client goes, or when the gateway itself does.

use std::time::Duration;

use super::*;
use crate::redis::Redis;

/// Far more than stopping takes where nothing runs.
const GRACE: Duration = Duration::from_mins(1);

fn settings<'a>(address: &'a str, tiers: &'a str) -> [&'a str; 8] {
    ["--limits", "on", "--tiers", tiers, "--redis", address, "--redis-timeout", "20s"]
}

#[tokio::test]
async fn who_goes_while_the_ledger_is_asked_leaves_nothing_reserved() {
    let redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let gateway = Gateway::with(&[&router], &settings(&address, "free=0/0/1")).await;
    let (first, _) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), router.say(whole()));
    assert_eq!(first.status, 200);
    for path in ["/stream?prompt=hi", "/stream?prompt=hi&idempotency_key=k"] {
        redis.freeze();
        tokio::select! {
            _ = client::get(gateway.address, path) => unreachable!(),
            () = asked_for_a_while(&gateway) => {}
        }
        asked_for_a_while(&gateway).await;
        redis.thaw();
        let asking = async { while client::get(gateway.address, "/stream?prompt=hi").await.status != 200 {} };
        tokio::time::timeout(GRACE, async {
            tokio::select! { () = asking => {}, () = answer(&router) => {} }
        })
        .await
        .expect("its place is not given back");
    }
}

#[tokio::test]
async fn what_is_owed_to_redis_is_told_when_the_gateway_stops() {
    let mut redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = settings(&address, "free=0/1000/0");
    let gateway = Gateway::with(&[&router], &settings).await;
    redis.die();
    let (response, _) = tokio::join!(ask(&gateway), router.say(whole()));
    assert_eq!(response.status, 200);
    redis.come_back();
    assert!(gateway.drain.finish(GRACE).await);
    let other = Gateway::with(&[&router], &settings).await;
    let (response, _) = tokio::join!(ask(&other), router.say(whole()));
    assert_eq!(remaining(&response), 1000 - 7 - MAY_TAKE);
}

#[tokio::test]
async fn the_last_lines_of_the_log_are_stored_when_the_gateway_stops() {
    let log = Log::start().await;
    let gateway = Gateway::with(&[], &["--gateway-store", &log.address]).await;
    let refused = client::post(gateway.address, "/v1/chat/completions", r#"{"messages":[]}"#)
        .await
        .whole()
        .await;
    assert_eq!(refused.status, 400);
    assert!(gateway.drain.finish(GRACE).await);
    assert_eq!(log.list().await.unwrap().len(), 1);
}
