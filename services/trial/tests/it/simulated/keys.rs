//! Idempotency keys where gateways disagree: each sees the routers under other addresses here, so for half of all keys they go to two
//! routers at once. Words that hang on an answer's seed tell whether there was one answer or two.

use serde_json::json;

use super::{mesh::Mesh, on_a_mesh, positions::Reading};

/// Keys, so that all orders of the routers come up.
const KEYS: usize = 24;

async fn words(mesh: &Mesh, gateway: usize, key: usize) -> String {
    let prompt = "[[script tokens=8 gap_us=5000 ttft_us=5000]]";
    let body = json!({"model": "scripted", "stream": true, "messages": [{"role": "user", "content": prompt}]});
    let mut reading = Reading::start(mesh, gateway, &format!("Idempotency-Key: key-{key}\r\n"), &body).await;
    let mut words = String::new();
    while let Some(chunk) = reading.next().await {
        words += chunk["choices"][0]["delta"]["content"].as_str().unwrap_or_default();
    }
    words
}

#[test]
fn a_key_that_gateways_bring_to_two_routers_at_once_is_answered_once() {
    on_a_mesh(async |mesh: &mut Mesh| {
        let mut all = std::collections::BTreeSet::new();
        for key in 0..KEYS {
            let (first, second) = tokio::join!(words(mesh, 0, key), words(mesh, 1, key));
            assert_eq!(first, second, "key {key}: one answer for both");
            all.insert(first);
        }
        assert!(all.len() > KEYS / 2, "the words tell answers apart");
    });
}
