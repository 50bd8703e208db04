//! Replay from any position gives the bytes that an uninterrupted reader has from there.

use std::sync::LazyLock;

use proptest::prelude::*;
use proto::v1::{Entry, FinishReason};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished},
};

static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| tokio::runtime::Runtime::new().unwrap());

async fn resumed_is_the_rest(path: &str, resume: impl Fn(&str, usize) -> String, words: Vec<String>) {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut entries: Vec<Entry> = words.iter().map(|word| Entry::text(word, 1)).collect();
    entries.push(finished(FinishReason::Stop, 1));
    let (whole, request) = tokio::join!(client::get(gateway.address, path), router.say(entries.clone()));
    for position in 1..entries.len() {
        let again = resume(&request.stream_id, position);
        let play = async {
            let (received, asked) = router.attached().await;
            assert_eq!(
                (asked.stream_id.as_str(), asked.position as usize),
                (request.stream_id.as_str(), position)
            );
            received.admit(&request.stream_id).await;
            received.entries(asked.position, entries[position..].to_vec()).await;
        };
        let (rest, ()) = tokio::join!(client::get(gateway.address, &again), play);
        let rest_of = rest.body.strip_prefix("retry: 500\n").unwrap_or(&rest.body);
        assert!(
            !rest_of.is_empty() && whole.body.ends_with(rest_of),
            "{position}: {:?} is not the end of {:?}",
            rest.body,
            whole.body
        );
        if path.starts_with("/stream") {
            let events = whole.body.matches("data: ").count() - rest.body.matches("data: ").count();
            assert_eq!(events, position, "offset counts events");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(6))]

    #[test]
    fn the_token_door_replays_the_same_bytes(words in proptest::collection::vec("(?s).{0,4}", 1..5)) {
        let resume = |id: &str, position: usize| format!("/stream?offset={position}&stream_id={id}");
        RUNTIME.block_on(resumed_is_the_rest("/stream?prompt=hi", resume, words));
    }

    #[test]
    fn the_event_door_replays_the_same_bytes(words in proptest::collection::vec("(?s).{0,4}", 1..5)) {
        let resume = |id: &str, position: usize| format!("/v1/chat/stream?last_event_id={id}.{}", position - 1);
        RUNTIME.block_on(resumed_is_the_rest("/v1/chat/stream?q=hi", resume, words));
    }
}

#[tokio::test]
async fn after_the_last_event_there_is_nothing() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, _) = router.attached().await;
        received
            .send(proto::v1::ChatResponse {
                head: Some(Box::new(crate::router::head("abc"))),
                done: Some(true),
                ..Default::default()
            })
            .await;
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/v1/chat/stream?last_event_id=abc.7"), play);
    assert_eq!((response.status, response.body.as_str()), (204, ""));
}

#[tokio::test]
async fn an_offset_without_the_answers_name_is_refused() {
    let gateway = Gateway::before(&[]).await;
    let response = client::get(gateway.address, "/stream?prompt=hi&offset=3").await;
    assert_eq!((response.status, &response.json()["error"]["param"]), (400, &"stream_id".into()));
}
