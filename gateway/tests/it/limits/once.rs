//! What costs nothing, or not a second time: answers that never began, what was answered before, and who goes while the ledger is asked.

use super::*;
use crate::stored::Stored;

/// Asks, and goes as soon as a router has been asked.
async fn ask_and_go(gateway: &Gateway, router: &Router, path: &str) -> ChatRequest {
    tokio::select! {
        _ = client::get(gateway.address, path) => unreachable!(),
        (_, request) = router.started() => request,
    }
}

#[tokio::test]
async fn an_answer_that_was_left_in_a_queue_gives_its_place_back_as_soon_as_the_log_knows() {
    let log = Log::start().await;
    let router = Router::start();
    let settings = ["--limits", "on", "--tiers", "free=0/500/1", "--gateway-store", &log.address];
    let gateway = Gateway::with(&[&router], &settings).await;
    let plain = "/stream?prompt=hi&max_tokens=100";
    for (index, more) in (0..).zip(["", "&resumable=1", "&idempotency_key=k"]) {
        let path = format!("{plain}{more}");
        let request = ask_and_go(&gateway, &router, &path).await;
        let refused = client::get(gateway.address, plain).await;
        assert_eq!(refused.json()["error"]["code"], "too_many_streams");
        log.finish(FinishedTurn {
            principal: request.principal.clone(),
            stream_id: request.stream_id.clone(),
            request_id: request.request_id.clone(),
            state: "cancelled".to_owned(),
            usage: Some(Usage::default()),
            ..FinishedTurn::default()
        })
        .await;
        let begun = std::time::Instant::now();
        let left = left_when_free(&gateway, &router, plain).await;
        assert!(
            begun.elapsed() < std::time::Duration::from_secs(30),
            "not after two minutes, nor an hour"
        );
        assert_eq!(left, 500 - 2 * 7 * index - 125, "and it took nothing");
        let left = left_when_free(&gateway, &router, &path).await;
        assert_eq!(left, 500 - 2 * 7 * index - 7 - 125, "so the same key asks anew");
    }
}

#[tokio::test]
async fn a_response_that_is_only_kept_is_not_paid_for_again() {
    let settings = ["--limits", "on", "--tiers", "free=0/1000/1", "--limits-retention", "1ms"];
    let stored = Stored::with(&settings).await;
    let post = async || {
        let body = r#"{"model":"tiny","input":"hi","max_output_tokens":100}"#;
        let head = format!(
            "POST /v1/responses HTTP/1.1\ncontent-type: application/json\nidempotency-key: k1\ncontent-length: {}",
            body.len()
        );
        client::send(stored.gateway.address, &head, body.as_bytes()).await.whole().await
    };
    let (made, ()) = tokio::join!(post(), async {
        let request = stored.router.say(whole()).await;
        stored.finish(&request, &whole()).await;
    });
    assert_eq!(made.status, 200, "{}", made.body);
    for _ in 0..3 {
        let (again, ()) = tokio::join!(post(), async {
            let (received, _) = stored.router.started().await;
            received.refuse(Failure::new(Reason::Expired, "not kept any more")).await;
        });
        assert_eq!((again.status, &again.body), (200, &made.body));
        assert_eq!(remaining(&again), 1000 - 7 - MAY_TAKE);
    }
}

#[tokio::test]
async fn vectors_whose_client_has_gone_are_charged_and_logged() {
    let log = Log::start().await;
    let router = Router::start();
    let settings = ["--limits", "on", "--tiers", TOKENS, "--gateway-store", &log.address];
    let gateway = Gateway::with(&[&router], &settings).await;
    tokio::select! {
        _ = client::post(gateway.address, "/v1/embeddings", r#"{"input":"slow"}"#) => unreachable!(),
        () = router.asked_slowly() => {}
    }
    asked_for_a_while(&gateway).await;
    router.go_on();
    let line = log.first().await;
    assert_eq!((line.door.as_str(), line.state.as_str()), ("embeddings", "finished"));
    assert_eq!(line.usage.unwrap().prompt_tokens, 3);
    let (response, _) = tokio::join!(ask(&gateway), router.say(whole()));
    assert_eq!(remaining(&response), 500 - 3 - MAY_TAKE);
}

#[tokio::test]
async fn who_reads_on_is_never_refused_and_pays_once() {
    let router = Router::start();
    let gateway = limited(&router, "free=1/500/1").await;
    let path = "/stream?prompt=hi&max_tokens=100&resumable=1";
    let (response, (_received, request)) = tokio::join!(client::open(gateway.address, path), begun(&router));
    drop(response);
    for _ in 0..2 {
        let path = format!("/stream?last_event_id={}.0", request.stream_id);
        let playing = async {
            loop {
                let received = router.next().await;
                if let Command::Attach(asked) = &received.command {
                    received.admit(&asked.stream_id).await;
                    received.entries(1, whole()[1..].to_vec()).await;
                }
            }
        };
        let response = tokio::select! { response = client::get(gateway.address, &path) => response, () = playing => unreachable!() };
        assert_eq!(response.status, 200);
    }
    let refused = client::get(gateway.address, "/stream?prompt=hi").await;
    assert_eq!(refused.json()["error"]["code"], "rate_limit_exceeded");
    assert_eq!(remaining(&refused), 500 - 7);
}

#[tokio::test]
async fn the_same_idempotency_key_pays_once() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let path = "/stream?prompt=hi&max_tokens=100&idempotency_key=k";
    let asking = async {
        let first = client::get(gateway.address, path).await;
        assert_eq!(remaining(&first), 500 - 125);
        let again = client::get(gateway.address, path).await;
        assert_eq!((again.status, remaining(&again)), (200, 500 - 7));
        assert_eq!(remaining(&client::get(gateway.address, path).await), 500 - 7);
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn a_key_whose_request_was_refused_pays_when_it_is_answered() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let path = "/stream?prompt=hi&max_tokens=100&idempotency_key=k";
    let playing = async {
        let (received, _) = router.started().await;
        received.refuse(Failure::new(Reason::QueueFull, "no")).await;
    };
    let (refused, ()) = tokio::join!(client::get(gateway.address, path), playing);
    assert_eq!(refused.status, 503);
    let (answered, _) = tokio::join!(client::get(gateway.address, path), router.say(whole()));
    assert_eq!(remaining(&answered), 500 - 125);
}
