//! Responses that are kept: found again, streamed again from any event on, by the same key, and gone when they are deleted.

use super::*;

#[tokio::test]
async fn a_response_is_found_again_as_it_was_and_gone_when_it_was_deleted() {
    let stored = Stored::start().await;
    let (made, request) = stored.ask(&ask(), tools()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert!(request.keep && request.disconnect() == proto::v1::DisconnectPolicy::Cancel);
    let path = format!("/v1/responses/{}", id(&made));
    assert_eq!(stored.get(&path).await.json(), made.json());
    let deleted = stored.delete(&path).await;
    assert_eq!(deleted.json(), json!({"id": id(&made), "object": "response", "deleted": true}));
    for gone in [path.as_str(), "/v1/responses/resp_unknown", "/v1/responses/what"] {
        let gone = stored.get(gone).await;
        assert_eq!((gone.status, &gone.json()["error"]["code"]), (404, &"not_found".into()));
    }
    assert_eq!(stored.delete(&path).await.status, 404);
}

#[tokio::test]
async fn from_after_any_event_the_rest_comes_from_the_store_to_the_byte() {
    let stored = Stored::start().await;
    for entries in [tools(), hello()] {
        let (made, request) = stored.ask(&stream(), entries).await;
        assert_eq!(
            request.disconnect(),
            proto::v1::DisconnectPolicy::Detach,
            "its client can come back"
        );
        let path = format!("/v1/responses/resp_{}?stream=true", request.stream_id);
        assert_eq!(stored.get(&path).await.body, made.body);
        let mut rest = made.body.as_str();
        for (number, event) in made.body.split_inclusive("\n\n").enumerate() {
            if event == "data: [DONE]\n\n" {
                break;
            }
            rest = &rest[event.len()..];
            assert_eq!(stored.get(&format!("{path}&starting_after={number}")).await.body, rest);
        }
        assert_eq!(rest, "data: [DONE]\n\n");
    }
    let refused = stored.get("/v1/responses/resp_x?starting_after=3").await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &"starting_after".into()));
}

#[tokio::test]
async fn a_running_response_is_streamed_from_where_it_runs() {
    let stored = Stored::start().await;
    let post = client::post(
        stored.gateway.address,
        "/v1/responses",
        r#"{"model":"tiny","input":"hi","stream":true}"#,
    );
    let ((received, request), mut first) = tokio::join!(
        async {
            let (received, request) = stored.router.started().await;
            received.admit(&request.stream_id).await;
            received.entries(0, texts(&["Hel", "lo"])).await;
            (received, request)
        },
        post
    );
    let mut begun = String::new();
    while !begun.contains("\"lo\"") {
        begun.push_str(&first.chunk().await.unwrap());
    }
    let path = format!("/v1/responses/resp_{}?stream=true&starting_after=2", request.stream_id);
    let (second, ()) = tokio::join!(client::get(stored.gateway.address, &path), async {
        let (again, asked) = stored.router.attached().await;
        assert_eq!((asked.stream_id.as_str(), asked.position), (request.stream_id.as_str(), 0));
        again.admit(&request.stream_id).await;
        let mut all = texts(&["Hel", "lo"]);
        all.push(finished(FinishReason::Stop, 2));
        again.entries(0, all).await;
        received.entries(2, vec![finished(FinishReason::Stop, 2)]).await;
    });
    begun.push_str(&first.rest().await);
    let after: Vec<&str> = begun.split_inclusive("\n\n").skip(3).collect();
    assert_eq!(second.body, after.concat());
}

#[tokio::test]
async fn an_end_that_is_the_gateways_and_not_the_answers_hides_no_event_from_who_comes_back() {
    let stored = Stored::start().await;
    let body = stream();
    let (made, request) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["Hel"])).await;
        received.refuse(Failure::new(Reason::Internal, "nobody can read on")).await;
        request
    });
    let events: Vec<&str> = made.body.split_inclusive("\n\n").collect();
    let (error, before) = events.split_last().unwrap();
    assert!(
        error.starts_with("event: error\n") && error.contains("\"sequence_number\":4,"),
        "{error}"
    );
    let mut entries = texts(&["Hel"]);
    entries.push(finished(FinishReason::Stop, 1));
    stored.finish(&request, &entries).await;
    let path = format!("/v1/responses/resp_{}?stream=true", request.stream_id);
    let whole = stored.get(&path).await.body;
    let rest = stored.get(&format!("{path}&starting_after=4")).await.body;
    assert_eq!(format!("{}{rest}", before.concat()), whole);
}

#[tokio::test]
async fn the_same_key_is_the_same_response_also_when_its_router_has_forgotten_it() {
    let stored = Stored::start().await;
    let post = async |body: &str| {
        let head = format!(
            "POST /v1/responses HTTP/1.1\ncontent-type: application/json\nidempotency-key: k1\ncontent-length: {}",
            body.len()
        );
        client::send(stored.gateway.address, &head, body.as_bytes()).await.whole().await
    };
    let body = stream().to_string();
    let (made, ()) = tokio::join!(post(&body), async {
        let request = stored.router.say(hello()).await;
        stored.finish(&request, &hello()).await;
    });
    let (again, ()) = tokio::join!(post(&body), async {
        let (received, _) = stored.router.started().await;
        received.refuse(Failure::new(Reason::Expired, "not kept any more")).await;
    });
    assert_eq!(again.body, made.body);
    let reused = post(&ask().to_string()).await;
    assert_eq!(
        (reused.status, &reused.json()["error"]["code"]),
        (422, &"idempotency_key_reused".into())
    );
}

#[tokio::test]
async fn what_was_refused_is_not_kept() {
    let stored = Stored::start().await;
    let body = ask();
    let (refused, request) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.refuse(Failure::new(Reason::QueueFull, "too many wait")).await;
        request
    });
    assert_eq!(refused.status, 503);
    assert_eq!(stored.get(&format!("/v1/responses/resp_{}", request.stream_id)).await.status, 404);
}

#[tokio::test]
async fn without_a_store_a_response_is_answered_and_says_that_it_is_not_stored() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-store", "127.0.0.1:1"]).await;
    let post = async |body: Value| {
        client::post(gateway.address, "/v1/responses", &body.to_string())
            .await
            .whole()
            .await
    };
    let (made, request) = tokio::join!(post(ask()), router.say(hello()));
    assert_eq!((made.status, &made.json()["store"], request.keep), (200, &false.into(), false));
    for needs_it in [
        json!({"model": "tiny", "input": "hi", "background": true}),
        json!({"model": "tiny", "input": "hi", "conversation": "conv_1"}),
        json!({"model": "tiny", "input": "hi", "previous_response_id": "resp_1"}),
    ] {
        let refused = tokio::time::timeout(Duration::from_secs(30), post(needs_it)).await.unwrap();
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (503, &"store_unavailable".into())
        );
    }
}
