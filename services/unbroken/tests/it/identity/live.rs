//! An identity provider that is asked over HTTP: its keys change, it goes away, it talks nonsense.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    task::JoinHandle,
};

use super::{
    Guarded,
    provider::{Provider, now},
    refusal,
};
use crate::stream::eventually;

/// The least time between two readings of the keys, in these tests.
const PAUSE: Duration = Duration::from_millis(300);
/// How old keys may get while they cannot be read, in these tests.
const STALE: Duration = Duration::from_secs(3);

/// What the provider says when it is asked for its keys.
#[derive(Clone)]
enum Says {
    /// This, with status 200.
    Keys(Vec<u8>),
    /// That it has a fault.
    Nothing,
}

/// A provider that is asked for its keys at an address.
struct Live {
    address: String,
    says: Arc<Mutex<Says>>,
    asked: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Live {
    async fn start(says: Says) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}/keys", listener.local_addr().unwrap());
        let (says, asked) = (Arc::new(Mutex::new(says)), Arc::new(AtomicUsize::new(0)));
        let task = tokio::spawn(serve(listener, Arc::clone(&says), Arc::clone(&asked)));
        Self {
            address,
            says,
            asked,
            task,
        }
    }

    fn say(&self, says: Says) {
        *self.says.lock().unwrap() = says;
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }

    /// A mesh that takes its tokens.
    async fn mesh(&self, refresh: &str) -> Guarded {
        Guarded::start(&[
            ("UNBROKEN_JWT_JWKS", self.address.as_str()),
            ("UNBROKEN_JWT_ISSUER", "https://login.example.com"),
            ("UNBROKEN_JWT_AUDIENCE", "unbroken"),
            ("UNBROKEN_JWT_REFRESH", refresh),
            ("UNBROKEN_JWT_PAUSE", "300ms"),
            ("UNBROKEN_JWT_STALE", "3s"),
        ])
        .await
    }
}

impl Drop for Live {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, says: Arc<Mutex<Says>>, asked: Arc<AtomicUsize>) {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0 {}
        assert!(head.starts_with(b"GET /keys HTTP/1.1\r\n"), "{:?}", String::from_utf8_lossy(&head));
        asked.fetch_add(1, Ordering::SeqCst);
        let says = says.lock().unwrap().clone();
        let (status, body) = match says {
            Says::Keys(body) => ("200 OK", body),
            Says::Nothing => ("500 Internal Server Error", Vec::new()),
        };
        let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", body.len());
        // Who asked may hang up before all of too large a set has come.
        let _ = stream.write_all(&[head.as_bytes(), &body].concat()).await;
    }
}

fn keys(providers: &[&Provider]) -> Says {
    let keys: Vec<Value> = providers.iter().map(|provider| provider.jwk()).collect();
    Says::Keys(json!({"keys": keys}).to_string().into_bytes())
}

/// A token of `user`: none of them was seen before, so each is judged by the keys.
fn token(provider: &Provider, user: &str) -> String {
    provider.token(
        &json!({"alg": "EdDSA", "kid": provider.name}),
        &json!({"iss": "https://login.example.com", "aud": "unbroken", "exp": now() + 300, "sub": user}),
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_are_read_at_first_need_and_again_for_a_new_one_but_not_for_every_made_up_one() {
    let (one, two) = (Provider::named("one", 7), Provider::named("two", 8));
    let live = Live::start(keys(&[&one])).await;
    let mesh = live.mesh("10m").await;
    assert_eq!(live.asked(), 0, "nobody has come with a token");
    for user in ["ann", "bob", "eve"] {
        assert_eq!(mesh.get("/v1/models", &token(&one, user)).await.status(), 200, "{user}");
    }
    assert_eq!(live.asked(), 1, "for all of them");

    let begun = Instant::now();
    for number in 0..40 {
        let made_up = Provider::named(&format!("made-up-{number}"), 9);
        let (status, code, _) = refusal(mesh.get("/v1/models", &token(&made_up, "mallory")).await).await;
        assert_eq!((status, code.as_str()), (401, "invalid_token"));
    }
    let most = 2 + usize::try_from(begun.elapsed().as_millis() / PAUSE.as_millis()).unwrap();
    assert!(
        (1..=most).contains(&live.asked()),
        "asked {} times for 40 made-up keys",
        live.asked()
    );

    // The provider has a new key beside the old one, then only that.
    live.say(keys(&[&one, &two]));
    eventually("the new key is taken", async || {
        mesh.get("/v1/models", &token(&two, "ann")).await.status() == 200
    })
    .await;
    assert_eq!(mesh.get("/v1/models", &token(&one, "zoe")).await.status(), 200, "so is the old one");
    live.say(keys(&[&two]));
    let three = Provider::named("three", 10);
    eventually("the old key is refused once the set was read again", async || {
        mesh.get("/v1/models", &token(&three, "ann")).await;
        mesh.get("/v1/models", &token(&one, &format!("u{}", live.asked()))).await.status() == 401
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_the_provider_is_away_its_known_keys_stay_good_for_a_time() {
    let one = Provider::named("one", 7);
    let live = Live::start(keys(&[&one])).await;
    let mesh = live.mesh("500ms").await;
    let first = token(&one, "ann");
    let read = Instant::now();
    assert_eq!(mesh.get("/v1/models", &first).await.status(), 200);
    live.say(Says::Nothing);
    let mut number = 0;
    let mut try_one = async || {
        number += 1;
        mesh.get("/v1/models", &token(&one, &format!("u{number}"))).await
    };
    let late = loop {
        let answer = try_one().await;
        if answer.status() != 200 {
            break answer;
        }
        assert!(read.elapsed() < STALE * 3, "good for ever");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(read.elapsed() >= STALE, "only for {:?}", read.elapsed());
    assert!(live.asked() > 2, "it was asked again meanwhile");
    let (status, code, _) = refusal(late).await;
    assert_eq!((status, code.as_str()), (503, "unavailable"), "the fault is not the client's");
    live.say(keys(&[&one]));
    eventually("it is back", async || try_one().await.status() == 200).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_set_that_is_none_or_too_large_is_not_taken() {
    let one = Provider::named("one", 7);
    let live = Live::start(Says::Nothing).await;
    let mesh = live.mesh("10m").await;
    let good = json!({"keys": [one.jwk()]}).to_string();
    let large = format!("{{\"filler\":\"{}\",{}", "x".repeat(300 * 1024), &good[1..]);
    for says in [
        Says::Nothing,
        Says::Keys(b"<html>maintenance</html>".to_vec()),
        Says::Keys(b"{\"keys\":{}}".to_vec()),
        Says::Keys(b"{\"keys\":[]}".to_vec()),
        Says::Keys(vec![0xff; 100]),
        Says::Keys(large.into_bytes()),
    ] {
        live.say(says);
        let before = live.asked();
        eventually("it is asked", async || {
            let (status, code, _) = refusal(mesh.get("/v1/models", &token(&one, "ann")).await).await;
            assert_eq!((status, code.as_str()), (503, "unavailable"));
            live.asked() > before
        })
        .await;
    }
    live.say(Says::Keys(good.into_bytes()));
    eventually("a good one is taken", async || {
        mesh.get("/v1/models", &token(&one, "ann")).await.status() == 200
    })
    .await;
    let log = mesh.mesh.process.output();
    for reason in ["is not a JSON Web Key Set", "has more than", "has no key for any"] {
        assert!(log.contains(reason), "the operator is told: {reason}");
    }
}
