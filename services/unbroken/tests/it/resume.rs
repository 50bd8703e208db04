//! Clients that come back, over separate processes: whatever is cut or dies in between, they have each byte once.

use std::time::Duration;

use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    stream::{Events, completion, oracle, script},
};

const GAP: Duration = Duration::from_millis(1);
/// What every resumable stream begins with.
const RETRY: &str = "retry: 500\n";

fn body(prompt: &str, stream: bool) -> Value {
    json!({"model": "scripted", "stream": stream, "messages": [{"role": "user", "content": prompt}]})
}

/// A resumable completion, or the rest of it.
async fn ask(cluster: &Cluster, gateway: usize, body: &Value, last: Option<&str>) -> reqwest::Response {
    let mut request = reqwest::Client::new()
        .post(cluster.url(gateway, "/v1/chat/completions"))
        .header("X-Unbroken-Resume", "1");
    if let Some(last) = last {
        request = request.header("Last-Event-ID", last);
    }
    request.json(body).send().await.unwrap()
}

async fn keyed(cluster: &Cluster, gateway: usize, key: &str, body: &Value) -> reqwest::Response {
    reqwest::Client::new()
        .post(cluster.url(gateway, "/v1/chat/completions"))
        .header("Idempotency-Key", key)
        .json(body)
        .send()
        .await
        .unwrap()
}

fn id_of(event: &str) -> &str {
    event.lines().find_map(|line| line.strip_prefix("id: ")).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_after_any_event_the_rest_comes_from_any_gateway_to_the_byte() {
    let cluster = Cluster::start().await;
    let body = body(&script("cut", 8, GAP), true);
    let whole = ask(&cluster, 0, &body, None).await.text().await.unwrap();
    let events = whole.strip_prefix(RETRY).unwrap();
    let mut cut = 0;
    for (number, event) in events.split_inclusive("\n\n").enumerate() {
        cut += event.len();
        let rest = ask(&cluster, (number + 1) % 2, &body, Some(id_of(event))).await;
        if cut == events.len() {
            assert_eq!(rest.status(), 204);
        } else {
            assert_eq!(rest.text().await.unwrap(), format!("{RETRY}{}", &events[cut..]));
        }
    }
    assert!(cut == events.len() && events.ends_with("data: [DONE]\n\n"), "{events}");
    let unknown = ask(&cluster, 0, &body, Some("nobody.3")).await;
    assert_eq!(unknown.status(), 404);
}

/// Reads an answer through the death of `die`, which gets its name, and checks that nothing is lost, doubled or renamed.
async fn through_a_death(id: &str, die: impl AsyncFnOnce(&mut Cluster, &str)) {
    const TOKENS: usize = 150;
    let mut cluster = Cluster::start().await;
    let body = body(&script(id, TOKENS, GAP * 10), true);
    let mut events = Events::new(ask(&cluster, 0, &body, None).await);
    let mut read = Vec::new();
    while read.len() < 20 {
        read.push(events.next().await.unwrap());
    }
    let stream_id = read[0].id.clone().unwrap().split_once('.').unwrap().0.to_owned();
    die(&mut cluster, &stream_id).await;
    while let Some(event) = events.next().await {
        read.push(event);
    }
    if read.last().unwrap().data != "[DONE]" {
        let last = read.last().unwrap().id.clone().unwrap();
        read.extend(Events::new(ask(&cluster, 1, &body, Some(&last)).await).rest().await);
    }
    assert_eq!(completion(&read), (oracle(id, 0..TOKENS), true));
    let chunks = read.iter().filter_map(|event| serde_json::from_str::<Value>(&event.data).ok());
    let names: std::collections::BTreeSet<_> = chunks
        .map(|chunk| (chunk["id"].to_string(), chunk["created"].to_string()))
        .collect();
    assert_eq!(names.len(), 1, "one id and one time: {names:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_killed_costs_its_clients_nothing() {
    through_a_death("gw", async |cluster, _| cluster.0.gateways[0].kill().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_told_to_stop_sends_its_clients_to_another() {
    through_a_death("sent", async |cluster, _| cluster.stop_gateway(0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn after_its_router_was_killed_a_client_still_comes_back() {
    through_a_death("rt", async |cluster, stream_id| {
        let home = cluster.home(stream_id).await;
        cluster.0.gateways[0].kill().unwrap();
        cluster.0.routers[home].kill().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_key_at_two_gateways_at_once_is_one_answer_for_both() {
    let mut cluster = Cluster::start().await;
    let whole = body(&script("key", 40, GAP * 10), false);
    let (first, second) = tokio::join!(keyed(&cluster, 0, "k-1", &whole), keyed(&cluster, 1, "k-1", &whole));
    let (first, second): (Value, Value) = (first.json().await.unwrap(), second.json().await.unwrap());
    assert_eq!(first, second, "one answer, with one id");
    assert_eq!(first["choices"][0]["message"]["content"], oracle("key", 0..40));
    assert_eq!(cluster.answers().await.len(), 1);

    let reused = keyed(&cluster, 0, "k-1", &body("something else", false)).await;
    assert_eq!(reused.status(), 422);
    let reused: Value = reused.json().await.unwrap();
    assert_eq!(reused["error"]["code"], "idempotency_key_reused");

    // And the router that carried it gone, the worker still knows it, and whose it is.
    let stream_id = first["id"].as_str().unwrap().strip_prefix("chatcmpl-").unwrap().to_owned();
    let home = cluster.home(&stream_id).await;
    cluster.0.routers[home].kill().unwrap();
    let again: Value = keyed(&cluster, 1, "k-1", &whole).await.json().await.unwrap();
    assert_eq!(again, first);
    assert_eq!(keyed(&cluster, 0, "k-1", &body("something else", false)).await.status(), 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_retries_with_its_key_finds_its_answer_still_running() {
    let cluster = Cluster::start().await;
    let body = body(&script("retry", 100, GAP * 10), true);
    let mut events = Events::new(keyed(&cluster, 0, "k-2", &body).await);
    while events.next().await.unwrap().data.find("retry.5 ").is_none() {}
    drop(events);
    let again = Events::new(keyed(&cluster, 1, "k-2", &body).await).rest().await;
    assert_eq!(completion(&again), (oracle("retry", 0..100), true));
    assert_eq!(cluster.answers().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_came_back_can_end_the_answer() {
    let cluster = Cluster::start().await;
    let body = body(&script("end", 10_000, GAP * 20), true);
    let mut events = Events::new(ask(&cluster, 0, &body, None).await);
    let first = events.next().await.unwrap().id.unwrap();
    drop(events);
    let mut events = Events::new(ask(&cluster, 1, &body, Some(&first)).await);
    events.next().await.unwrap();
    let stream_id = first.split_once('.').unwrap().0;
    let cancelled: Value = reqwest::Client::new()
        .post(cluster.url(1, &format!("/v1/streams/{stream_id}/cancel")))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(cancelled["was_running"], true);
    let rest = events.rest().await;
    assert!(rest.last().unwrap().data.contains("\"code\":\"cancelled\""), "{rest:?}");
}
