//! Several prompts in one request: they pass together or not at all, and are paid for together.

use super::*;

const PATH: &str = "/v1/completions";
const THREE: &str = r#"{"prompt":["a","b","c"],"max_tokens":10}"#;
/// The estimate of each, and its bound.
const EACH: u64 = 24 + 1 + 10;

async fn complete(gateway: &Gateway) -> Whole {
    client::post(gateway.address, PATH, THREE).await.whole().await
}

#[tokio::test]
async fn several_prompts_are_one_request_and_one_answer_at_once() {
    let router = Router::start();
    let gateway = limited(&router, "free=2/500/1").await;
    let asking = async {
        let response = complete(&gateway).await;
        assert_eq!((response.status, response.json()["choices"].as_array().unwrap().len()), (200, 3));
        assert_eq!(response.header("x-ratelimit-remaining-requests"), Some("1"));
        assert_eq!(remaining(&response), 500 - 3 * EACH);
        assert_eq!(remaining(&ask(&gateway).await), 500 - 3 * 7 - MAY_TAKE, "all three are paid for");
        assert_eq!(ask(&gateway).await.json()["error"]["code"], "rate_limit_exceeded");
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn of_prompts_that_cannot_all_pass_none_is_begun() {
    let router = Router::start();
    let gateway = limited(&router, "free=0/110/0").await;
    let (first, _) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi&max_tokens=5"), router.say(whole()));
    assert_eq!(first.status, 200);
    let refused = complete(&gateway).await;
    assert_eq!((refused.status, remaining(&refused)), (429, 110 - 7));
    let two = r#"{"prompt":["a","b"],"max_tokens":10}"#;
    let (response, prompts) = tokio::join!(async { client::post(gateway.address, PATH, two).await.whole().await }, async {
        [router.say(whole()).await.prompt, router.say(whole()).await.prompt]
    });
    assert_eq!(
        (response.status, prompts),
        (200, ["a".to_owned(), "b".to_owned()]),
        "nothing came before"
    );
    assert_eq!(remaining(&response), 110 - 7 - 2 * EACH);
}

#[tokio::test]
async fn a_prompt_that_a_router_refuses_costs_nothing_and_the_others_what_they_took() {
    let log = Log::start().await;
    let router = Router::start();
    let settings = ["--limits", "on", "--tiers", "free=0/500/1", "--gateway-store", &log.address];
    let gateway = Gateway::with(&[&router], &settings).await;
    let playing = async {
        let mut asked = Vec::new();
        for _ in 0..3 {
            asked.push(router.started().await);
        }
        asked[0].0.admit(&asked[0].1.stream_id).await;
        asked[1].0.refuse(Failure::new(Reason::QueueFull, "no")).await;
        asked
    };
    let (refused, asked) = tokio::join!(complete(&gateway), playing);
    assert_eq!(refused.status, 503);
    let refused = client::get(gateway.address, "/stream?prompt=hi").await;
    assert_eq!(
        refused.json()["error"]["code"],
        "too_many_streams",
        "two of them were asked for, and nobody has seen their end"
    );
    for (index, tokens) in [(0, 20), (2, 0)] {
        log.finish(ended(&asked[index].1, tokens)).await;
    }
    assert_eq!(
        left_when_free(&gateway, &router, "/stream?prompt=hi&max_tokens=100").await,
        500 - 20 - (24 + 1 + 100)
    );
}

#[tokio::test]
async fn a_client_that_goes_pays_for_all_its_prompts_once() {
    let log = Log::start().await;
    let router = Router::start();
    let settings = ["--limits", "on", "--tiers", "free=0/500/1", "--gateway-store", &log.address];
    let gateway = Gateway::with(&[&router], &settings).await;
    let mut asked = Vec::new();
    {
        let asking = std::pin::pin!(complete(&gateway));
        let playing = async {
            for _ in 0..3 {
                asked.push(begun(&router).await);
            }
        };
        tokio::select! { _ = asking => unreachable!(), () = playing => {} }
    }
    for (tokens, (_, request)) in (10..).zip(&asked) {
        let name = &asked[0].1.stream_id;
        assert!(request.stream_id.starts_with(name.as_str()), "{name}");
        let refused = client::get(gateway.address, "/stream?prompt=hi").await;
        assert_eq!(refused.json()["error"]["code"], "too_many_streams", "until all are known of");
        log.finish(ended(request, tokens)).await;
    }
    assert_eq!(
        left_when_free(&gateway, &router, "/stream?prompt=hi&max_tokens=100").await,
        500 - (10 + 11 + 12) - (24 + 1 + 100)
    );
}

fn ended(request: &ChatRequest, prompt_tokens: u32) -> FinishedTurn {
    FinishedTurn {
        principal: request.principal.clone(),
        stream_id: request.stream_id.clone(),
        request_id: request.request_id.clone(),
        state: "cancelled".to_owned(),
        usage: Some(Usage {
            prompt_tokens,
            ..Usage::default()
        }),
        ..FinishedTurn::default()
    }
}
