//! Clients and routers that go.

use proto::v1::{Failure, FinishReason, Reason};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished, texts},
};

#[tokio::test]
async fn a_client_that_goes_in_mid_answer_is_told_to_the_router_at_once() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["Hello"])).await;
        received.call
    };
    let (mut response, call) = tokio::join!(client::open(gateway.address, "/stream?prompt=hi"), play);
    assert_eq!(response.chunk().await.as_deref(), Some("data: {\"token\":\"Hello\"}\n\n"));
    drop(response);
    let gone = router.next().await;
    assert!(gone.is_detach(false) && gone.call == call);
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_for_a_slot_is_told_to_the_router_too() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let waiting = tokio::spawn(client::open(gateway.address, "/stream?prompt=hi"));
    let (received, _) = router.started().await;
    waiting.abort();
    let gone = router.next().await;
    assert!(gone.is_detach(false) && gone.call == received.call);
}

#[tokio::test]
async fn an_exchange_that_breaks_costs_the_client_nothing() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a", "b"])).await;
        received.break_exchange().await;
        let (again, asked) = router.attached().await;
        assert_eq!(asked.stream_id, request.stream_id);
        assert!(asked.position <= 2, "what came before the break counts if the client's side had it");
        again.admit(&request.stream_id).await;
        let mut entries = texts(&["a", "b", "c"]);
        entries.push(finished(FinishReason::Stop, 3));
        again.entries(asked.position, entries.split_off(asked.position as usize)).await;
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), play);
    assert_eq!(
        response.body,
        "data: {\"token\":\"a\"}\n\ndata: {\"token\":\"b\"}\n\ndata: {\"token\":\"c\"}\n\ndata: [DONE]\n\n"
    );
}

#[tokio::test]
async fn when_a_router_dies_the_next_in_rank_goes_on() {
    let mut routers = [Router::start(), Router::start()];
    let gateway = Gateway::before(&[&routers[0], &routers[1]]).await;
    let client_has_it = tokio::sync::Notify::new();
    let play = async {
        let (home, (received, request)) = tokio::select! {
            started = routers[0].started() => (0, started),
            started = routers[1].started() => (1, started),
        };
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        drop(received);
        client_has_it.notified().await;
        routers[home].die();
        let (again, asked) = routers[1 - home].attached().await;
        assert_eq!(asked.stream_id, request.stream_id);
        again.admit(&request.stream_id).await;
        let mut entries = texts(&["a", "b"]);
        entries.push(finished(FinishReason::Stop, 2));
        again.entries(asked.position, entries.split_off(asked.position as usize)).await;
    };
    let read = async {
        let mut response = client::open(gateway.address, "/stream?prompt=hi").await;
        assert_eq!(response.chunk().await.as_deref(), Some("data: {\"token\":\"a\"}\n\n"));
        client_has_it.notify_one();
        response.rest().await
    };
    let (rest, ()) = tokio::join!(read, play);
    assert_eq!(rest, "data: {\"token\":\"b\"}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn an_answer_that_no_router_knows_any_more_ends_with_a_typed_error() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        received.break_exchange().await;
        loop {
            let (again, _) = router.attached().await;
            again.refuse(Failure::new(Reason::NotFound, "no such answer")).await;
        }
    };
    let response = tokio::select! {
        response = client::get(gateway.address, "/stream?prompt=hi") => response,
        () = play => unreachable!(),
    };
    assert!(
        response.body.contains("\"code\":\"interrupted\"") && !response.body.contains("[DONE]"),
        "{}",
        response.body
    );
}

#[tokio::test]
async fn a_draining_router_is_passed_by_while_nothing_has_begun() {
    let routers = [Router::start(), Router::start()];
    let gateway = Gateway::before(&[&routers[0], &routers[1]]).await;
    let play = async {
        let (home, (received, first)) = tokio::select! {
            started = routers[0].started() => (0, started),
            started = routers[1].started() => (1, started),
        };
        received.refuse(Failure::new(Reason::Draining, "stopping")).await;
        let second = routers[1 - home].say(vec![finished(FinishReason::Stop, 0)]).await;
        assert_eq!(first, second, "the same request under the same name");
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), play);
    assert_eq!(response.body, "data: [DONE]\n\n");
}

#[tokio::test]
async fn without_a_router_the_answer_is_503_at_once() {
    let gateway = Gateway::before(&[]).await;
    let response = client::get(gateway.address, "/stream?prompt=hi").await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (503, &"unavailable".into()));
    assert!(response.header("retry-after").is_some());
}

#[tokio::test]
async fn a_name_stands_for_all_its_addresses() {
    let router = Router::start();
    let name = format!("dns:///localhost:{}", router.address.port());
    let gateway = Gateway::with(&[], &["--routers", &name]).await;
    router.connected().await;
    while client::get(gateway.address, "/ready").await.status != 200 {
        tokio::task::yield_now().await;
    }
    let (response, _) = tokio::join!(
        client::get(gateway.address, "/stream?prompt=hi"),
        router.say(vec![finished(FinishReason::Stop, 0)])
    );
    assert_eq!(response.body, "data: [DONE]\n\n");
}

#[tokio::test]
async fn the_readers_of_a_router_that_stops_go_on_at_another_and_it_is_told_that_they_are_not_gone() {
    let routers = [Router::start(), Router::start()];
    let gateway = Gateway::before(&[&routers[0], &routers[1]]).await;
    let client_has_it = tokio::sync::Notify::new();
    let play = async {
        let (home, (received, request)) = tokio::select! {
            started = routers[0].started() => (0, started),
            started = routers[1].started() => (1, started),
        };
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        client_has_it.notified().await;
        routers[home].status.send_modify(|status| status.draining = true);
        assert!(routers[home].next().await.is_detach(true), "the reader comes back, if not here");
        let (again, asked) = routers[1 - home].attached().await;
        assert_eq!((asked.stream_id.as_str(), asked.position), (request.stream_id.as_str(), 1));
        again.admit(&request.stream_id).await;
        again.entries(1, texts(&["b"])).await;
        // And the one that is there now may leave it to another in its turn.
        again
            .entries(2, vec![proto::v1::Entry::failed(Failure::new(Reason::Moved, "elsewhere"))])
            .await;
        let attached_again = async {
            tokio::select! {
                attached = routers[0].attached() => attached,
                attached = routers[1].attached() => attached,
            }
        };
        let (third, asked) = attached_again.await;
        assert_eq!(asked.position, 2);
        third.admit(&request.stream_id).await;
        third.entries(2, vec![finished(FinishReason::Stop, 2)]).await;
    };
    let read = async {
        let mut response = client::open(gateway.address, "/stream?prompt=hi").await;
        assert_eq!(response.chunk().await.as_deref(), Some("data: {\"token\":\"a\"}\n\n"));
        client_has_it.notify_one();
        response.rest().await
    };
    let (rest, ()) = tokio::join!(read, play);
    assert_eq!(rest, "data: {\"token\":\"b\"}\n\ndata: [DONE]\n\n");
}

#[tokio::test]
async fn a_router_that_stops_alone_finishes_what_is_read_from_it() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        router.status.send_modify(|status| status.draining = true);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await; // a few looks
        received.entries(1, texts(&["b"])).await;
        received.entries(2, vec![finished(FinishReason::Stop, 2)]).await;
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), play);
    assert!(
        response.body.ends_with("data: {\"token\":\"b\"}\n\ndata: [DONE]\n\n"),
        "{}",
        response.body
    );
}
