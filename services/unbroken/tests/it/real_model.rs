//! The default: a small real model in the process, as `make run` starts it. Nothing here depends on its speed.

use std::time::Duration;

use futures_util::future::join_all;
use serde_json::{Value, json};

use crate::{
    processes::{AllInOne, start},
    stream::{Events, completion},
};

const LLAMA: &[(&str, &str)] = &[("UNBROKEN_ENGINE", "llama"), ("UNBROKEN_LLAMA_THREADS", "1")];

#[tokio::test(flavor = "multi_thread")]
async fn a_newcomers_first_chats_are_answered_by_a_real_model_that_remembers() {
    let mesh = AllInOne::start(LLAMA).await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", mesh.http);
    let models: Value = client.get(url("/v1/models")).send().await.unwrap().json().await.unwrap();
    let model = models["data"][0]["id"].as_str().unwrap().to_owned();

    // One after the other in a conversation.
    let conversation: Value = client
        .post(url("/conversations"))
        .json(&json!({"title": "Cats"}))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let id = conversation["id"].as_str().unwrap();
    let mut prompts = Vec::new();
    for question in ["My cat is called Miri. Say hello to her.", "What is my cat called?"] {
        let body = json!({"model": model, "conversation_id": id, "temperature": 0, "max_tokens": 24, "messages": [{"role": "user", "content": question}]});
        let answer: Value = client
            .post(url("/v1/chat/completions"))
            .json(&body)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        assert!(
            answer["choices"][0]["message"]["content"]
                .as_str()
                .is_some_and(|text| text.len() > 3),
            "{answer}"
        );
        prompts.push(answer["usage"].clone());
    }
    assert!(
        prompts[1]["prompt_tokens"].as_u64() > prompts[0]["prompt_tokens"].as_u64(),
        "the history is part of the second: {prompts:?}"
    );
    let cached = prompts[1]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    assert!(
        cached >= prompts[0]["prompt_tokens"].as_u64().unwrap() / 2,
        "only what is new is prefilled: {prompts:?}"
    );

    // Several at once, by SSE.
    let answers = join_all((0..4).map(|number| {
        let body = json!({"model": model, "stream": true, "seed": number, "max_tokens": 16, "messages": [{"role": "user", "content": format!("Tell me of the number {number}.")}]});
        let request = client.post(url("/v1/chat/completions")).json(&body);
        async move { completion(&Events::new(request.send().await.unwrap()).rest().await) }
    }));
    for (text, done) in answers.await {
        assert!(done && !text.trim().is_empty(), "{text:?}");
    }

    // A schema is kept to the letter, even by a small model.
    let schema = json!({"type": "object", "properties": {"name": {"type": "string", "maxLength": 12}, "age": {"type": "integer", "minimum": 0, "maximum": 30}}, "required": ["name", "age"], "additionalProperties": false});
    let body = json!({"model": model, "temperature": 0, "max_tokens": 120, "messages": [{"role": "user", "content": "Describe a cat as JSON."}],
        "response_format": {"type": "json_schema", "json_schema": {"name": "cat", "strict": true, "schema": schema}}});
    let answer: Value = client
        .post(url("/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let cat: Value = serde_json::from_str(answer["choices"][0]["message"]["content"].as_str().unwrap())
        .unwrap_or_else(|error| panic!("{error}: {answer}"));
    assert!(cat["name"].is_string() && cat["age"].as_u64().is_some_and(|age| age <= 30), "{cat}");

    // Too long a prompt is refused by name, and the process lives on.
    let body = json!({"model": model, "messages": [{"role": "user", "content": "cat ".repeat(40_000)}]});
    let refused = client.post(url("/v1/chat/completions")).json(&body).send().await.unwrap();
    assert_eq!(refused.status(), 400);
    assert_eq!(refused.json::<Value>().await.unwrap()["error"]["code"], "context_length_exceeded");

    // Everything is still there after a restart.
    let AllInOne {
        mut process,
        http,
        grpc,
        folder,
    } = mesh;
    process.signal(nix::sys::signal::Signal::SIGTERM).unwrap();
    assert!(process.ended(Duration::from_secs(30)).await.unwrap().success());
    let data = folder.path().join("data").display().to_string();
    let settings = [
        ("UNBROKEN_HTTP", http.as_str()),
        ("UNBROKEN_GRPC", &grpc),
        ("UNBROKEN_WORKER_LISTEN", "127.0.0.1:0"),
        ("UNBROKEN_STORE_LISTEN", "127.0.0.1:0"),
        ("UNBROKEN_DATA_DIR", &data),
        ("UNBROKEN_ENGINE", "scripted"),
    ];
    let mut again = start(folder.path(), &settings);
    again.ready(http.parse().unwrap(), "/ready").await.unwrap();
    let messages: Value = client
        .get(format!("http://{http}/conversations/{id}/messages"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let roles: Vec<_> = messages["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|message| message["role"].as_str().unwrap())
        .collect();
    assert_eq!(roles, ["user", "assistant", "user", "assistant"]);
}
