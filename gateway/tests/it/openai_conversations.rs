//! `/v1/conversations`: made, changed and deleted, item by item, and joined by responses.

use proto::v1::{Entry, FinishReason, Role};
use serde_json::{Value, json};

use crate::{
    router::{finished, texts},
    stored::Stored,
};

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hello", "."]);
    entries.push(finished(FinishReason::Stop, 2));
    entries
}

async fn make(stored: &Stored, body: Value) -> (String, Value) {
    let made = stored.post("/v1/conversations", &body).await;
    assert_eq!(made.status, 200, "{}", made.body);
    let made = made.json();
    (made["id"].as_str().unwrap().to_owned(), made)
}

/// All items, read page by page.
async fn items(stored: &Stored, id: &str, order: &str) -> Vec<Value> {
    let (mut after, mut items) = (String::new(), Vec::new());
    loop {
        let path = format!("/v1/conversations/{id}/items?limit=2&order={order}&after={after}");
        let page = stored.get(&path).await.json();
        let data = page["data"].as_array().unwrap();
        assert!(data.len() <= 2, "{page}");
        items.extend(data.iter().cloned());
        if page["has_more"] == false {
            return items;
        }
        page["last_id"].as_str().unwrap().clone_into(&mut after);
    }
}

#[tokio::test]
async fn a_conversation_is_made_changed_and_deleted() {
    let stored = Stored::start().await;
    let (id, made) = make(&stored, json!({"metadata": {"topic": "trees"}})).await;
    assert!(id.starts_with("conv_") && made["created_at"].is_u64(), "{made}");
    let path = format!("/v1/conversations/{id}");
    assert_eq!(stored.get(&path).await.json(), made);
    let changed = stored.post(&path, &json!({"metadata": {"topic": "woods"}})).await.json();
    assert_eq!(changed["metadata"], json!({"topic": "woods"}));
    let wrong = stored.post(&path, &json!({"metadata": {"topic": "x".repeat(513)}})).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &"metadata".into()));
    let deleted = stored.delete(&path).await.json();
    assert_eq!(deleted, json!({"id": id, "object": "conversation.deleted", "deleted": true}));
    assert_eq!(stored.get(&path).await.status, 404);
    assert_eq!(stored.get(&format!("{path}/items")).await.status, 404);
}

#[tokio::test]
async fn items_are_added_listed_read_and_deleted() {
    let stored = Stored::start().await;
    let (id, _) = make(&stored, json!({"items": [{"role": "user", "content": "How warm is it?"}]})).await;
    let path = format!("/v1/conversations/{id}/items");
    let more = json!({"items": [
        {"type": "reasoning", "summary": [], "content": [{"type": "reasoning_text", "text": "hm"}]},
        {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "Let me look."}]},
        {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
        {"type": "function_call", "call_id": "c2", "name": "listen", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "21"},
    ]});
    let added = stored.post(&path, &more).await.json();
    assert_eq!((added["data"].as_array().unwrap().len(), &added["has_more"]), (5, &false.into()));
    let mut all = items(&stored, &id, "asc").await;
    let types: Vec<_> = all.iter().map(|item| item["type"].as_str().unwrap()).collect();
    let expected = [
        "message",
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "function_call_output",
    ];
    assert_eq!(types, expected);
    assert_eq!(all[1..], *added["data"].as_array().unwrap());
    all.reverse();
    assert_eq!(items(&stored, &id, "desc").await, all);
    for item in &all {
        let one = format!("{path}/{}", item["id"].as_str().unwrap());
        assert_eq!(&stored.get(&one).await.json(), item);
        let conversation = stored.delete(&one).await.json();
        assert_eq!(conversation["id"], id.as_str());
        assert_eq!(stored.get(&one).await.status, 404, "{item}");
        assert_eq!(stored.delete(&one).await.status, 404, "{item}");
    }
    assert!(items(&stored, &id, "asc").await.is_empty());
    let many: Vec<Value> = (0..21).map(|_| json!({"role": "user", "content": "x"})).collect();
    let refused = stored.post(&path, &json!({ "items": many })).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &"items".into()));
}

#[tokio::test]
async fn a_response_joins_its_conversation() {
    let stored = Stored::start().await;
    let (id, _) = make(&stored, json!({"items": [{"role": "user", "content": "My cat is called Miri."}]})).await;
    let body = json!({"model": "tiny", "conversation": id, "input": "What is my cat called?", "instructions": "Be brief."});
    let (made, request) = stored.ask(&body, hello()).await;
    assert_eq!(made.json()["conversation"], json!({"id": id}));
    assert!(request.keep && request.conversation_id.contains('-'), "{request:?}");
    assert_eq!(
        request.instructions, "Be brief.",
        "which the router puts before the history, and the store never sees"
    );
    let said: Vec<_> = request
        .messages
        .iter()
        .map(|message| (message.role(), message.text.as_str()))
        .collect();
    assert_eq!(
        said,
        [(Role::User, "What is my cat called?")],
        "the history is the router's to read"
    );
    let all = items(&stored, &id, "asc").await;
    let texts: Vec<_> = all.iter().map(|item| item["content"][0]["text"].as_str().unwrap()).collect();
    assert_eq!(texts, ["My cat is called Miri.", "What is my cat called?", "Hello."]);
    assert_eq!(all[2]["id"], made.json()["output"][0]["id"], "one item, one name");
    let response = format!("/v1/responses/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(stored.get(&response).await.json(), made.json());
    // The conversation keeps what the response said, and the response what is taken out of the conversation.
    stored
        .delete(&format!("/v1/conversations/{id}/items/{}", all[2]["id"].as_str().unwrap()))
        .await;
    assert_eq!(stored.get(&response).await.json(), made.json());
    assert_eq!(items(&stored, &id, "asc").await.len(), 2);
    let (made, _) = stored.ask(&body, hello()).await;
    assert_eq!(
        stored
            .delete(&format!("/v1/responses/{}", made.json()["id"].as_str().unwrap()))
            .await
            .status,
        200
    );
    assert_eq!(items(&stored, &id, "asc").await.len(), 4);
    let nowhere = json!({"model": "tiny", "conversation": "conv_nowhere", "input": "x"});
    assert_eq!(stored.post("/v1/responses", &nowhere).await.status, 404);
}
