//! Limits as a client meets them at every door. [`shared`]: over two gateways, with Redis and without. [`fronts`]: for whom. [`once`]: what
//! costs nothing, or not again. [`prompts`]: several answers to one
//! request. [`stopping`]: what is left when a client or a gateway goes.

mod fronts;
mod once;
mod prompts;
mod shared;
mod stopping;

use proto::v1::{ChatRequest, Entry, Failure, FinishReason, FinishedTurn, Reason, Usage, chat_command::Command};
use serde_json::json;
use tokio_tungstenite::tungstenite::Message;

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    ledger::Log,
    router::{Received, Router, finished, texts},
};

/// A tier of one kind of limit each.
const REQUESTS: &str = "free=2/0/0";
const STREAMS: &str = "free=0/0/1";
const TOKENS: &str = "free=0/500/0";
/// What `hi` with this bound may take: its estimate and the bound.
const BODY: &str = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":100}"#;
const MAY_TAKE: u64 = 24 + 8 + 1 + 100;

async fn limited(router: &Router, tiers: &str) -> Gateway {
    Gateway::with(&[router], &["--limits", "on", "--tiers", tiers]).await
}

/// Answers for ever, each time with 7 tokens of input and output together.
async fn answer(router: &Router) {
    loop {
        let received = router.next().await;
        if let Command::Start(request) = &received.command {
            received.admit(&request.stream_id).await;
            received.entries(0, whole()).await;
        }
    }
}

fn whole() -> Vec<Entry> {
    let mut entries = texts(&["Hi", "."]);
    entries.push(finished(FinishReason::Stop, 2));
    entries
}

async fn ask(gateway: &Gateway) -> Whole {
    client::post(gateway.address, "/v1/chat/completions", BODY).await.whole().await
}

fn remaining(response: &Whole) -> u64 {
    response.header("x-ratelimit-remaining-tokens").unwrap().parse().unwrap()
}

