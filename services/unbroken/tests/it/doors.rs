//! Every door of the whole mesh, with the clients that people have.

use std::{process::Command, time::Duration};

use futures_util::{SinkExt as _, future::join_all};
use proto::v1::{ChatRequest, chat_service_client::ChatServiceClient};
use serde_json::{Value, json};
use tokio_tungstenite::{connect_async, tungstenite::Message};

use crate::{
    processes::AllInOne,
    stream::{Events, completion, message, oracle, script, tokens},
};

const GAP: Duration = Duration::from_millis(1);

#[tokio::test(flavor = "multi_thread")]
async fn the_same_answer_comes_whole_through_every_door() {
    let mesh = AllInOne::scripted().await;
    let client = reqwest::Client::new();
    let url = |path: &str| format!("http://{}{path}", mesh.http);

    let events = Events::new(
        client
            .get(url("/stream"))
            .query(&[("prompt", script("a", 40, GAP))])
            .send()
            .await
            .unwrap(),
    )
    .rest()
    .await;
    assert_eq!(tokens(&events), (oracle("a", 0..40), true));

    let path = "/v1/chat/completions/stream";
    let events = Events::new(
        client
            .get(url(path))
            .query(&[("prompt", script("b", 40, GAP))])
            .send()
            .await
            .unwrap(),
    )
    .rest()
    .await;
    assert_eq!(tokens(&events), (oracle("b", 0..40), true));

    let events = Events::new(
        client
            .get(url("/v1/chat/stream"))
            .query(&[("q", script("c", 40, GAP))])
            .send()
            .await
            .unwrap(),
    )
    .rest()
    .await;
    let names: Vec<_> = events.iter().map(|event| event.name.clone().unwrap_or_default()).collect();
    assert_eq!(
        (names[0].as_str(), names.last().unwrap().as_str()),
        ("lifecycle", "lifecycle"),
        "{names:?}"
    );
    assert!(names.contains(&"usage".to_owned()));

    let body = json!({"model": "scripted", "stream": true, "messages": [{"role": "user", "content": script("d", 40, GAP)}]});
    let events = Events::new(client.post(url("/v1/chat/completions")).json(&body).send().await.unwrap())
        .rest()
        .await;
    assert_eq!(completion(&events), (oracle("d", 0..40), true));

    let body = json!({"model": "scripted", "messages": [{"role": "user", "content": script("e", 40, GAP)}]});
    let answer: Value = client
        .post(url("/v1/chat/completions"))
        .json(&body)
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    assert_eq!(answer["choices"][0]["message"]["content"], oracle("e", 0..40));
    assert_eq!(answer["usage"]["completion_tokens"], 40);

    let answer = client
        .post(url("/chat"))
        .json(&json!({"message": script("f", 40, GAP)}))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(answer.contains(oracle("f", 0..40).trim()), "{answer}");

    let (mut socket, _) = connect_async(format!("ws://{}/ws/chat", mesh.http)).await.unwrap();
    for turn in ["g", "h"] {
        socket
            .send(Message::text(json!({"prompt": script(turn, 40, GAP)}).to_string()))
            .await
            .unwrap();
        let mut text = String::new();
        loop {
            let next = message(&mut socket).await;
            match next["type"].as_str().unwrap() {
                "token" => text.push_str(next["content"].as_str().unwrap()),
                "done" => break,
                "error" => panic!("{next}"),
                _ => {}
            }
        }
        assert_eq!(text, oracle(turn, 0..40));
    }

    let mut client = ChatServiceClient::connect(format!("http://{}", mesh.grpc)).await.unwrap();
    let request = ChatRequest {
        prompt: script("i", 40, GAP),
        ..ChatRequest::default()
    };
    let mut stream = client.stream_chat(request).await.unwrap().into_inner();
    let (mut text, mut next, mut dones) = (String::new(), 0, 0);
    while let Some(response) = stream.message().await.unwrap() {
        assert_eq!(response.position, Some(next), "positions are dense");
        assert!(response.latency_ms.is_some() && !response.stream_id.unwrap().is_empty());
        text.push_str(&response.token.unwrap());
        dones += u32::from(response.done.unwrap());
        next += 1;
    }
    assert_eq!((text, dones), (oracle("i", 0..40), 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_answers_at_once_are_neither_lost_nor_mixed_up() {
    let mesh = AllInOne::scripted().await;
    let client = reqwest::Client::new();
    let answers = (0..100).map(|number| {
        let request = client
            .get(format!("http://{}/stream", mesh.http))
            .query(&[("prompt", script(&format!("n{number}"), 60, GAP))]);
        async move {
            let events = Events::new(request.send().await.unwrap()).rest().await;
            assert_eq!(tokens(&events), (oracle(&format!("n{number}"), 0..60), true));
        }
    });
    join_all(answers).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn grpcurl_sees_the_services_and_prints_an_answer() {
    let mesh = AllInOne::scripted().await;
    let grpcurl = |arguments: &[&str]| {
        let output = Command::new(tool("grpcurl")).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    let services = grpcurl(&["-plaintext", &mesh.grpc, "list"]);
    assert!(
        services.contains("chat.v1.ChatService") && services.contains("grpc.health.v1.Health"),
        "{services}"
    );
    let health = grpcurl(&[
        "-plaintext",
        "-d",
        r#"{"service":"chat.v1.ChatService"}"#,
        &mesh.grpc,
        "grpc.health.v1.Health/Check",
    ]);
    assert!(health.contains("SERVING"), "{health}");
    let answer = grpcurl(&[
        "-plaintext",
        "-d",
        r#"{"prompt":"Hello","max_tokens":20}"#,
        &mesh.grpc,
        "chat.v1.ChatService/StreamChat",
    ]);
    let messages: Vec<Value> = serde_json::Deserializer::from_str(&answer)
        .into_iter()
        .collect::<Result<_, _>>()
        .unwrap();
    for (position, message) in messages.iter().enumerate() {
        assert_eq!(message["position"], position);
        for field in ["token", "done", "latency_ms", "stream_id"] {
            assert!(message.get(field).is_some(), "{field} is missing: {message}");
        }
    }
    assert_eq!(
        (messages.len(), &messages.last().unwrap()["done"]),
        (21, &json!(true)),
        "20 tokens and the end"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_streams_and_does_not_stream() {
    let mesh = AllInOne::scripted().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openai_sdk.py");
    let output = Command::new(tool("python3"))
        .arg(script)
        .arg(format!("http://{}/v1", mesh.http))
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// A tool that `.ci/setup test` has installed.
pub(crate) fn tool(name: &str) -> std::path::PathBuf {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().nth(2).unwrap();
    let path = root.join("target/tools/bin").join(name);
    assert!(
        path.exists(),
        "{} is missing: `make test` installs it (.ci/setup test)",
        path.display()
    );
    path
}
