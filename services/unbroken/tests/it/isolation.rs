//! Nobody sees or touches what is another's: every operation that the gateway describes in its own document, asked with one's own key,
//! with others', and with none. A new door is in the document, so it is in this test.

use std::time::Duration;

use futures_util::SinkExt as _;
use reqwest::{Method, RequestBuilder};
use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message, client::IntoClientRequest as _},
};

use crate::{
    identity::Guarded,
    stream::{eventually, message, script},
};

/// What everybody may read: it tells nothing of anybody. Whoever adds to this list has thought about it.
const EVERYBODYS: [&str; 6] = [
    "GET /",
    "GET /docs",
    "GET /health",
    "GET /metrics",
    "GET /openapi.json",
    "GET /ready",
];
/// What nobody made.
const NEVER: &str = "00000000000000000000000000000000";

/// Things of somebody's.
struct Things {
    conversation: String,
    /// An answer that runs, without a reader.
    stream: String,
    /// A key that is not used.
    key: String,
    /// A response that runs in the background.
    response: String,
    /// An item of the conversation.
    item: String,
}

impl Things {
    /// What never was.
    fn never() -> Self {
        Self {
            conversation: NEVER.to_owned(),
            stream: NEVER.to_owned(),
            key: NEVER.to_owned(),
            response: format!("resp_{NEVER}"),
            item: format!("msg_{NEVER}_0"),
        }
    }

    /// New ones, of whoever has this key, with this word all over them.
    async fn make(mesh: &Guarded, (key, model): (&str, &str), word: &str) -> Self {
        let made = mesh.post("/conversations", key, json!({"title": word})).await;
        let made: Value = made.json().await.unwrap();
        let conversation = made["id"].as_str().unwrap().to_owned();
        let said = json!({"message": script(word, 3, Duration::ZERO), "conversation_id": conversation});
        assert_eq!(mesh.post("/chat", key, said).await.status(), 200);
        let path = format!("/conversations/{conversation}/messages");
        eventually("the turn is stored", async || {
            let messages: Value = mesh.get(&path, key).await.json().await.unwrap();
            messages["data"][1]["state"] == "finished"
        })
        .await;
        let endless = script(word, 1_000_000, Duration::from_millis(5));
        let query = [("prompt", endless.as_str()), ("disconnect", "background")];
        let running = mesh
            .client
            .get(mesh.url("/stream"))
            .query(&query)
            .bearer_auth(key)
            .send()
            .await
            .unwrap();
        let stream = running.headers()["x-stream-id"].to_str().unwrap().to_owned();
        let spare = mesh.post("/v1/admin/keys", key, json!({"user": "spare", "name": word})).await;
        let spare: Value = spare.json().await.unwrap();
        let asked = json!({"model": model, "input": endless, "background": true, "store": true});
        let response: Value = mesh.post("/v1/responses", key, asked).await.json().await.unwrap();
        let items = mesh.get(&format!("/v1/conversations/conv_{conversation}/items"), key).await;
        let items: Value = items.json().await.unwrap();
        let id = |value: &Value| value["id"].as_str().unwrap_or_else(|| panic!("no id: {value}")).to_owned();
        Self {
            key: id(&spare),
            response: id(&response),
            item: id(&items["data"][0]),
            conversation,
            stream,
        }
    }

    /// All that whoever has this key sees of them.
    async fn seen(&self, mesh: &Guarded, key: &str) -> [Value; 3] {
        let id = &self.conversation;
        let mut seen = [Value::Null, Value::Null, Value::Null];
        for (seen, path) in seen.iter_mut().zip([
            format!("/conversations/{id}"),
            format!("/conversations/{id}/messages"),
            "/v1/admin/keys".to_owned(),
        ]) {
            *seen = mesh.get(&path, key).await.json().await.unwrap();
        }
        for key in seen[2]["data"].as_array_mut().unwrap() {
            key["last_used_at"] = Value::Null;
        }
        seen
    }

    async fn end(&self, mesh: &Guarded, key: &str) -> bool {
        mesh.post(&format!("/v1/responses/{}/cancel", self.response), key, json!({})).await;
        let ended = mesh.post(&format!("/v1/streams/{}/cancel", self.stream), key, json!({})).await;
        ended.json::<Value>().await.unwrap()["was_running"] == true
    }
}

