//! The request log: what gets into it, and who reads it.

use serde_json::json;

use crate::{client, gateway::Gateway, ledger::Log};

#[tokio::test]
async fn a_refused_request_is_logged_without_a_word_of_it() {
    let log = Log::start().await;
    let gateway = Gateway::with(&[], &["--gateway-store", &log.address]).await;
    let body = r#"{"messages":[{"role":"king","content":"a secret"}]}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\nx-request-id: r-1\ncontent-type: application/json\ncontent-length: {}",
        body.len()
    );
    let refused = client::send(gateway.address, &head, body.as_bytes()).await.whole().await;
    assert_eq!(refused.status, 400);
    let turn = log.first().await;
    assert_eq!(
        (turn.state.as_str(), turn.status, turn.finish_reason.as_str()),
        ("refused", 400, "invalid_request")
    );
    assert_eq!((turn.door.as_str(), turn.request_id.as_str()), ("completions", "r-1"));
    assert!(!format!("{turn:?}").contains("secret"));
}

#[tokio::test]
async fn the_request_log_is_for_admins() {
    let gateway = Gateway::before(&[]).await;
    let refused = client::get(gateway.address, "/v1/admin/requests").await;
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (403, &json!("forbidden")));
}
