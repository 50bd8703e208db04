//! Responses, over separate processes: whatever is cut or dies in between, their events come each once and to the byte, at any gateway.

use std::{process::Command, time::Duration};

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::{
    cluster::Cluster,
    doors::tool,
    processes::AllInOne,
    stream::{Event, Events, eventually, oracle, script},
};

const GAP: Duration = Duration::from_millis(10);

async fn create(cluster: &Cluster, gateway: usize, body: &Value) -> reqwest::Response {
    let request = reqwest::Client::new().post(cluster.url(gateway, "/v1/responses"));
    request.json(body).send().await.unwrap()
}

async fn read(cluster: &Cluster, gateway: usize, id: &str, query: &str) -> reqwest::Response {
    reqwest::get(cluster.url(gateway, &format!("/v1/responses/{id}{query}")))
        .await
        .unwrap()
}

async fn shown(cluster: &Cluster, gateway: usize, id: &str) -> Value {
    read(cluster, gateway, id, "").await.json().await.unwrap()
}

fn body(prompt: &str) -> Value {
    json!({"model": "scripted", "stream": true, "input": prompt})
}

fn data(event: &Event) -> Value {
    serde_json::from_str(&event.data).unwrap()
}

fn id_of(event: &Event) -> String {
    data(event)["response"]["id"].as_str().unwrap().to_owned()
}

/// The text of a stream of events, whose numbers must be dense, and how it ended.
fn text(events: &[Event]) -> (String, String) {
    let (mut said, mut last) = (String::new(), String::new());
    for (number, event) in events.iter().enumerate() {
        if event.data == "[DONE]" {
            assert_eq!(number + 1, events.len(), "nothing comes after the end");
            return (said, format!("{last} [DONE]"));
        }
        let data = data(event);
        assert_eq!(data["sequence_number"], number, "{data}");
        assert_eq!(event.name.as_deref(), data["type"].as_str());
        data["type"].as_str().unwrap().clone_into(&mut last);
        if last == "response.output_text.delta" {
            said.push_str(data["delta"].as_str().unwrap());
        }
    }
    (said, last)
}

