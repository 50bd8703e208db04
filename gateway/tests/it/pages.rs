//! Where nobody is asked who they are, no web page from elsewhere gets in: not under a name of its own that it has made point here, and not
//! blindly. Every door that is described is tried, so a new one is, too.

use crate::{
    client,
    documented::{Operation, operations},
    gateway::Gateway,
};

/// What tells nothing of anybody: probes come by whatever name.
const EVERYBODYS: [&str; 6] = ["/", "/docs", "/health", "/metrics", "/openapi.json", "/ready"];
/// The settings that let in names and pages: each refusal names its own.
const HOSTS: &str = "UNBROKEN_HOSTS";
const PAGES: &str = "UNBROKEN_CORS_ORIGINS";

/// Which setting would let a request with these headers in at a door; nothing if it is not refused for its page or its name.
async fn refused(gateway: &Gateway, (method, path): (&str, &str), headers: &str) -> Option<&'static str> {
    let path = path.replace("{id}", "x");
    let head = format!("{method} {path} HTTP/1.1\n{headers}content-type: application/json\ncontent-length: 2");
    let response = client::send(gateway.address, &head, b"{}").await;
    if response.status != 403 {
        return None;
    }
    let body = response.whole().await.body;
    [HOSTS, PAGES].into_iter().find(|setting| body.contains(setting))
}

#[tokio::test]
async fn no_door_serves_a_page_from_elsewhere_or_a_name_that_anybody_could_make_point_here() {
    let gateway = Gateway::before(&[]).await;
    let document = client::get(gateway.address, "/openapi.json").await.json();
    for Operation { method, path, .. } in operations(&document) {
        let door = (method.as_str(), path);
        for (headers, setting) in [
            ("host: evil.example:8080\n", HOSTS),
            ("host: evil.example:8080\norigin: http://evil.example:8080\n", HOSTS),
            ("origin: https://evil.example\n", PAGES),
            ("origin: null\n", PAGES),
            ("sec-fetch-site: cross-site\n", PAGES),
        ] {
            let expected = (!EVERYBODYS.contains(&path)).then_some(setting);
            assert_eq!(refused(&gateway, door, headers).await, expected, "{door:?} {headers:?}");
        }
        for headers in ["host: 127.0.0.1:8080\n", "origin: http://localhost:8080\nhost: 127.0.0.1:8080\n"] {
            assert_eq!(refused(&gateway, door, headers).await, None, "{door:?} {headers:?}");
        }
    }
}

#[tokio::test]
async fn the_operator_names_the_hosts_and_the_pages_that_may() {
    let settings = ["--hosts", "gateway,chat.example.com", "--cors-origins", "https://page.example.com"];
    let gateway = Gateway::with(&[], &settings).await;
    let door = ("GET", "/v1/models");
    for headers in [
        "host: gateway:8080\n",
        "host: chat.example.com\norigin: https://chat.example.com\n",
        "host: gateway:8080\norigin: https://page.example.com\n",
    ] {
        assert_eq!(refused(&gateway, door, headers).await, None, "{headers}");
    }
    let (other_host, other_page) = (
        "host: other.example.com\n",
        "host: gateway:8080\norigin: https://chat.example.com\n",
    );
    assert_eq!(refused(&gateway, door, other_host).await, Some(HOSTS));
    assert_eq!(refused(&gateway, door, other_page).await, Some(PAGES));
}

#[tokio::test]
async fn where_everybody_says_who_they_are_any_name_will_do() {
    let secret = "a-key-secret-of-thirty-two-characters-and-more";
    let gateway = Gateway::with(&[], &["--auth", "on", "--key-secret", secret]).await;
    let head = "GET /v1/models HTTP/1.1\nhost: chat.example.com\norigin: https://page.example.com";
    assert_eq!(client::send(gateway.address, head, b"").await.status, 401);
}
