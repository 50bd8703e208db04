//! Who is let in: keys that the operator makes, tokens of an identity provider, tickets for browsers. And that what opens a door is
//! written nowhere.

mod browsers;
mod keys;
mod live;
mod provider;
mod requests;
mod revoked;
mod secrecy;

use std::process::Command;

use reqwest::{Client, Response, StatusCode};
use serde_json::Value;

use crate::processes::{AllInOne, executable, free_address};

/// A mesh that asks who calls.
pub(crate) struct Guarded {
    pub(crate) mesh: AllInOne,
    store: String,
    pub(crate) client: Client,
}

impl Guarded {
    pub(crate) async fn start(settings: &[(&str, &str)]) -> Self {
        let store = free_address();
        let mut all = vec![
            ("UNBROKEN_ENGINE", "scripted"),
            ("UNBROKEN_AUTH", "on"),
            ("UNBROKEN_LIMITS", "off"), // who may is asked here, not how often
            ("UNBROKEN_STORE_LISTEN", store.as_str()),
        ];
        all.extend(settings);
        Self {
            mesh: AllInOne::start(&all).await,
            store,
            client: Client::new(),
        }
    }

    /// Runs `unbroken keys …` as the operator does, and returns what it prints.
    fn operator(&self, arguments: &[&str]) -> Result<String, String> {
        let output = Command::new(executable("unbroken"))
            .arg("keys")
            .args(arguments)
            .env("UNBROKEN_STORE", &self.store)
            .env("UNBROKEN_DATA_DIR", self.mesh.folder.path().join("data"))
            .output()
            .unwrap();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        if output.status.success() {
            Ok(text(output.stdout))
        } else {
            Err(text(output.stderr))
        }
    }

    /// A new key.
    pub(crate) fn key(&self, arguments: &[&str]) -> String {
        let key = self.operator(&[&["create", "--quiet"], arguments].concat()).unwrap();
        key.trim().to_owned()
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.mesh.http)
    }

    pub(crate) async fn get(&self, path: &str, key: &str) -> Response {
        self.client.get(self.url(path)).bearer_auth(key).send().await.unwrap()
    }

    pub(crate) async fn post(&self, path: &str, key: &str, body: Value) -> Response {
        self.client.post(self.url(path)).bearer_auth(key).json(&body).send().await.unwrap()
    }

    async fn ticket(&self, key: &str, body: Value) -> Value {
        let made = self.post("/v1/tickets", key, body).await;
        assert_eq!(made.status(), StatusCode::OK);
        made.json().await.unwrap()
    }
}

fn id_of(key: &str) -> &str {
    key.split('_').nth(2).unwrap()
}

async fn refusal(response: Response) -> (u16, String, Option<String>) {
    let status = response.status().as_u16();
    let challenge = response
        .headers()
        .get("www-authenticate")
        .map(|value| value.to_str().unwrap().to_owned());
    let body: Value = response.json().await.unwrap();
    (status, body["error"]["code"].as_str().unwrap_or_default().to_owned(), challenge)
}