#[tokio::test(flavor = "multi_thread")]
async fn cut_after_any_event_the_rest_of_a_response_comes_from_any_gateway_to_the_byte() {
    let cluster = Cluster::start().await;
    let whole = create(&cluster, 0, &body(&script("cut", 8, Duration::from_millis(1))))
        .await
        .text()
        .await
        .unwrap();
    let first: Value = serde_json::from_str(whole.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let id = first["response"]["id"].as_str().unwrap();
    let mut rest = whole.as_str();
    for (number, event) in whole.split_inclusive("\n\n").enumerate() {
        if event == "data: [DONE]\n\n" {
            break;
        }
        rest = &rest[event.len()..];
        let query = format!("?stream=true&starting_after={number}");
        assert_eq!(read(&cluster, (number + 1) % 2, id, &query).await.text().await.unwrap(), rest);
    }
    assert_eq!(rest, "data: [DONE]\n\n");
}

/// Reads a response through the death of `die`, which gets the answer's name, and checks that each event comes once, and that the whole
/// is the same to whoever reads it from its beginning then.
async fn through_a_death(name: &str, background: bool, die: impl AsyncFnOnce(&mut Cluster, &str)) {
    const TOKENS: usize = 150;
    let mut cluster = Cluster::with_workers(2).await;
    let mut body = body(&script(name, TOKENS, GAP));
    body["background"] = background.into();
    let mut events = Events::new(create(&cluster, 0, &body).await);
    let mut read_so_far = Vec::new();
    while read_so_far.len() < 30 {
        read_so_far.push(events.next().await.unwrap());
    }
    let id = id_of(&read_so_far[0]);
    die(&mut cluster, id.strip_prefix("resp_").unwrap()).await;
    while let Some(event) = events.next().await {
        read_so_far.push(event);
    }
    if read_so_far.last().unwrap().data != "[DONE]" {
        let query = format!("?stream=true&starting_after={}", read_so_far.len() - 1);
        read_so_far.extend(Events::new(read(&cluster, 1, &id, &query).await).rest().await);
    }
    assert_eq!(
        text(&read_so_far),
        (oracle(name, 0..TOKENS), "response.completed [DONE]".to_owned())
    );
    let again = Events::new(read(&cluster, 1, &id, "?stream=true").await).rest().await;
    assert_eq!(again, read_so_far, "the same to whoever reads it then");
    let response = shown(&cluster, 1, &id).await;
    assert_eq!(response, data(&read_so_far[read_so_far.len() - 2])["response"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_goes_on_when_its_worker_is_killed() {
    through_a_death("wk", false, async |cluster, _| {
        let writer = cluster.0.writer().await.unwrap();
        cluster.0.workers[writer].kill().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_goes_on_when_its_worker_is_killed() {
    through_a_death("bw", true, async |cluster, _| {
        let writer = cluster.0.writer().await.unwrap();
        cluster.0.workers[writer].kill().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_goes_on_when_its_gateway_is_killed() {
    through_a_death("gw", false, async |cluster, _| cluster.0.gateways[0].kill().unwrap()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_goes_on_when_its_router_and_its_gateway_are_killed() {
    through_a_death("rt", false, async |cluster, stream_id| {
        let home = cluster.home(stream_id).await;
        cluster.0.gateways[0].kill().unwrap();
        cluster.0.routers[home].kill().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_goes_on_when_its_router_is_killed() {
    through_a_death("bg", true, async |cluster, stream_id| {
        let home = cluster.home(stream_id).await;
        cluster.0.routers[home].kill().unwrap();
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_that_has_ended_is_the_same_when_all_who_made_it_are_gone() {
    let mut mesh = AllInOne::scripted().await;
    let url = |mesh: &AllInOne, path: &str| format!("http://{}/v1/responses{path}", mesh.http);
    let post = reqwest::Client::new()
        .post(url(&mesh, ""))
        .json(&body(&script("kept", 20, Duration::from_millis(1))));
    let whole = post.send().await.unwrap().text().await.unwrap();
    let first: Value = serde_json::from_str(whole.lines().nth(1).unwrap().strip_prefix("data: ").unwrap()).unwrap();
    let id = first["response"]["id"].as_str().unwrap().to_owned();
    let shown = reqwest::get(url(&mesh, &format!("/{id}"))).await.unwrap().text().await.unwrap();
    mesh.process.signal(Signal::SIGTERM).unwrap();
    mesh.process.ended(Duration::from_secs(30)).await.unwrap();
    mesh.process.restart().unwrap();
    mesh.process.ready(mesh.http.parse().unwrap(), "/ready").await.unwrap();
    let again = reqwest::get(url(&mesh, &format!("/{id}?stream=true")))
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert_eq!(again, whole);
    assert_eq!(
        reqwest::get(url(&mesh, &format!("/{id}"))).await.unwrap().text().await.unwrap(),
        shown
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tokens_of_an_input_are_counted_as_an_answer_to_it_counts_them() {
    let mesh = AllInOne::scripted().await;
    let post = async |path: &str, body: Value| -> Value {
        let request = reqwest::Client::new().post(format!("http://{}/v1{path}", mesh.http)).json(&body);
        request.send().await.unwrap().json().await.unwrap()
    };
    let conversation = post("/conversations", json!({})).await["id"].clone();
    let mut previous = Value::Null;
    // The first begins, the next goes on from it, the last two are the turns of a conversation.
    for turn in ["first", "previous", "conversation", "conversation"] {
        let mut body = json!({"model": "scripted", "input": [{"role": "user", "content": "one two three"}], "instructions": "Be brief."});
        match turn {
            "previous" => body["previous_response_id"] = previous["id"].clone(),
            "conversation" => body["conversation"] = conversation.clone(),
            _ => {}
        }
        let counted = post("/responses/input_tokens", body.clone()).await;
        body["max_output_tokens"] = 5.into();
        let response = post("/responses", body).await;
        let told = json!({"object": "response.input_tokens", "input_tokens": response["usage"]["input_tokens"]});
        assert_eq!(counted, told, "{turn}: {response}");
        if turn == "previous" {
            assert!(response["usage"]["input_tokens"].as_u64() > previous["usage"]["input_tokens"].as_u64());
        }
        previous = response;
    }
    let nobody = post(
        "/responses/input_tokens",
        json!({"model": "scripted", "input": "hi", "conversation": "conv_none"}),
    )
    .await;
    assert_eq!(nobody["error"]["code"], "not_found", "{nobody}");
    let compacted = post("/responses/compact", json!({"model": "scripted", "input": "hi"})).await;
    assert_eq!(compacted["error"]["code"], "not_found", "{compacted}");
}

#[tokio::test(flavor = "multi_thread")]
async fn log_probabilities_come_with_the_text_and_leave_thoughts_and_calls_whole() {
    let mesh = AllInOne::scripted().await;
    let ask = async |mut body: Value| -> Value {
        body["model"] = "scripted".into();
        body["top_logprobs"] = 1.into();
        let request = reqwest::Client::new()
            .post(format!("http://{}/v1/responses", mesh.http))
            .json(&body);
        request.send().await.unwrap().json().await.unwrap()
    };
    let thought = ask(json!({"input": "[[script id=a tokens=9 reasoning=3 gap_us=0 ttft_us=0]]"})).await;
    let kinds: Vec<_> = thought["output"]
        .as_array()
        .unwrap()
        .iter()
        .map(|item| item["type"].as_str().unwrap())
        .collect();
    assert_eq!(kinds, ["reasoning", "message"], "{thought}");
    assert_eq!(thought["output"][1]["content"][0]["logprobs"].as_array().unwrap().len(), 6);
    let tools = json!([{"type": "function", "name": "look", "parameters": {"type": "object"}}]);
    let called = ask(json!({"input": "[[script id=a tokens=9 gap_us=0 ttft_us=0]]", "tools": tools, "tool_choice": "required"})).await;
    assert_eq!(called["output"].as_array().unwrap().len(), 1, "{called}");
    let arguments = called["output"][0]["arguments"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(arguments).unwrap().is_object(), "{called}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_needs_no_input_where_there_is_something_to_answer() {
    let mesh = AllInOne::scripted().await;
    let post = async |path: &str, body: Value| -> (u16, Value) {
        let request = reqwest::Client::new().post(format!("http://{}/v1{path}", mesh.http)).json(&body);
        let response = request.send().await.unwrap();
        (response.status().as_u16(), response.json().await.unwrap())
    };
    let asked = json!([{"type": "message", "role": "user", "content": "[[script id=mine tokens=3 gap_us=0 ttft_us=0]]"}]);
    let (_, conversation) = post("/conversations", json!({"items": asked})).await;
    let (status, answered) = post("/responses", json!({"model": "scripted", "conversation": conversation["id"]})).await;
    assert_eq!(status, 200, "{answered}");
    assert!(
        answered["output"][0]["content"][0]["text"].as_str().unwrap().starts_with("mine.0"),
        "{answered}"
    );
    let (status, on) = post("/responses", json!({"model": "scripted", "previous_response_id": answered["id"]})).await;
    assert_eq!((status, on["status"].as_str()), (200, Some("completed")), "{on}");
    let (_, empty) = post("/conversations", json!({})).await;
    let (status, refused) = post("/responses", json!({"model": "scripted", "conversation": empty["id"]})).await;
    assert_eq!(
        (status, refused["error"]["code"].as_str()),
        (400, Some("invalid_request")),
        "{refused}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_background_response_is_polled_through_the_death_of_everything() {
    const TOKENS: usize = 300;
    let mut mesh = AllInOne::start(&[("UNBROKEN_ENGINE", "scripted"), ("UNBROKEN_LEASE", "3s")]).await;
    let client = reqwest::Client::new();
    let url = format!("http://{}/v1/responses", mesh.http);
    let body = json!({"model": "scripted", "background": true, "input": script("poll", TOKENS, Duration::from_millis(20))});
    let made: Value = client.post(&url).json(&body).send().await.unwrap().json().await.unwrap();
    let url = format!("{url}/{}", made["id"].as_str().unwrap());
    let poll = async || -> Value { client.get(&url).send().await.unwrap().json().await.unwrap() };
    eventually("half of it was said", async || {
        poll().await["output"][0]["content"][0]["text"]
            .as_str()
            .is_some_and(|text| text.contains("poll.150 "))
    })
    .await;
    mesh.process.restart().unwrap(); // which kills it first
    mesh.process.ready(mesh.http.parse().unwrap(), "/ready").await.unwrap();
    eventually("it has ended", async || poll().await["status"] == "completed").await;
    let response = poll().await;
    assert_eq!(response["output"][0]["content"][0]["text"], oracle("poll", 0..TOKENS));
    assert_eq!(response["usage"]["output_tokens"], TOKENS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_whose_makers_died_together_has_failed_with_what_was_saved() {
    let mut mesh = AllInOne::start(&[("UNBROKEN_ENGINE", "scripted"), ("UNBROKEN_LEASE", "3s")]).await;
    let url = format!("http://{}/v1/responses", mesh.http);
    let body = body(&script("lost", 10_000, Duration::from_millis(20)));
    let mut events = Events::new(reqwest::Client::new().post(&url).json(&body).send().await.unwrap());
    let id = id_of(&events.next().await.unwrap());
    while !events.next().await.unwrap().data.contains("lost.150 ") {}
    mesh.process.restart().unwrap();
    mesh.process.ready(mesh.http.parse().unwrap(), "/ready").await.unwrap();
    let poll = async || -> Value { reqwest::get(format!("{url}/{id}")).await.unwrap().json().await.unwrap() };
    eventually("it is known to be lost", async || poll().await["status"] == "failed").await;
    let response = poll().await;
    assert!(
        response["output"][0]["content"][0]["text"]
            .as_str()
            .unwrap()
            .starts_with(&oracle("lost", 0..60)),
        "{response}"
    );
    assert_eq!(response["error"]["code"], "server_error");
    let stream = reqwest::get(format!("{url}/{id}?stream=true")).await.unwrap().text().await.unwrap();
    assert!(stream.contains("event: response.failed") && !stream.contains("[DONE]"), "{stream}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_has_its_responses_and_conversations() {
    let mesh = AllInOne::scripted().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/responses_sdk.py");
    let address = format!("http://{}/v1", mesh.http);
    let output = Command::new(tool("python3")).arg(script).arg(address).output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}
