//! What the gateway knows from its routers without asking: models, health, readiness, metrics. And embeddings, for which it asks.

use proto::v1::{FinishReason, RouterStatus, WorkerState};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished, ready, texts},
};

#[tokio::test]
async fn the_models_of_the_routers_are_listed() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    insta::assert_snapshot!(client::get(gateway.address, "/v1/models").await.body);
    assert_eq!(client::get(gateway.address, "/v1/models/tiny").await.json()["object"], "model");
    let missing = client::get(gateway.address, "/v1/models/org/huge").await;
    assert_eq!((missing.status, &missing.json()["error"]["code"]), (404, &"model_not_found".into()));
}

#[tokio::test]
async fn ready_means_that_a_first_chat_would_be_answered() {
    let mut router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let becomes = async |status: RouterStatus, expected: u16| {
        router.status.send_replace(status);
        while client::get(gateway.address, "/ready").await.status != expected {
            tokio::task::yield_now().await;
        }
    };
    becomes(ready(), 200).await;
    becomes(RouterStatus { draining: true, ..ready() }, 503).await;
    becomes(ready(), 200).await;
    becomes(RouterStatus { queue_depth: 9, ..ready() }, 503).await;
    becomes(RouterStatus { queue_depth: 8, ..ready() }, 200).await;
    becomes(
        RouterStatus {
            models: Vec::new(),
            ..ready()
        },
        503,
    )
    .await;
    becomes(ready(), 200).await;
    let mut none = ready();
    none.workers[0].state = WorkerState::Ejected.into();
    becomes(none, 503).await;
    becomes(ready(), 200).await;
    router.die();
    while client::get(gateway.address, "/ready").await.status != 503 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn health_tells_what_is_down() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let healthy = client::get(gateway.address, "/health").await;
    assert_eq!((healthy.status, &healthy.json()["status"]), (200, &"ok".into()));
    router.status.send_replace(RouterStatus {
        store_up: false,
        ..ready()
    });
    loop {
        let health = client::get(gateway.address, "/health").await;
        if health.json()["store"] == "down" {
            assert_eq!((health.status, &health.json()["worker"]), (503, &"up".into()));
            break;
        }
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn metrics_count_what_clients_had() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    router.status.send_replace(RouterStatus { queue_depth: 3, ..ready() });
    let mut entries = texts(&["a", "b", "c"]);
    entries.push(finished(FinishReason::Stop, 3));
    tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), router.say(entries));
    client::get(gateway.address, "/stream").await;
    let expected = [
        "llm_tokens_total{model=\"tiny\",type=\"output\"} 3",
        "llm_tokens_total{model=\"tiny\",type=\"input\"} 5",
        "chat_requests_total{model=\"tiny\",status=\"finished\"} 1",
        "chat_requests_total{model=\"unknown\",status=\"refused\"} 1",
        "llm_errors_total{model=\"unknown\",error_type=\"invalid_request\"} 1",
        "llm_ttft_seconds_count{model=\"tiny\"} 1",
        "llm_tpot_seconds_count{model=\"tiny\"} 1",
        "llm_stream_duration_seconds_count{model=\"tiny\"} 1",
        "chat_request_duration_seconds_count{model=\"tiny\"} 1",
        "llm_concurrent_streams 0",
        "llm_connection_drops_total 0",
        "llm_queue_depth 3",
    ];
    let mut metrics = String::new();
    for _ in 0..1000 {
        metrics = client::get(gateway.address, "/metrics").await.body;
        if expected.iter().all(|line| metrics.contains(line)) {
            return;
        }
        tokio::task::yield_now().await;
    }
    let missing: Vec<_> = expected.iter().filter(|line| !metrics.contains(**line)).collect();
    panic!("{missing:?} is missing in\n{metrics}");
}

#[tokio::test]
async fn embeddings_come_as_numbers_or_as_base64() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async |body: &str| client::post(gateway.address, "/v1/embeddings", body).await.whole().await;
    insta::assert_snapshot!(post(r#"{"input":["a","b"],"model":"tiny"}"#).await.body);
    let encoded = post(r#"{"input":"a","encoding_format":"base64"}"#).await.json();
    assert_eq!(encoded["data"][0]["embedding"], "AAAAPwAAAL8=");
    for (body, param) in [
        (r#"{"input":[]}"#, "input"),
        (r#"{"input":7}"#, "input"),
        (r#"{"input":"a","encoding_format":"hex"}"#, "encoding_format"),
    ] {
        let refused = post(body).await;
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &param.into()));
    }
}

#[tokio::test]
async fn an_answer_is_cancelled_by_its_name() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let cancel = async |id: &str| {
        client::post(gateway.address, &format!("/v1/streams/{id}/cancel"), "")
            .await
            .whole()
            .await
    };
    assert_eq!(cancel("running").await.json()["was_running"], true);
    assert_eq!(cancel("other").await.status, 404);
}

#[tokio::test]
async fn the_page_needs_nothing_from_elsewhere() {
    let gateway = Gateway::before(&[]).await;
    let page = client::get(gateway.address, "/").await;
    assert!(
        page.header("content-security-policy")
            .is_some_and(|policy| policy.starts_with("default-src 'none'"))
    );
    assert!(page.body.contains("EventSource") && !page.body.contains("https://"));
}
