//! The same request sent twice is one answer.

use proto::v1::{ChatRequest, DisconnectPolicy, Failure, FinishReason, Reason};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
};

const HI: &str = r#"{"messages":[{"role":"user","content":"hi"}],"max_tokens":9}"#;

async fn post(gateway: &Gateway, path: &str, key: &str, body: &str) -> Whole {
    let head = format!(
        "POST {path} HTTP/1.1\nidempotency-key: {key}\ncontent-type: application/json\ncontent-length: {}",
        body.len()
    );
    client::send(gateway.address, &head, body.as_bytes()).await.whole().await
}

async fn asked(gateway: &Gateway, router: &Router, path: &str, key: &str, body: &str) -> ChatRequest {
    let mut entries = texts(&["Hel", "lo"]);
    entries.push(finished(FinishReason::Stop, 2));
    let (response, request) = tokio::join!(post(gateway, path, key, body), router.say(entries));
    assert_eq!(response.status, 200, "{}", response.body);
    request
}

#[tokio::test]
async fn a_key_and_a_body_give_the_same_name_and_fingerprint_at_every_gateway() {
    let router = Router::start();
    let gateways = [Gateway::before(&[&router]).await, Gateway::before(&[&router]).await];
    let first = asked(&gateways[0], &router, "/v1/chat/completions", "k1", HI).await;
    let spaced = r#"{ "max_tokens": 9, "messages": [ {"content": "hi", "role": "user"} ] }"#;
    let again = asked(&gateways[1], &router, "/v1/chat/completions", "k1", spaced).await;
    assert_eq!(
        (&first.stream_id, &first.fingerprint),
        (&again.stream_id, &again.fingerprint),
        "the order of fields does not matter"
    );
    assert_eq!(first.disconnect(), DisconnectPolicy::Detach, "the retry wants it");
    let other_key = asked(&gateways[0], &router, "/v1/chat/completions", "k2", HI).await;
    assert_ne!(first.stream_id, other_key.stream_id);
    assert_eq!(first.fingerprint, other_key.fingerprint);
    let other_body = asked(&gateways[0], &router, "/v1/chat/completions", "k1", &HI.replace('9', "8")).await;
    assert_eq!(first.stream_id, other_body.stream_id);
    assert_ne!(first.fingerprint, other_body.fingerprint);
    let chat = asked(&gateways[0], &router, "/chat", "k1", r#"{"message":"hi"}"#).await;
    assert_eq!(first.stream_id, chat.stream_id);
    let plain = async { client::post(gateways[0].address, "/v1/chat/completions", HI).await.whole().await };
    let (_, request) = tokio::join!(plain, router.say(vec![finished(FinishReason::Stop, 0)]));
    assert!(request.fingerprint.is_empty() && request.stream_id != first.stream_id);
}

#[tokio::test]
async fn a_client_that_cannot_set_headers_says_its_key_in_the_query() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let get = async |path: &str| {
        let say = router.say(vec![finished(FinishReason::Stop, 0)]);
        tokio::join!(client::get(gateway.address, path), say).1
    };
    let first = get("/v1/chat/stream?q=hi&idempotency_key=k1").await;
    let again = get("/v1/chat/stream?idempotency_key=k1&q=hi").await;
    let other = get("/v1/chat/stream?idempotency_key=k1&q=ho").await;
    assert_eq!((&first.stream_id, &first.fingerprint), (&again.stream_id, &again.fingerprint));
    assert_eq!(first.stream_id, other.stream_id);
    assert_ne!(first.fingerprint, other.fingerprint);
}

#[tokio::test]
async fn a_key_that_was_used_for_another_body_is_a_typed_422() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let refuse = async {
        let (received, _) = router.started().await;
        let failure = Failure {
            param: "fingerprint".to_owned(),
            ..Failure::new(Reason::Conflict, "used")
        };
        received.refuse(failure).await;
    };
    let (response, ()) = tokio::join!(post(&gateway, "/v1/chat/completions", "k1", HI), refuse);
    let error = &response.json()["error"];
    assert_eq!((response.status, &error["code"]), (422, &"idempotency_key_reused".into()));
    assert_eq!(error["type"], "invalid_request_error");
}

#[tokio::test]
async fn a_bad_key_is_refused_by_the_headers_name() {
    let gateway = Gateway::before(&[]).await;
    let long = "k".repeat(256);
    for bad in ["", "tab\there", "caf\u{e9}", &long, "one\nidempotency-key: two"] {
        for path in ["/v1/chat/completions", "/chat"] {
            let response = post(&gateway, path, bad, HI).await;
            assert_eq!(
                (response.status, &response.json()["error"]["param"]),
                (400, &"Idempotency-Key".into()),
                "{bad:?}"
            );
        }
    }
}

#[tokio::test]
async fn every_post_door_takes_what_becomes_of_its_answer() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let cases = [
        (r#""disconnect":"cancel""#, DisconnectPolicy::Cancel, 0),
        (r#""disconnect":"detach""#, DisconnectPolicy::Detach, 0),
        (r#""disconnect":"detach","detach_grace_ms":1500"#, DisconnectPolicy::Detach, 1500),
        (r#""detach_grace_ms":1"#, DisconnectPolicy::Detach, 1),
        (r#""disconnect":"background""#, DisconnectPolicy::Background, 0),
        (r#""disconnect":null,"detach_grace_ms":null"#, DisconnectPolicy::Cancel, 0),
    ];
    for (fields, policy, grace) in cases {
        for path in ["/v1/chat/completions", "/chat"] {
            let body = format!(r#"{{"messages":[{{"role":"user","content":"hi"}}],{fields}}}"#);
            let post = async { client::post(gateway.address, path, &body).await.whole().await };
            let (_, request) = tokio::join!(post, router.say(vec![finished(FinishReason::Stop, 0)]));
            assert_eq!((request.disconnect(), request.detach_grace_ms), (policy, grace), "{path} {fields}");
        }
    }
    let (_, request) = tokio::join!(
        client::get(gateway.address, "/stream?prompt=hi&detach_grace_ms=20"),
        router.say(vec![finished(FinishReason::Stop, 0)])
    );
    assert_eq!((request.disconnect(), request.detach_grace_ms), (DisconnectPolicy::Detach, 20));
}
