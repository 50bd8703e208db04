//! What opens a door is written nowhere.

use std::process::Command;

use serde_json::{Value, json};

use super::{Guarded, provider::Provider};
use crate::processes::executable;

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_a_door_is_written_nowhere() {
    let provider = Provider::new();
    let jwks = provider.folder.path().join("jwks.json").display().to_string();
    let secret = "a-key-secret-of-thirty-two-characters-and-more";
    let mesh = Guarded::start(&[
        (
            "UNBROKEN_LOG",
            "debug,gateway=trace,router=trace,engine_worker=trace,conversation_store=trace,chassis=trace",
        ),
        ("UNBROKEN_KEY_SECRET", secret),
        ("UNBROKEN_JWT_JWKS", &jwks),
        ("UNBROKEN_JWT_ISSUER", "i"),
        ("UNBROKEN_JWT_AUDIENCE", "a"),
    ])
    .await;
    let output = Command::new(executable("unbroken"))
        .args([
            "keys",
            "create",
            "--quiet",
            "--user",
            "ann",
            "--role",
            "admin",
            "--store",
            &mesh.store,
        ])
        .env("UNBROKEN_KEY_SECRET", secret)
        .output()
        .unwrap();
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let made: Value = mesh
        .post("/v1/admin/keys", &key, json!({"user": "bob"}))
        .await
        .json()
        .await
        .unwrap();
    let bob = made["key"].as_str().unwrap().to_owned();
    let jwt = provider.token(
        &json!({"alg": "EdDSA", "kid": "one"}),
        &json!({"iss": "i", "aud": "b", "exp": 1, "sub": "ann"}),
    );
    let ticket = mesh.ticket(&key, json!({})).await["protocols"][1].as_str().unwrap().to_owned();
    let stream_token = mesh.ticket(&key, json!({"for": "stream", "stream_id": "s"})).await["stream_token"]
        .as_str()
        .unwrap()
        .to_owned();

    let mut bodies = String::new();
    let mut hear = async |request: reqwest::RequestBuilder| bodies.push_str(&request.send().await.unwrap().text().await.unwrap());
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("Bearer {bob}x")),
        ("authorization", format!("Bearer {jwt}")),
        ("x-api-key", key.clone()),
        ("authorization", format!("Basic {key}")),
    ] {
        for path in ["/chat", "/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/tickets"] {
            hear(mesh.client.post(mesh.url(path)).header(name, &value).body("{")).await;
        }
        hear(mesh.client.get(mesh.url("/conversations/none")).header(name, &value)).await;
    }
    for query in [
        format!("api_key={key}"),
        format!("access_token={jwt}"),
        format!("q={bob}"),
        format!("stream_token={stream_token}"),
        format!("stream_token={stream_token}x"),
    ] {
        hear(mesh.client.get(mesh.url(&format!("/v1/chat/stream?q=x&{query}")))).await;
    }
    hear(mesh.client.get(mesh.url("/ws/chat")).header("sec-websocket-protocol", &ticket)).await;
    hear(mesh.client.get(mesh.url("/metrics"))).await;
    hear(mesh.client.get(mesh.url("/health"))).await;

    let log = mesh.mesh.process.output();
    assert!(log.contains("trace") || log.contains("TRACE"), "it was logged at length");
    let tails: Vec<&str> = [&key, &bob].iter().map(|key| key.rsplit('_').next().unwrap()).collect();
    let signatures: Vec<&str> = [&jwt, &ticket, &stream_token]
        .iter()
        .map(|token| token.rsplit('.').next().unwrap())
        .collect();
    for canary in tails.into_iter().chain(signatures).chain([secret]) {
        assert!(!log.contains(canary), "{canary} is in the log");
        assert!(!bodies.contains(canary), "{canary} is in an answer");
    }
}
