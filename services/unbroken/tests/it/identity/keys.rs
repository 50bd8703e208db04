//! Keys that the operator makes.

use std::{
    process::Command,
    time::{Duration, Instant},
};

use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Guarded, id_of, refusal};
use crate::{
    processes::{AllInOne, executable, free_address},
    stream::script,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_doors_until_it_is_revoked() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann", "--tenant", "acme", "--name", "laptop"]);
    let chat = json!({"message": script("k", 3, Duration::ZERO)});

    let bare = mesh.client.post(mesh.url("/chat")).json(&chat).send().await.unwrap();
    let (status, code, challenge) = refusal(bare).await;
    assert_eq!(
        (status, code.as_str(), challenge.as_deref()),
        (401, "missing_credentials", Some("Bearer realm=\"unbroken\""))
    );
    let end = if key.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{end}", &key[..key.len() - 1]);
    for wrong in [wrong.as_str(), "none", "ub_live_x", &key.replace("live", "test")] {
        let (status, code, challenge) = refusal(mesh.post("/chat", wrong, chat.clone()).await).await;
        assert_eq!((status, code.as_str()), (401, "invalid_api_key"), "{wrong}");
        assert!(challenge.unwrap().contains("invalid_token"));
    }
    assert_eq!(mesh.post("/chat", &key, chat.clone()).await.status(), 200);
    let as_anthropic = mesh
        .client
        .post(mesh.url("/chat"))
        .header("x-api-key", &key)
        .json(&chat)
        .send()
        .await
        .unwrap();
    assert_eq!(as_anthropic.status(), 200);
    let in_address = mesh
        .client
        .get(mesh.url(&format!("/stream?prompt=x&api_key={key}")))
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(in_address).await.1, "credentials_in_query");
    // What tells nothing of anybody needs no key.
    for path in ["/", "/health", "/ready", "/metrics"] {
        assert_eq!(mesh.client.get(mesh.url(path)).send().await.unwrap().status(), 200, "{path}");
    }

    let list = mesh.operator(&["list"]).unwrap();
    assert!(
        list.contains(id_of(&key)) && list.contains("acme/ann") && list.contains("laptop"),
        "{list}"
    );
    assert!(!list.contains(key.rsplit('_').next().unwrap()), "the secret part is shown once");
    mesh.operator(&["revoke", id_of(&key)]).unwrap();
    let revoked = Instant::now();
    while mesh.post("/chat", &key, chat.clone()).await.status() != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "still taken");
    }
    assert!(mesh.operator(&["list"]).unwrap().contains("revoked"));
    assert!(mesh.operator(&["revoke", "nosuchkey"]).unwrap_err().contains("no such key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_good_past_its_time() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann", "--expires", "2s"]);
    assert_eq!(mesh.get("/v1/models", &key).await.status(), 200);
    let made = Instant::now();
    while mesh.get("/v1/models", &key).await.status() == 200 {
        assert!(made.elapsed() < Duration::from_secs(4), "still taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_manages_the_keys_of_their_own_tenant() {
    let mesh = Guarded::start(&[]).await;
    let admin = mesh.key(&["--user", "root", "--tenant", "acme", "--role", "admin", "--tier", "pro"]);
    let user = mesh.key(&["--user", "ann", "--tenant", "acme"]);
    let stranger = mesh.key(&["--user", "eve", "--tenant", "other"]);

    for (method, path) in [
        ("GET", "/v1/admin/keys"),
        ("POST", "/v1/admin/keys"),
        ("DELETE", "/v1/admin/keys/x"),
    ] {
        let request = mesh.client.request(method.parse().unwrap(), mesh.url(path)).bearer_auth(&user);
        let (status, code, challenge) = refusal(request.json(&json!({"user": "x"})).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "forbidden"), "{method} {path}");
        assert!(challenge.unwrap().contains("insufficient_scope"));
    }
    let made = mesh.post("/v1/admin/keys", &admin, json!({"user": "bob", "name": "phone"})).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(
        (&made["tenant"], &made["user"], &made["role"], &made["tier"]),
        (&json!("acme"), &json!("bob"), &json!("user"), &json!("pro"))
    );
    let bob = made["key"].as_str().unwrap().to_owned();
    assert_eq!(mesh.get("/v1/models", &bob).await.status(), 200);
    let greedy = mesh
        .post("/v1/admin/keys", &admin, json!({"user": "bob", "tier": "enterprise"}))
        .await;
    assert_eq!(greedy.status(), 403, "a tier is the operator's to give");
    for (body, param) in [
        (json!({}), "user"),
        (json!({"user": ""}), "user"),
        (json!({"user": "x", "role": "king"}), "role"),
        (json!({"user": "x", "expires_at": -1}), "expires_at"),
    ] {
        let wrong: Value = mesh.post("/v1/admin/keys", &admin, body).await.json().await.unwrap();
        assert_eq!(wrong["error"]["param"], param, "{wrong}");
    }

    let list: Value = mesh.get("/v1/admin/keys", &admin).await.json().await.unwrap();
    let mut users: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["user"].as_str().unwrap())
        .collect();
    users.sort_unstable();
    assert_eq!(users, ["ann", "bob", "root"], "those of the tenant, and no others");
    assert!(!list.to_string().contains("ub_live_"), "no key is in a list");
    let delete = async |id: &str| {
        let request = mesh.client.delete(mesh.url(&format!("/v1/admin/keys/{id}"))).bearer_auth(&admin);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete(id_of(&stranger)).await, 404, "another tenant's key is not there");
    assert_eq!(delete(id_of(&bob)).await, 200);
    let revoked = Instant::now();
    while mesh.get("/v1/models", &bob).await.status() != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "still taken");
    }
    assert_eq!(mesh.get("/v1/models", &stranger).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_asked_nobody_makes_keys() {
    let mesh = AllInOne::scripted().await;
    let response = Client::new()
        .post(format!("http://{}/v1/admin/keys", mesh.http))
        .json(&json!({"user": "x"}))
        .send()
        .await;
    assert_eq!(response.unwrap().status(), 403);
    assert!(mesh.process.output().contains("UNBROKEN_AUTH is off"), "and it is loudly said");
}

#[test]
fn what_an_operator_gets_wrong_with_keys_is_said_in_one_line() {
    let folder = TempDir::new().unwrap();
    let nobody = free_address();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(executable("unbroken"));
        command
            .arg("keys")
            .args(arguments)
            .env("UNBROKEN_STORE", &nobody)
            .env("UNBROKEN_DATA_DIR", folder.path());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["create", "--user", "ann"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&nobody) && said.contains("UNBROKEN_STORE") && said.lines().count() == 1,
        "{said}"
    );
    let (code, said) = run(&["create", "--user", "ann", "--key-secret", "short"]);
    assert!(code == Some(1) && said.contains("UNBROKEN_KEY_SECRET"), "{said}");
    let (code, said) = run(&["create"]);
    assert!(code == Some(64) && said.contains("--user"), "{said}");
}
