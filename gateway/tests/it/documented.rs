//! The document of the doors, and the page that shows it, as they are served.

use serde_json::Value;

use crate::{client, gateway::Gateway};

#[tokio::test]
async fn every_documented_door_is_there() {
    let gateway = Gateway::before(&[]).await;
    let document = client::get(gateway.address, "/openapi.json").await;
    assert_eq!((document.status, document.header("content-type")), (200, Some("application/json")));
    let document = document.json();
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"), "{}", document["openapi"]);
    for Operation { method, path, responses } in operations(&document) {
        let at = path.replace("/v1/responses/{id}", "/v1/responses/resp_x").replace("{id}", "x");
        let response = client::request(gateway.address, &method, &at, "").await;
        assert!(
            responses.contains_key(&response.status.to_string()),
            "{method} {path}: {}",
            response.status
        );
        if response.status == 404 {
            let body = response.whole().await.json();
            assert_ne!(body["error"]["code"], "not_found", "{method} {path}: {body}");
        }
    }
}

#[tokio::test]
async fn every_door_that_asks_who_comes_says_how_it_refuses() {
    let secret = "a-key-secret-of-thirty-two-characters-and-more";
    let gateway = Gateway::with(&[], &["--auth", "on", "--key-secret", secret]).await;
    let document = client::get(gateway.address, "/openapi.json").await.json();
    let mut guarded = 0;
    for Operation { method, path, responses } in operations(&document) {
        let answered = client::request(gateway.address, &method, &path.replace("{id}", "x"), "").await;
        if answered.status == 401 {
            guarded += 1;
            for status in ["401", "403"] {
                assert!(responses.contains_key(status), "{method} {path} says nothing of {status}");
            }
        }
    }
    assert!(guarded > 20, "{guarded}");
}

#[tokio::test]
async fn every_schema_that_is_referred_to_is_there() {
    let gateway = Gateway::before(&[]).await;
    let document = client::get(gateway.address, "/openapi.json").await.json();
    let mut references = Vec::new();
    collect(&document, &mut references);
    assert!(!references.is_empty());
    for reference in references {
        let pointer = reference.strip_prefix('#').unwrap();
        assert!(document.pointer(pointer).is_some(), "{reference} is nowhere");
    }
}

/// What the document says of a door.
pub(crate) struct Operation<'a> {
    pub(crate) method: String,
    pub(crate) path: &'a str,
    pub(crate) responses: &'a serde_json::Map<String, Value>,
}

/// All doors of the document.
pub(crate) fn operations(document: &Value) -> Vec<Operation<'_>> {
    let mut operations = Vec::new();
    for (path, methods) in document["paths"].as_object().unwrap() {
        operations.extend(methods.as_object().unwrap().iter().map(|(method, operation)| Operation {
            method: method.to_uppercase(),
            path,
            responses: operation["responses"].as_object().unwrap(),
        }));
    }
    operations
}

fn collect<'a>(value: &'a Value, references: &mut Vec<&'a str>) {
    match value {
        Value::Object(fields) => {
            references.extend(fields.get("$ref").and_then(Value::as_str));
            fields.values().for_each(|value| collect(value, references));
        }
        Value::Array(items) => items.iter().for_each(|value| collect(value, references)),
        _ => {}
    }
}

#[tokio::test]
async fn the_page_of_the_document_needs_nothing_from_elsewhere() {
    let gateway = Gateway::before(&[]).await;
    let page = client::get(gateway.address, "/docs").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    assert!(page.header("content-security-policy").unwrap().contains("connect-src 'self'"));
    assert!(
        !page.body.contains("http://127") && !page.body.contains("https://"),
        "it loads from elsewhere"
    );
}