/// Every operation of the document: its method and its path.
async fn operations(mesh: &Guarded) -> Vec<(Method, String)> {
    let document: Value = mesh
        .client
        .get(mesh.url("/openapi.json"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let paths = document["paths"].as_object().unwrap();
    let operation = |path: &String, method: &String| (method.to_uppercase().parse().unwrap(), path.clone());
    paths
        .iter()
        .flat_map(|(path, item)| item.as_object().unwrap().keys().map(move |method| operation(path, method)))
        .collect()
}

/// All the ways to ask this operation about these things: their names in the path, the query, a header and the body.
fn asked(mesh: &Guarded, (method, path): &(Method, String), things: &Things, model: &str) -> Vec<RequestBuilder> {
    let names = [
        things.conversation.clone(),
        format!("conv_{}", things.conversation),
        things.stream.clone(),
        things.key.clone(),
        things.response.clone(),
    ];
    let mut paths = vec![path.clone()];
    if path.contains("{id}") {
        let of = |name| path.replace("{id}", name).replace("{item}", &things.item);
        paths = names.iter().map(|name| of(name)).collect();
    }
    assert!(!paths[0].contains('{'), "{path}: teach this test what that is");
    let (conversation, stream) = (things.conversation.as_str(), things.stream.as_str());
    let last_event = format!("{stream}.0");
    let queries: [Vec<(&str, &str)>; 5] = [
        vec![("q", "x"), ("prompt", "x"), ("max_tokens", "2"), ("conversation_id", conversation)],
        vec![("stream_id", stream), ("offset", "1")],
        vec![("last_event_id", &last_event)],
        vec![("after", conversation)],
        vec![("stream", "true")],
    ];
    let body = json!({
        "model": model, "message": "x", "messages": [{"role": "user", "content": "x"}], "prompt": "x", "input": "x", "max_tokens": 2,
        "title": "x", "user": "x", "for": "stream", "stream_id": stream, "conversation_id": conversation, "conversation": format!("conv_{conversation}"),
        "previous_response_id": null, "items": [{"type": "message", "role": "user", "content": "x"}], "metadata": {},
    });
    let mut requests = Vec::new();
    for path in paths {
        let request = || {
            mesh.client
                .request(method.clone(), mesh.url(&path))
                .timeout(Duration::from_secs(20))
        };
        if *method == Method::GET {
            requests.extend(queries.iter().map(|query| request().query(query)));
            requests.push(request().header("last-event-id", &last_event));
        } else {
            requests.push(request().json(&body));
        }
    }
    requests
}

/// The status, and what came of the body within a moment: an answer that runs has no end.
async fn heard(request: RequestBuilder) -> (u16, String) {
    let mut response = request.send().await.unwrap();
    let status = response.status().as_u16();
    let mut body = String::new();
    let read = async {
        while let Ok(Some(chunk)) = response.chunk().await {
            body.push_str(&String::from_utf8_lossy(&chunk));
            if body.len() > 10_000 {
                break;
            }
        }
    };
    let _ = tokio::time::timeout(Duration::from_secs(2), read).await;
    (status, body)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_operation_hides_what_is_anothers_and_serves_what_is_ones_own() {
    let mesh = Guarded::start(&[]).await;
    let own = mesh.key(&["--user", "ann", "--tenant", "acme", "--role", "admin"]);
    let others = [
        // Her colleague, who may manage nothing, and the admin of another tenant who has her name.
        mesh.key(&["--user", "bob", "--tenant", "acme"]),
        mesh.key(&["--user", "ann", "--tenant", "other", "--role", "admin"]),
    ];
    let models: Value = mesh.get("/v1/models", &own).await.json().await.unwrap();
    let model = models["data"][0]["id"].as_str().unwrap();
    let operations = operations(&mesh).await;
    assert!(operations.len() > 20, "the document is there: {operations:?}");

    let mut open = Vec::new();
    for (number, operation) in operations.iter().enumerate() {
        let name = format!("{} {}", operation.0, operation.1);
        let word = format!("canary{number}");
        let things = Things::make(&mesh, (&own, model), &word).await;
        let before = things.seen(&mesh, &own).await;

        let mut refused = true;
        for request in asked(&mesh, operation, &things, model) {
            let (status, body) = heard(request).await;
            refused &= status == 401;
            assert!(!body.contains(&word), "{name} tells nobody of it: {body}");
        }
        if !refused {
            open.push(name);
            assert!(things.end(&mesh, &own).await);
            continue;
        }

        for other in &others {
            let never = asked(&mesh, operation, &Things::never(), model);
            for (real, unreal) in asked(&mesh, operation, &things, model).into_iter().zip(never) {
                let (status, body) = heard(real.bearer_auth(other)).await;
                assert!(!body.contains(&word), "{name} tells another of it: {body}");
                let (as_if, _) = heard(unreal.bearer_auth(other)).await;
                assert_eq!(status, as_if, "{name} must not tell that it is there: {body}");
            }
        }
        assert_eq!(things.seen(&mesh, &own).await, before, "{name} changed what is another's");

        if operation.1.contains('{') && !operation.1.starts_with("/v1/models") {
            let mut served = false;
            for request in asked(&mesh, operation, &things, model) {
                served |= heard(request.bearer_auth(&own)).await.0 < 300;
            }
            assert!(served, "{name} serves nothing of one's own: teach this test what its names are");
        }
        let ends_it = operation.1.starts_with("/v1/streams/");
        assert_eq!(
            things.end(&mesh, &own).await,
            !ends_it,
            "{name}: the answer ran until its owner ended it"
        );
    }
    open.sort();
    assert_eq!(open, EVERYBODYS);
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_goes_on_from_what_another_was_answered() {
    let mesh = Guarded::start(&[]).await;
    let own = mesh.key(&["--user", "ann", "--tenant", "acme", "--role", "admin"]);
    let others = [
        mesh.key(&["--user", "bob", "--tenant", "acme"]),
        mesh.key(&["--user", "ann", "--tenant", "other", "--role", "admin"]),
    ];
    let models: Value = mesh.get("/v1/models", &own).await.json().await.unwrap();
    let model = models["data"][0]["id"].as_str().unwrap();
    let say = |id: &str| json!([{"role": "user", "content": script(id, 3, Duration::ZERO)}]);
    let asked = json!({"model": model, "input": say("canary")});
    let made: Value = mesh.post("/v1/responses", &own, asked).await.json().await.unwrap();
    let id = |value: &Value| value.as_str().unwrap_or_else(|| panic!("no id: {made}")).to_owned();
    let (response, said) = (id(&made["id"]), id(&made["output"][0]["id"]));
    let of_input = format!("/v1/responses/{response}/input_items");
    let mut items = Value::Null;
    eventually("the response is kept", async || {
        items = mesh.get(&of_input, &own).await.json().await.unwrap();
        items["data"][0]["id"].is_string()
    })
    .await;
    let asked_for = id(&items["data"][0]["id"]);

    let ways = |response: &str, items: [&str; 2]| {
        let referring = items.map(|item| {
            let mut input = say("x");
            input
                .as_array_mut()
                .unwrap()
                .insert(0, json!({"type": "item_reference", "id": item}));
            json!({"model": model, "input": input})
        });
        let [first, second] = referring;
        [
            json!({"model": model, "input": say("x"), "previous_response_id": response}),
            first,
            second,
        ]
    };
    let never = Things::never();
    for path in ["/v1/responses", "/v1/responses/input_tokens"] {
        let unreal = ways(&never.response, [&never.item, &never.item]);
        for (real, unreal) in ways(&response, [&said, &asked_for]).into_iter().zip(unreal) {
            let ask = |key: &str, body: &Value| heard(mesh.client.post(mesh.url(path)).bearer_auth(key).json(body));
            for other in &others {
                let (status, told) = ask(other, &real).await;
                let (as_if, _) = ask(other, &unreal).await;
                assert!(status == as_if && (400..500).contains(&status), "{path} {real}: {status}, {as_if}");
                assert!(!told.contains("canary"), "{path} {real} tells another of it: {told}");
            }
            assert_eq!(ask(&own, &real).await.0, 200, "{path} {real}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_hides_what_is_anothers() {
    let mesh = Guarded::start(&[]).await;
    let own = mesh.key(&["--user", "ann", "--tenant", "acme", "--role", "admin"]);
    let other = mesh.key(&["--user", "bob", "--tenant", "acme"]);
    let models: Value = mesh.get("/v1/models", &own).await.json().await.unwrap();
    let model = models["data"][0]["id"].as_str().unwrap();
    let things = Things::make(&mesh, (&own, model), "canary").await;
    let says = async |key: &str, what: Value| {
        let mut request = format!("ws://{}/ws/chat", mesh.mesh.http).into_client_request().unwrap();
        request
            .headers_mut()
            .insert("authorization", format!("Bearer {key}").parse().unwrap());
        let (mut socket, _) = connect_async(request).await.unwrap();
        socket.send(Message::text(what.to_string())).await.unwrap();
        message(&mut socket).await
    };
    let resume = json!({"type": "resume", "stream_id": things.stream, "after": -1});
    let chat = json!({"prompt": script("x", 1, Duration::ZERO), "conversation_id": things.conversation});
    for what in [&resume, &chat] {
        let refused = says(&other, what.clone()).await;
        assert_eq!(
            (&refused["type"], &refused["error"]["code"]),
            (&json!("error"), &json!("not_found")),
            "{refused}"
        );
        assert_eq!(says(&own, what.clone()).await["type"], "token");
    }
    assert!(things.end(&mesh, &own).await);
}
