//! Who is let in: keys that the operator makes, tokens of an identity provider, tickets for browsers. And that what opens a door is
//! written nowhere.

use std::{
    process::Command,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use reqwest::{Client, Response, StatusCode};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Error, Message, client::IntoClientRequest as _},
};

use crate::{
    processes::{AllInOne, executable, free_address},
    stream::{Events, message, script, tokens},
};

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

#[tokio::test(flavor = "multi_thread")]
async fn a_key_opens_the_doors_until_it_is_revoked() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann", "--tenant", "acme", "--name", "laptop"]);
    let chat = json!({"message": script("k", 3, Duration::ZERO)});

    let bare = mesh.client.post(mesh.url("/chat")).json(&chat).send().await.unwrap();
    let (status, code, challenge) = refusal(bare).await;
    assert_eq!(
        (status, code.as_str(), challenge.as_deref()),
        (401, "missing_credentials", Some("Bearer realm=\"unbroken\""))
    );
    let end = if key.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{end}", &key[..key.len() - 1]);
    for wrong in [wrong.as_str(), "none", "ub_live_x", &key.replace("live", "test")] {
        let (status, code, challenge) = refusal(mesh.post("/chat", wrong, chat.clone()).await).await;
        assert_eq!((status, code.as_str()), (401, "invalid_api_key"), "{wrong}");
        assert!(challenge.unwrap().contains("invalid_token"));
    }
    assert_eq!(mesh.post("/chat", &key, chat.clone()).await.status(), 200);
    let as_anthropic = mesh
        .client
        .post(mesh.url("/chat"))
        .header("x-api-key", &key)
        .json(&chat)
        .send()
        .await
        .unwrap();
    assert_eq!(as_anthropic.status(), 200);
    let in_address = mesh
        .client
        .get(mesh.url(&format!("/stream?prompt=x&api_key={key}")))
        .send()
        .await
        .unwrap();
    assert_eq!(refusal(in_address).await.1, "credentials_in_query");
    // What tells nothing of anybody needs no key.
    for path in ["/", "/health", "/ready", "/metrics"] {
        assert_eq!(mesh.client.get(mesh.url(path)).send().await.unwrap().status(), 200, "{path}");
    }

    let list = mesh.operator(&["list"]).unwrap();
    assert!(
        list.contains(id_of(&key)) && list.contains("acme/ann") && list.contains("laptop"),
        "{list}"
    );
    assert!(!list.contains(key.rsplit('_').next().unwrap()), "the secret part is shown once");
    mesh.operator(&["revoke", id_of(&key)]).unwrap();
    let revoked = Instant::now();
    while mesh.post("/chat", &key, chat.clone()).await.status() != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "still taken");
    }
    assert!(mesh.operator(&["list"]).unwrap().contains("revoked"));
    assert!(mesh.operator(&["revoke", "nosuchkey"]).unwrap_err().contains("no such key"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_is_not_good_past_its_time() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann", "--expires", "2s"]);
    assert_eq!(mesh.get("/v1/models", &key).await.status(), 200);
    let made = Instant::now();
    while mesh.get("/v1/models", &key).await.status() == 200 {
        assert!(made.elapsed() < Duration::from_secs(4), "still taken");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_admin_manages_the_keys_of_their_own_tenant() {
    let mesh = Guarded::start(&[]).await;
    let admin = mesh.key(&["--user", "root", "--tenant", "acme", "--role", "admin", "--tier", "pro"]);
    let user = mesh.key(&["--user", "ann", "--tenant", "acme"]);
    let stranger = mesh.key(&["--user", "eve", "--tenant", "other"]);

    for (method, path) in [
        ("GET", "/v1/admin/keys"),
        ("POST", "/v1/admin/keys"),
        ("DELETE", "/v1/admin/keys/x"),
    ] {
        let request = mesh.client.request(method.parse().unwrap(), mesh.url(path)).bearer_auth(&user);
        let (status, code, challenge) = refusal(request.json(&json!({"user": "x"})).send().await.unwrap()).await;
        assert_eq!((status, code.as_str()), (403, "forbidden"), "{method} {path}");
        assert!(challenge.unwrap().contains("insufficient_scope"));
    }
    let made = mesh.post("/v1/admin/keys", &admin, json!({"user": "bob", "name": "phone"})).await;
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.unwrap();
    assert_eq!(
        (&made["tenant"], &made["user"], &made["role"], &made["tier"]),
        (&json!("acme"), &json!("bob"), &json!("user"), &json!("pro"))
    );
    let bob = made["key"].as_str().unwrap().to_owned();
    assert_eq!(mesh.get("/v1/models", &bob).await.status(), 200);
    let greedy = mesh
        .post("/v1/admin/keys", &admin, json!({"user": "bob", "tier": "enterprise"}))
        .await;
    assert_eq!(greedy.status(), 403, "a tier is the operator's to give");
    for (body, param) in [
        (json!({}), "user"),
        (json!({"user": ""}), "user"),
        (json!({"user": "x", "role": "king"}), "role"),
        (json!({"user": "x", "expires_at": -1}), "expires_at"),
    ] {
        let wrong: Value = mesh.post("/v1/admin/keys", &admin, body).await.json().await.unwrap();
        assert_eq!(wrong["error"]["param"], param, "{wrong}");
    }

    let list: Value = mesh.get("/v1/admin/keys", &admin).await.json().await.unwrap();
    let mut users: Vec<&str> = list["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| key["user"].as_str().unwrap())
        .collect();
    users.sort_unstable();
    assert_eq!(users, ["ann", "bob", "root"], "those of the tenant, and no others");
    assert!(!list.to_string().contains("ub_live_"), "no key is in a list");
    let delete = async |id: &str| {
        let request = mesh.client.delete(mesh.url(&format!("/v1/admin/keys/{id}"))).bearer_auth(&admin);
        request.send().await.unwrap().status().as_u16()
    };
    assert_eq!(delete(id_of(&stranger)).await, 404, "another tenant's key is not there");
    assert_eq!(delete(id_of(&bob)).await, 200);
    let revoked = Instant::now();
    while mesh.get("/v1/models", &bob).await.status() != 401 {
        assert!(revoked.elapsed() < Duration::from_secs(2), "still taken");
    }
    assert_eq!(mesh.get("/v1/models", &stranger).await.status(), 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_is_asked_nobody_makes_keys() {
    let mesh = AllInOne::scripted().await;
    let response = Client::new()
        .post(format!("http://{}/v1/admin/keys", mesh.http))
        .json(&json!({"user": "x"}))
        .send()
        .await;
    assert_eq!(response.unwrap().status(), 403);
    assert!(mesh.process.output().contains("UNBROKEN_AUTH is off"), "and it is loudly said");
}

/// An identity provider: its key, and what it signs.
struct Provider {
    key: Ed25519KeyPair,
    folder: TempDir,
}

impl Provider {
    fn new() -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let folder = TempDir::new().unwrap();
        let x = base64(key.public_key().as_ref());
        let set = json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "one", "use": "sig", "alg": "EdDSA", "x": x}]});
        std::fs::write(folder.path().join("jwks.json"), set.to_string()).unwrap();
        Self { key, folder }
    }

    fn token(&self, header: &Value, claims: &Value) -> String {
        let message = format!(
            "{}.{}",
            base64(header.to_string().as_bytes()),
            base64(claims.to_string().as_bytes())
        );
        let signature = base64(self.key.sign(message.as_bytes()).as_ref());
        format!("{message}.{signature}")
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let word = chunk.iter().fold(0_u32, |word, byte| word << 8 | u32::from(*byte)) << (8 * (3 - chunk.len()));
        for place in 0..=chunk.len() {
            text.push(char::from(ALPHABET[(word >> (18 - 6 * place) & 63) as usize]));
        }
    }
    text
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_of_the_identity_provider_opens_the_doors() {
    let provider = Provider::new();
    let jwks = provider.folder.path().join("jwks.json").display().to_string();
    let mesh = Guarded::start(&[
        ("UNBROKEN_JWT_JWKS", &jwks),
        ("UNBROKEN_JWT_ISSUER", "https://login.example.com"),
        ("UNBROKEN_JWT_AUDIENCE", "unbroken"),
    ])
    .await;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let header = json!({"alg": "EdDSA", "kid": "one"});
    let claims =
        json!({"iss": "https://login.example.com", "aud": "unbroken", "exp": now + 300, "sub": "ann", "tenant": "acme", "role": "admin"});
    let good = provider.token(&header, &claims);
    for _ in 0..2 {
        assert_eq!(mesh.get("/v1/admin/keys", &good).await.status(), 200, "an admin, also from memory");
    }
    let with = |name: &str, value: Value| {
        let mut changed = claims.clone();
        changed[name] = value;
        provider.token(&header, &changed)
    };
    for bad in [
        with("exp", json!(now - 31)),
        with("iss", json!("https://evil.example.com")),
        with("aud", json!("another")),
        with("sub", json!("")),
        provider.token(&json!({"alg": "EdDSA", "kid": "two"}), &claims),
        provider.token(&json!({"alg": "HS256", "kid": "one"}), &claims),
        format!(
            "{}.",
            provider
                .token(&json!({"alg": "none", "kid": "one"}), &claims)
                .rsplit_once('.')
                .unwrap()
                .0
        ),
        good[..good.len() - 2].to_owned(),
        "a.b.c".to_owned(),
    ] {
        let (status, code, _) = refusal(mesh.get("/v1/models", &bad).await).await;
        assert_eq!((status, code.as_str()), (401, "invalid_token"), "{bad}");
    }
    // Who is the same by key and by token sees the same.
    let made: Value = mesh
        .post("/conversations", &good, json!({"title": "t"}))
        .await
        .json()
        .await
        .unwrap();
    let key = mesh.key(&["--user", "ann", "--tenant", "acme"]);
    assert_eq!(
        mesh.get(&format!("/conversations/{}", made["id"].as_str().unwrap()), &key)
            .await
            .status(),
        200
    );
}

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
            assert_eq!(said["error"]["code"], "invalid_api_key", "an open socket does not outlive its key");
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

#[tokio::test(flavor = "multi_thread")]
async fn what_opens_a_door_is_written_nowhere() {
    let provider = Provider::new();
    let jwks = provider.folder.path().join("jwks.json").display().to_string();
    let secret = "a-key-secret-of-thirty-two-characters-and-more";
    let mesh = Guarded::start(&[
        (
            "UNBROKEN_LOG",
            "debug,gateway=trace,router=trace,engine_worker=trace,conversation_store=trace,chassis=trace",
        ),
        ("UNBROKEN_KEY_SECRET", secret),
        ("UNBROKEN_JWT_JWKS", &jwks),
        ("UNBROKEN_JWT_ISSUER", "i"),
        ("UNBROKEN_JWT_AUDIENCE", "a"),
    ])
    .await;
    let output = Command::new(executable("unbroken"))
        .args([
            "keys",
            "create",
            "--quiet",
            "--user",
            "ann",
            "--role",
            "admin",
            "--store",
            &mesh.store,
        ])
        .env("UNBROKEN_KEY_SECRET", secret)
        .output()
        .unwrap();
    let key = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let made: Value = mesh
        .post("/v1/admin/keys", &key, json!({"user": "bob"}))
        .await
        .json()
        .await
        .unwrap();
    let bob = made["key"].as_str().unwrap().to_owned();
    let jwt = provider.token(
        &json!({"alg": "EdDSA", "kid": "one"}),
        &json!({"iss": "i", "aud": "b", "exp": 1, "sub": "ann"}),
    );
    let ticket = mesh.ticket(&key, json!({})).await["protocols"][1].as_str().unwrap().to_owned();
    let stream_token = mesh.ticket(&key, json!({"for": "stream", "stream_id": "s"})).await["stream_token"]
        .as_str()
        .unwrap()
        .to_owned();

    let mut bodies = String::new();
    let mut hear = async |request: reqwest::RequestBuilder| bodies.push_str(&request.send().await.unwrap().text().await.unwrap());
    for (name, value) in [
        ("authorization", format!("Bearer {key}")),
        ("authorization", format!("Bearer {bob}x")),
        ("authorization", format!("Bearer {jwt}")),
        ("x-api-key", key.clone()),
        ("authorization", format!("Basic {key}")),
    ] {
        for path in ["/chat", "/v1/chat/completions", "/v1/messages", "/v1/embeddings", "/v1/tickets"] {
            hear(mesh.client.post(mesh.url(path)).header(name, &value).body("{")).await;
        }
        hear(mesh.client.get(mesh.url("/conversations/none")).header(name, &value)).await;
    }
    for query in [
        format!("api_key={key}"),
        format!("access_token={jwt}"),
        format!("q={bob}"),
        format!("stream_token={stream_token}"),
        format!("stream_token={stream_token}x"),
    ] {
        hear(mesh.client.get(mesh.url(&format!("/v1/chat/stream?q=x&{query}")))).await;
    }
    hear(mesh.client.get(mesh.url("/ws/chat")).header("sec-websocket-protocol", &ticket)).await;
    hear(mesh.client.get(mesh.url("/metrics"))).await;
    hear(mesh.client.get(mesh.url("/health"))).await;

    let log = mesh.mesh.process.output();
    assert!(log.contains("trace") || log.contains("TRACE"), "it was logged at length");
    let tails: Vec<&str> = [&key, &bob].iter().map(|key| key.rsplit('_').next().unwrap()).collect();
    let signatures: Vec<&str> = [&jwt, &ticket, &stream_token]
        .iter()
        .map(|token| token.rsplit('.').next().unwrap())
        .collect();
    for canary in tails.into_iter().chain(signatures).chain([secret]) {
        assert!(!log.contains(canary), "{canary} is in the log");
        assert!(!bodies.contains(canary), "{canary} is in an answer");
    }
}

#[test]
fn what_an_operator_gets_wrong_with_keys_is_said_in_one_line() {
    let folder = TempDir::new().unwrap();
    let nobody = free_address();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(executable("unbroken"));
        command
            .arg("keys")
            .args(arguments)
            .env("UNBROKEN_STORE", &nobody)
            .env("UNBROKEN_DATA_DIR", folder.path());
        let output = command.output().unwrap();
        (output.status.code(), String::from_utf8(output.stderr).unwrap())
    };
    let (code, said) = run(&["create", "--user", "ann"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains(&nobody) && said.contains("UNBROKEN_STORE") && said.lines().count() == 1,
        "{said}"
    );
    let (code, said) = run(&["create", "--user", "ann", "--key-secret", "short"]);
    assert!(code == Some(1) && said.contains("UNBROKEN_KEY_SECRET"), "{said}");
    let (code, said) = run(&["create"]);
    assert!(code == Some(64) && said.contains("--user"), "{said}");
}