#[tokio::test]
async fn the_limit_of_requests_holds_and_says_so() {
    let router = Router::start();
    let gateway = limited(&router, REQUESTS).await;
    let asking = async {
        let first = ask(&gateway).await;
        assert_eq!(first.status, 200);
        assert_eq!(first.header("x-ratelimit-limit-requests"), Some("2"));
        assert_eq!(first.header("x-ratelimit-remaining-requests"), Some("1"));
        assert!(first.header("x-ratelimit-limit-tokens").is_none());
        assert_eq!(ask(&gateway).await.header("x-ratelimit-remaining-requests"), Some("0"));
        let refused = ask(&gateway).await;
        assert_eq!(refused.status, 429);
        let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=61).contains(&wait), "{wait}");
        assert_eq!(refused.header("x-ratelimit-remaining-requests"), Some("0"));
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("rate_limit_error"), &json!("rate_limit_exceeded"))
        );
        assert!(error["message"].as_str().unwrap().contains("2 requests per minute"), "{error}");
        let metrics = client::get(gateway.address, "/metrics").await.body;
        assert!(
            metrics.contains(r#"unbroken_limits_refused_total{limit="requests",tier="free"} 1"#),
            "{metrics}"
        );
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn every_door_refuses_in_its_own_shape() {
    let router = Router::start();
    let gateway = limited(&router, "free=1/0/0").await;
    let asking = async {
        assert_eq!(ask(&gateway).await.status, 200);
        for path in ["/stream?prompt=hi", "/v1/chat/completions/stream?prompt=hi", "/v1/chat/stream?q=hi"] {
            let refused = client::get(gateway.address, path).await;
            assert_eq!(
                (refused.status, &refused.json()["error"]["code"]),
                (429, &json!("rate_limit_exceeded")),
                "{path}"
            );
        }
        let refused = client::post(gateway.address, "/chat", r#"{"message":"hi"}"#).await.whole().await;
        assert_eq!(refused.status, 429);
        let embeddings = client::post(gateway.address, "/v1/embeddings", r#"{"input":"hi"}"#)
            .await
            .whole()
            .await;
        assert_eq!(embeddings.status, 429);
        let asked = BODY.replacen('{', r#"{"model":"tiny","#, 1);
        let anthropic = client::post(gateway.address, "/v1/messages", &asked).await.whole().await;
        assert_eq!(anthropic.status, 429);
        assert_eq!(anthropic.json()["type"], "error");
        assert_eq!(anthropic.json()["error"]["type"], "rate_limit_error");
        assert!(anthropic.header("retry-after").is_some());
        let url = format!("ws://{}/ws/chat", gateway.address);
        let (mut socket, _) = tokio_tungstenite::connect_async(url).await.unwrap();
        futures_util::SinkExt::send(&mut socket, Message::text(r#"{"prompt":"hi"}"#))
            .await
            .unwrap();
        let said = futures_util::StreamExt::next(&mut socket)
            .await
            .unwrap()
            .unwrap()
            .into_text()
            .unwrap();
        let said: serde_json::Value = serde_json::from_str(&said).unwrap();
        assert_eq!(
            (&said["type"], &said["error"]["code"]),
            (&json!("error"), &json!("rate_limit_exceeded"))
        );
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn tokens_are_reserved_and_settled_with_what_the_journal_says() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let asking = async {
        assert_eq!(remaining(&ask(&gateway).await), 500 - MAY_TAKE);
        assert_eq!(remaining(&ask(&gateway).await), 500 - MAY_TAKE - 7);
        let much = BODY.replace("100", "460");
        let refused = client::post(gateway.address, "/v1/chat/completions", &much).await.whole().await;
        assert_eq!(refused.status, 429);
        let error = &refused.json()["error"];
        assert_eq!(
            (&error["type"], &error["code"]),
            (&json!("insufficient_quota"), &json!("insufficient_quota"))
        );
        assert!(error["message"].as_str().unwrap().contains("500 tokens per day"), "{error}");
        assert_eq!(remaining(&refused), 500 - 2 * 7);
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn an_answer_without_a_bound_gets_what_is_left() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let asking = client::post(
        gateway.address,
        "/v1/chat/completions",
        r#"{"messages":[{"role":"user","content":"hi"}]}"#,
    );
    let (response, request) = tokio::join!(async { asking.await.whole().await }, router.say(whole()));
    assert_eq!(response.status, 200);
    assert_eq!(request.max_tokens, Some(500 - 33));
    // Each choice gets its part, and all of them together no more than there is.
    let asking = client::post(
        gateway.address,
        "/v1/chat/completions",
        r#"{"messages":[{"role":"user","content":"hi"}],"n":4}"#,
    );
    let (response, request) = tokio::join!(async { asking.await.whole().await }, router.say(whole()));
    assert_eq!((request.max_tokens, remaining(&response)), (Some((500 - 7 - 33) / 4), 0));
    // And one that no limit holds for is left alone.
    let free = Gateway::with(&[&router], &[]).await;
    let (_, request) = tokio::join!(client::get(free.address, "/stream?prompt=hi"), router.say(whole()));
    assert_eq!(request.max_tokens, None);
}

#[tokio::test]
async fn a_request_that_no_day_has_tokens_for_is_its_clients_fault() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let much = BODY.replace("100", "468");
    let refused = client::post(gateway.address, "/v1/chat/completions", &much).await.whole().await;
    assert_eq!((refused.status, refused.header("retry-after")), (400, None));
    let error = &refused.json()["error"];
    assert_eq!(
        (&error["type"], &error["code"]),
        (&json!("invalid_request_error"), &json!("request_too_large"))
    );
    assert!(error["message"].as_str().unwrap().contains("501 tokens"), "{error}");
    let (most, _) = tokio::join!(
        async {
            client::post(gateway.address, "/v1/chat/completions", &BODY.replace("100", "467"))
                .await
                .whole()
                .await
        },
        router.say(whole())
    );
    assert_eq!((most.status, remaining(&most)), (200, 0));
}

#[tokio::test]
async fn a_refusal_costs_no_token() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let bad = client::post(gateway.address, "/v1/chat/completions", r#"{"messages":[]}"#)
        .await
        .whole()
        .await;
    assert_eq!(bad.status, 400);
    for reason in [Reason::ContextLengthExceeded, Reason::ModelNotFound, Reason::QueueFull] {
        let playing = async {
            let (received, _) = router.started().await;
            received.refuse(Failure::new(reason, "no")).await;
        };
        let (refused, ()) = tokio::join!(ask(&gateway), playing);
        assert_ne!(refused.status, 200);
    }
    let (response, _) = tokio::join!(ask(&gateway), router.say(whole()));
    assert_eq!(remaining(&response), 500 - MAY_TAKE);
}

#[tokio::test]
async fn an_answer_that_broke_off_costs_what_it_took_until_then() {
    let router = Router::start();
    let gateway = limited(&router, TOKENS).await;
    let mut broken = texts(&["Hi", "."]);
    broken.push(Entry::failed(Failure {
        usage: Some(Usage {
            prompt_tokens: 5,
            completion_tokens: 2,
            ..Usage::default()
        }),
        ..Failure::new(Reason::WorkerLost, "lost")
    }));
    let (_, _) = tokio::join!(ask(&gateway), router.say(broken));
    let (response, _) = tokio::join!(ask(&gateway), router.say(whole()));
    assert_eq!(remaining(&response), 500 - 7 - MAY_TAKE);
}

#[tokio::test]
async fn a_client_that_goes_pays_what_the_request_log_says() {
    let log = Log::start().await;
    let router = Router::start();
    let settings = ["--limits", "on", "--tiers", "free=0/500/1", "--gateway-store", &log.address];
    let gateway = Gateway::with(&[&router], &settings).await;
    let (response, (received, request)) = tokio::join!(client::open(gateway.address, "/stream?prompt=hi&max_tokens=100"), begun(&router));
    drop(response);
    // Its place is taken until the log has heard of it, and no longer.
    let refused = client::get(gateway.address, "/stream?prompt=hi&max_tokens=100").await;
    assert_eq!(refused.json()["error"]["code"], "too_many_streams");
    drop(received);
    log.finish(FinishedTurn {
        principal: request.principal.clone(),
        stream_id: request.stream_id.clone(),
        state: "cancelled".to_owned(),
        usage: Some(Usage {
            prompt_tokens: 5,
            completion_tokens: 17,
            ..Usage::default()
        }),
        ..FinishedTurn::default()
    })
    .await;
    let left = left_when_free(&gateway, &router, "/stream?prompt=hi&max_tokens=100").await;
    assert_eq!(left, 500 - 22 - (24 + 1 + 100));
}

/// Asks until there is room, and says how many tokens are left then.
async fn left_when_free(gateway: &Gateway, router: &Router, path: &str) -> u64 {
    let asking = async {
        loop {
            let response = client::get(gateway.address, path).await;
            if response.status == 200 {
                return remaining(&response);
            }
        }
    };
    tokio::select! { left = asking => left, () = answer(router) => unreachable!() }
}

/// Gives the gateway the time to take, or to miss, a client.
async fn asked_for_a_while(gateway: &Gateway) {
    for _ in 0..50 {
        assert_eq!(client::get(gateway.address, "/health").await.status, 200);
    }
}

/// An answer that has begun, and goes on.
async fn begun(router: &Router) -> (Received, ChatRequest) {
    let (received, request) = router.started().await;
    received.admit(&request.stream_id).await;
    received.entries(0, texts(&["Hi"])).await;
    (received, request)
}

#[tokio::test]
async fn streams_at_once_are_bounded() {
    let router = Router::start();
    let gateway = limited(&router, STREAMS).await;
    let (mut running, (received, _)) = tokio::join!(client::open(gateway.address, "/stream?prompt=hi"), begun(&router));
    let refused = client::get(gateway.address, "/stream?prompt=hi").await;
    assert_eq!(refused.json()["error"]["code"], "too_many_streams");
    received.entries(1, vec![finished(FinishReason::Stop, 1)]).await;
    running.rest().await;
    let (response, _) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), router.say(whole()));
    assert_eq!(response.status, 200);
}
