//! The request log as an admin reads it: everything of their tenant, nothing of another, and not a word of what was said.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Guarded, id_of, refusal};
use crate::stream::{eventually, script};

/// A part of the log.
async fn page(mesh: &Guarded, key: &str, query: &str) -> Value {
    let response = mesh.get(&format!("/v1/admin/requests?{query}"), key).await;
    assert_eq!(response.status(), 200, "{query}");
    response.json().await.unwrap()
}

fn texts(page: &Value, field: &str) -> Vec<String> {
    let lines = page["data"].as_array().unwrap().iter();
    lines.map(|line| line[field].as_str().unwrap_or_default().to_owned()).collect()
}

/// A request of each kind, in the order of their doors' names. Returns those names.
async fn ask_all(mesh: &Guarded, key: &str, secret: &str) -> Vec<&'static str> {
    let prompt = format!("{secret} {}", script("w", 4, Duration::ZERO));
    let messages = json!([{"role": "user", "content": prompt}]);
    for (path, body, status) in [
        ("/chat", json!({"message": prompt}), 200),
        ("/v1/chat/completions", json!({"model": "scripted", "messages": messages}), 200),
        ("/v1/messages/count_tokens", json!({"model": "scripted", "messages": messages}), 200),
        ("/v1/embeddings", json!({"input": [secret, "two"]}), 200),
        ("/v1/messages", json!({"model": "scripted", "messages": messages}), 400), // max_tokens is missing
    ] {
        let response = mesh.post(path, key, body).await;
        assert_eq!(response.status(), status, "{path}: {}", response.text().await.unwrap());
    }
    vec!["chat", "completions", "count_tokens", "embeddings", "messages"]
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_reads_the_requests_of_their_own_tenant() {
    let mesh = Guarded::start(&[]).await;
    let admin = mesh.key(&["--user", "root", "--tenant", "acme", "--role", "admin"]);
    let ann = mesh.key(&["--user", "ann", "--tenant", "acme"]);
    let eve = mesh.key(&["--user", "eve", "--tenant", "other", "--role", "admin"]);

    let (status, code, _) = refusal(mesh.get("/v1/admin/requests", &ann).await).await;
    assert_eq!((status, code.as_str()), (403, "forbidden"), "a user");
    assert_eq!(mesh.client.get(mesh.url("/v1/admin/requests")).send().await.unwrap().status(), 401);

    let doors = ask_all(&mesh, &ann, "canary-of-ann").await;
    ask_all(&mesh, &eve, "canary-of-eve").await;
    mesh.post("/chat", &admin, json!({"message": script("r", 2, Duration::ZERO)})).await;
    for (key, lines) in [(&admin, doors.len() + 1), (&eve, doors.len())] {
        eventually("all is logged", async || {
            page(&mesh, key, "").await["data"].as_array().unwrap().len() == lines
        })
        .await;
    }

    let log = page(&mesh, &admin, "").await;
    assert_eq!((&log["object"], &log["has_more"]), (&json!("list"), &json!(false)));
    let text = log.to_string();
    assert!(!text.contains("eve") && !text.contains("canary"), "{text}");
    assert!(texts(&log, "user").contains(&"root".to_owned()), "their own, too");
    let lines: Vec<&Value> = log["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|line| line["user"] == "ann")
        .collect();
    let mut logged: Vec<&str> = lines.iter().map(|line| line["door"].as_str().unwrap()).collect();
    logged.sort_unstable();
    assert_eq!(logged, doors);
    for line in lines {
        assert_eq!(
            (&line["object"], &line["key_id"]),
            (&json!("request"), &json!(id_of(&ann))),
            "{line}"
        );
        let (state, status, took) = match line["door"].as_str().unwrap() {
            "messages" => ("refused", 400, (false, false)),
            "count_tokens" => ("finished", 200, (false, false)),
            "embeddings" => ("finished", 200, (true, false)),
            _ => ("finished", 200, (true, true)),
        };
        assert_eq!((&line["state"], &line["status"]), (&json!(state), &json!(status)), "{line}");
        let tokens = |name: &str| line[name].as_u64().unwrap() > 0;
        assert_eq!((tokens("prompt_tokens"), tokens("completion_tokens")), took, "{line}");
        assert_eq!(line["model"] == "scripted", state == "finished", "{line}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_request_log_is_read_in_parts_and_by_time() {
    let mesh = Guarded::start(&[]).await;
    let admin = mesh.key(&["--user", "root", "--role", "admin"]);
    for number in 0..5 {
        let body = json!({"message": script("r", 1, Duration::ZERO)});
        let request = mesh.client.post(mesh.url("/chat")).bearer_auth(&admin).json(&body);
        let answered = request.header("x-request-id", format!("r{number}")).send().await.unwrap();
        assert_eq!(answered.status(), 200);
        eventually("it is logged before the next", async || {
            page(&mesh, &admin, "").await["data"].as_array().unwrap().len() == number + 1
        })
        .await;
    }
    let all = page(&mesh, &admin, "").await;
    assert_eq!(texts(&all, "request_id"), ["r4", "r3", "r2", "r1", "r0"], "the latest first");
    let (mut seen, mut after) = (Vec::new(), String::new());
    loop {
        let part = page(&mesh, &admin, &format!("limit=2&after={after}")).await;
        seen.extend(texts(&part, "request_id"));
        after = part["last_id"].as_str().unwrap().to_owned();
        if part["has_more"] == false {
            break;
        }
        assert_eq!(seen.len() % 2, 0, "each part but the last is full");
    }
    assert_eq!(seen, ["r4", "r3", "r2", "r1", "r0"], "each once");

    let lines = all["data"].as_array().unwrap();
    let (first, last) = (lines[4]["logged_at"].as_i64().unwrap(), lines[0]["logged_at"].as_i64().unwrap());
    let count = async |query: String| page(&mesh, &admin, &query).await["data"].as_array().unwrap().len();
    assert_eq!(count(format!("from={first}&until={}", last + 1)).await, 5);
    assert_eq!(count(format!("until={first}")).await, 0);
    assert_eq!(count(format!("from={}", last + 1)).await, 0);
    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1000", "limit"),
        ("from=yesterday", "from"),
        ("until=-1", "until"),
    ] {
        let response = mesh.get(&format!("/v1/admin/requests?{query}"), &admin).await;
        assert_eq!(response.status(), 400, "{query}");
        let body: Value = response.json().await.unwrap();
        assert_eq!(body["error"]["param"], param, "{body}");
    }
}
