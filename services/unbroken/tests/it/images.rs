//! Images: shown at any door, they come to an upstream whose models see them, in its own words, and again with the history; a model that
//! does not see refuses them.

use serde_json::{Value, json};
use trial::{
    fleet::{Fleet, Layout},
    process::settings,
};

use crate::{
    processes::folder,
    upstreams::{Asked, CHAT, MESSAGES, RESPONSES, Says, upstream},
};

/// A PNG of one pixel.
const PIXEL: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg==";

/// A mesh before an upstream that sees, and an engine that does not.
async fn mesh(dialect: &str, says: &'static Says) -> (Fleet, Asked) {
    let (address, asked) = upstream(says).await;
    let seeing = settings(&[
        ("UNBROKEN_ENGINE", "openai"),
        ("UNBROKEN_UPSTREAM", &address),
        ("UNBROKEN_UPSTREAM_DIALECT", dialect),
        ("UNBROKEN_UPSTREAM_IMAGES", "true"),
    ]);
    let layout = Layout {
        bin: Some(folder()),
        workers: vec![seeing, settings(&[("UNBROKEN_ENGINE", "scripted")])],
        ..Layout::of(1, 1, 0)
    };
    (Fleet::start(&layout).await.unwrap(), asked)
}

async fn post(fleet: &Fleet, path: &str, body: Value) -> (u16, Value) {
    let url = format!("http://{}{path}", fleet.http[0]);
    let response = reqwest::Client::new().post(url).json(&body).send().await.unwrap();
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Shows the pixel at each door; returns what the upstream was told each time.
async fn shown_at_all_doors(fleet: &Fleet, asked: &Asked) -> Vec<Value> {
    let uri = format!("data:image/png;base64,{PIXEL}");
    let chat =
        json!([{"type": "text", "text": "What is"}, {"type": "image_url", "image_url": {"url": uri}}, {"type": "text", "text": "this?"}]);
    let source = json!({"type": "base64", "media_type": "image/png", "data": PIXEL});
    let messages = json!([{"type": "text", "text": "What is"}, {"type": "image", "source": source}, {"type": "text", "text": "this?"}]);
    let responses = json!([{"type": "input_text", "text": "What is"}, {"type": "input_image", "image_url": uri}, {"type": "input_text", "text": "this?"}]);
    let doors = [
        (
            "/v1/chat/completions",
            json!({"model": "far", "messages": [{"role": "user", "content": chat}]}),
        ),
        (
            "/v1/messages",
            json!({"model": "far", "max_tokens": 9, "messages": [{"role": "user", "content": messages}]}),
        ),
        (
            "/v1/responses",
            json!({"model": "far", "input": [{"role": "user", "content": responses}]}),
        ),
    ];
    for (path, body) in doors {
        let (status, answer) = post(fleet, path, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }
    asked.lock().await.iter().map(|(_, body)| body.clone()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upstream_is_shown_images_in_its_own_words() {
    let uri = format!("data:image/png;base64,{PIXEL}");
    let source = json!({"type": "base64", "media_type": "image/png", "data": PIXEL});
    let text = |kind: &str, text: &str| json!({"type": kind, "text": text});
    for (dialect, says, place, kind, image) in [
        (
            "chat",
            &CHAT,
            "messages",
            "text",
            json!({"type": "image_url", "image_url": {"url": uri}}),
        ),
        (
            "messages",
            &MESSAGES,
            "messages",
            "text",
            json!({"type": "image", "source": source}),
        ),
        (
            "responses",
            &RESPONSES,
            "input",
            "input_text",
            json!({"type": "input_image", "image_url": uri, "detail": "auto"}),
        ),
    ] {
        let (fleet, asked) = mesh(dialect, says).await;
        for told in shown_at_all_doors(&fleet, &asked).await {
            let expected = json!([text(kind, "What is"), image, text(kind, "this?")]);
            assert_eq!(told[place][0]["content"], expected, "{dialect}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_shown_once_is_seen_again() {
    let (fleet, asked) = mesh("chat", &CHAT).await;
    let uri = format!("data:image/png;base64,{PIXEL}");
    let image = json!({"type": "image_url", "image_url": {"url": uri}});

    let (_, conversation) = post(&fleet, "/conversations", json!({})).await;
    let id = conversation["id"].as_str().unwrap();
    let turn = |content: Value| json!({"model": "far", "conversation_id": id, "messages": [{"role": "user", "content": content}]});
    for content in [json!([image]), json!("And now?")] {
        assert_eq!(post(&fleet, "/v1/chat/completions", turn(content)).await.0, 200);
    }

    let input = json!([{"role": "user", "content": [{"type": "input_image", "image_url": uri, "detail": "low"}]}]);
    let (_, first) = post(&fleet, "/v1/responses", json!({"model": "far", "input": input})).await;
    let next = json!({"model": "far", "input": "And now?", "previous_response_id": first["id"]});
    assert_eq!(post(&fleet, "/v1/responses", next).await.0, 200);
    let items = format!(
        "http://{}/v1/responses/{}/input_items",
        fleet.http[0],
        first["id"].as_str().unwrap()
    );
    let items: Value = reqwest::get(items).await.unwrap().json().await.unwrap();
    assert_eq!(items["data"][0]["content"][0]["image_url"], uri.as_str());

    let asked = asked.lock().await;
    let messages = |call: usize| asked[call].1["messages"].clone();
    assert_eq!(
        (&messages(1)[0]["content"], &messages(1)[2]["content"]),
        (&json!([image]), &json!("And now?"))
    );
    assert_eq!(messages(3)[0]["content"][0]["image_url"], json!({"url": uri, "detail": "low"}));
    assert_eq!(messages(3)[2]["content"], "And now?");

    // A model without eyes is not told half of it.
    let mut blind = turn(json!("And you?"));
    blind["model"] = "scripted".into();
    let (status, refused) = post(&fleet, "/v1/chat/completions", blind).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("model")), "{refused}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_eyes_refuses_images_and_no_address_is_fetched() {
    let (fleet, asked) = mesh("chat", &CHAT).await;
    let uri = format!("data:image/png;base64,{PIXEL}");
    let show = |model: &str, url: &str| json!({"model": model, "messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": url}}]}]});
    let (status, refused) = post(&fleet, "/v1/chat/completions", show("scripted", &uri)).await;
    assert_eq!((status, &refused["error"]["param"]), (400, &json!("model")), "{refused}");
    // The upstream itself would answer, were it asked.
    let there = format!("http://{}/ready", fleet.http[0]);
    let (status, refused) = post(&fleet, "/v1/chat/completions", show("far", &there)).await;
    assert_eq!(
        (status, &refused["error"]["param"]),
        (400, &json!("messages[0].content[0].image_url")),
        "{refused}"
    );
    // Without a model's name it is one that sees.
    assert_eq!(post(&fleet, "/v1/chat/completions", show("", &uri)).await.0, 200);
    assert_eq!(asked.lock().await.len(), 1);
    let models: Value = reqwest::get(format!("http://{}/v1/models", fleet.http[0]))
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    let seeing: Vec<&Value> = models["data"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|model| model["capabilities"]["images"] == true)
        .collect();
    assert_eq!(seeing.len(), 1);
    assert_eq!(seeing[0]["id"], "far");
}
