//! Background responses: polled, queued, cancelled.

use super::*;

#[tokio::test]
async fn a_background_response_is_polled_until_it_has_ended() {
    let stored = Stored::start().await;
    let mut body = ask();
    body["background"] = true.into();
    let (made, (received, request)) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.admit(&request.stream_id).await;
        (received, request)
    });
    assert_eq!(request.disconnect(), proto::v1::DisconnectPolicy::Background);
    assert_eq!(
        (&made.json()["status"], &made.json()["output"]),
        (&"in_progress".into(), &json!([]))
    );
    assert!(stored.router.next().await.is_detach(false), "nobody reads it");
    let path = format!("/v1/responses/{}", id(&made));
    let poll = async |entries: Vec<Entry>| {
        let (shown, ()) = tokio::join!(stored.get(&path), async {
            let (attached, _) = stored.router.attached().await;
            attached.admit(&request.stream_id).await;
            if !entries.is_empty() {
                attached.entries(0, entries).await;
            }
        });
        shown.json()
    };
    assert_eq!(poll(Vec::new()).await["status"], "queued");
    stored.router.next().await; // it detaches
    let running = poll(texts(&["Hel"])).await;
    assert_eq!(
        (&running["status"], &running["output"][0]["content"][0]["text"]),
        (&"in_progress".into(), &"Hel".into())
    );
    stored.router.next().await;
    // It has ended, and the store does not know yet.
    assert_eq!(poll(hello()).await["status"], "completed");
    stored.finish(&request, &hello()).await;
    let shown = stored.get(&path).await.json();
    assert_eq!(
        (&shown["status"], &shown["usage"]["output_tokens"]),
        (&"completed".into(), &3.into())
    );
    drop(received);
}

#[tokio::test]
async fn a_background_response_that_waits_for_a_slot_is_queued() {
    let stored = Stored::start().await;
    let mut body = ask();
    body["background"] = true.into();
    let (made, (_received, _)) = tokio::join!(stored.post("/v1/responses", &body), stored.router.started());
    assert_eq!(made.json()["status"], "queued");
}

#[tokio::test]
async fn a_background_response_says_that_it_was_queued() {
    let stored = Stored::start().await;
    let mut body = stream();
    body["background"] = true.into();
    let (made, _) = stored.ask(&body, hello()).await;
    let types: Vec<&str> = made.body.lines().filter_map(|line| line.strip_prefix("event: ")).take(3).collect();
    assert_eq!(types, ["response.created", "response.queued", "response.in_progress"]);
}

#[tokio::test]
async fn what_was_cancelled_says_so() {
    let stored = Stored::start().await;
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::cancelled(Usage::default()));
    let (made, request) = stored.ask(&ask(), entries).await;
    assert_eq!(made.json()["status"], "cancelled");
    let path = format!("/v1/responses/resp_{}/cancel", request.stream_id);
    let again = stored.post(&path, &json!({})).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &"cancelled".into()));
}
