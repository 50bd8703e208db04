//! Tickets for sockets, and tokens for streams: what a browser can say of itself.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use super::{Guarded, id_of};
use crate::stream::{Events, message, script, tokens};

#[tokio::test(flavor = "multi_thread")]
async fn a_ticket_opens_one_socket() {
    let mesh = Guarded::start(&[("UNBROKEN_CORS_ORIGINS", "https://chat.example.com")]).await;
    let key = mesh.key(&["--user", "ann"]);
    let address = format!("ws://{}/ws/chat", mesh.mesh.http);
    let open = async |protocols: &str, origin: &str| {
        let mut request = address.as_str().into_client_request().unwrap();
        let headers = request.headers_mut();
        if !protocols.is_empty() {
            headers.insert("sec-websocket-protocol", protocols.parse().unwrap());
        }
        if !origin.is_empty() {
            headers.insert("origin", origin.parse().unwrap());
        }
        match connect_async(request).await {
            Ok((socket, response)) => {
                let chosen = response
                    .headers()
                    .get("sec-websocket-protocol")
                    .map(|name| name.to_str().unwrap().to_owned());
                Ok((socket, chosen))
            }
            Err(Error::Http(response)) => Err(response.status().as_u16()),
            Err(error) => panic!("{error}"),
        }
    };
    let protocols = |ticket: &Value| {
        format!(
            "{}, {}",
            ticket["protocols"][0].as_str().unwrap(),
            ticket["protocols"][1].as_str().unwrap()
        )
    };

    assert_eq!(open("", "").await.err(), Some(401));
    assert_eq!(open("unbroken.v1, ticket.forged", "").await.err(), Some(401));
    let ticket = protocols(&mesh.ticket(&key, json!({})).await);
    let (mut socket, chosen) = open(&ticket, "https://chat.example.com").await.unwrap();
    assert_eq!(chosen.as_deref(), Some("unbroken.v1"), "and not the ticket");
    assert_eq!(open(&ticket, "").await.err(), Some(401), "once");
    // An answer's stream token is no ticket, and a ticket no stream token.
    let token = mesh.ticket(&key, json!({"for": "stream", "stream_id": "s"})).await["stream_token"]
        .as_str()
        .unwrap()
        .to_owned();
    assert_eq!(open(&format!("unbroken.v1, ticket.{token}"), "").await.err(), Some(401));
    for origin in ["https://evil.example.com", "null", "https://chat.example.com.evil.com"] {
        let fresh = protocols(&mesh.ticket(&key, json!({"for": "websocket"})).await);
        assert_eq!(open(&fresh, origin).await.err(), Some(403), "{origin}");
    }

    let prompt = json!({"prompt": script("w", 2, Duration::ZERO)}).to_string();
    let mut turn = async || {
        futures_util::SinkExt::send(&mut socket, Message::text(prompt.clone()))
            .await
            .unwrap();
        loop {
            let said = message(&mut socket).await;
            if said["type"] != "token" {
                return said;
            }
        }
    };
    assert_eq!(turn().await["type"], "done");
    mesh.operator(&["revoke", id_of(&key)]).unwrap();
    let revoked = Instant::now();
    loop {
        let said = turn().await;
        if said["type"] == "error" {
            let code = said["error"]["code"].as_str().unwrap(); // the turn was begun, or it was not
            assert!(
                ["invalid_api_key", "revoked"].contains(&code),
                "an open socket does not outlive its key: {code}"
            );
            break;
        }
        assert!(revoked.elapsed() < Duration::from_secs(2), "still served");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_token_starts_one_answer_or_reads_one() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann"]);
    let prompt = script("t", 5, Duration::from_millis(1));
    let made = mesh
        .ticket(&key, json!({"for": "start", "query": {"prompt": prompt, "max_tokens": 5}}))
        .await;
    let (token, once) = (made["stream_token"].as_str().unwrap(), made["idempotency_key"].as_str().unwrap());
    let get = async |query: &[(&str, &str)], header: Option<&str>| {
        let mut request = mesh.client.get(mesh.url("/stream")).query(query);
        if let Some(last) = header {
            request = request.header("last-event-id", last);
        }
        request.send().await.unwrap()
    };
    let asked = [
        ("prompt", prompt.as_str()),
        ("max_tokens", "5"),
        ("idempotency_key", once),
        ("stream_token", token),
    ];
    let first = get(&asked, None).await;
    let stream_id = first.headers()["x-stream-id"].to_str().unwrap().to_owned();
    let (text, done) = tokens(&Events::new(first).rest().await);
    assert!(done && text == "t.0 t.1 t.2 t.3 t.4 ", "{text}");
    // It comes back with the same address, as an EventSource does, and reads on.
    let rest = get(&asked, Some(&format!("{stream_id}.1"))).await;
    assert_eq!(tokens(&Events::new(rest).rest().await).0, "t.2 t.3 t.4 ");

    for other in [
        [
            ("prompt", "something else"),
            ("max_tokens", "5"),
            ("idempotency_key", once),
            ("stream_token", token),
        ],
        [
            ("prompt", &prompt),
            ("max_tokens", "6"),
            ("idempotency_key", once),
            ("stream_token", token),
        ],
        [
            ("prompt", &prompt),
            ("max_tokens", "5"),
            ("idempotency_key", "another"),
            ("stream_token", token),
        ],
    ] {
        assert_eq!(get(&other, None).await.status(), 403, "{other:?}");
    }
    assert_eq!(get(&[("stream_id", "another"), ("stream_token", token)], None).await.status(), 403);
    for path in ["/v1/models", "/conversations", "/v1/admin/keys"] {
        let response = mesh
            .client
            .get(mesh.url(path))
            .query(&[("stream_token", token)])
            .send()
            .await
            .unwrap();
        assert_eq!(response.status(), 401, "{path}");
    }

    let reading = mesh.ticket(&key, json!({"for": "stream", "stream_id": stream_id})).await;
    let token = reading["stream_token"].as_str().unwrap();
    let again = get(&[("stream_id", &stream_id), ("offset", "3"), ("stream_token", token)], None).await;
    assert_eq!(tokens(&Events::new(again).rest().await).0, "t.3 t.4 ");
    assert_eq!(
        get(&[("prompt", "x"), ("stream_token", token)], None).await.status(),
        403,
        "it starts nothing"
    );
    // One for an answer of somebody else's reads nothing: the router knows whose it is.
    let eve = mesh.key(&["--user", "eve"]);
    let theirs = mesh.ticket(&eve, json!({"for": "stream", "stream_id": stream_id})).await;
    let theirs = theirs["stream_token"].as_str().unwrap();
    assert_eq!(
        get(&[("stream_id", &stream_id), ("stream_token", theirs)], None).await.status(),
        404
    );
}
