//! A small server with faults, and a worker before it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use chassis::drain::Drain;
use engine_worker::{
    openai::{Openai, Settings},
    service::Bounds,
};
use futures_util::{StreamExt as _, stream};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio_stream::wrappers::IntervalStream;

use crate::harness::{Got, Worker, bounds, said, whole, within};

/// What the server does with the next chat.
#[derive(Clone)]
pub(crate) enum Does {
    /// Streams these pieces, then closes.
    Streams(Vec<Vec<u8>>),
    /// Streams these pieces, then says nothing for ever.
    Hangs(Vec<Vec<u8>>),
    /// Streams these pieces, then sends this again and again.
    Pings(Vec<Vec<u8>>, &'static str),
    /// Streams these pieces, then breaks the connection.
    Breaks(Vec<Vec<u8>>),
    /// Refuses, with this `Retry-After`.
    Refuses(u16, &'static str),
}

/// What the server has seen.
#[derive(Default)]
pub(crate) struct Seen {
    path: Mutex<String>,
    headers: Mutex<HeaderMap>,
    pub(crate) body: Mutex<Value>,
    /// Streams that are open.
    open: AtomicU32,
}

#[derive(Clone)]
struct Server {
    does: Arc<Does>,
    seen: Arc<Seen>,
}

struct Open(Arc<Seen>);

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Seen {
    /// Where the last request went.
    pub(crate) fn path(&self) -> String {
        self.path.lock().clone()
    }

    /// A header of the last request; empty if it had none.
    pub(crate) fn header(&self, name: &str) -> String {
        let headers = self.headers.lock();
        headers.get(name).map_or(String::new(), |value| value.to_str().unwrap().to_owned())
    }

    /// How many streams are open.
    pub(crate) fn open(&self) -> u32 {
        self.open.load(Ordering::SeqCst)
    }

    /// Waits until all streams are closed.
    pub(crate) async fn closed(&self) {
        within(async {
            while self.open() > 0 {
                tokio::task::yield_now().await;
            }
        })
        .await;
    }
}

/// How a stream ends.
#[derive(Clone, Copy)]
enum Ends {
    Well,
    Never,
    Pinging(&'static str),
    Badly,
}

/// How often a server that has nothing to say pings, and how soon one that breaks does.
const PING: Duration = Duration::from_millis(10);

async fn ask(State(server): State<Server>, uri: Uri, headers: HeaderMap, Json(body): Json<Value>) -> Response {
    *server.seen.body.lock() = body;
    *server.seen.headers.lock() = headers;
    uri.path().clone_into(&mut server.seen.path.lock());
    let (pieces, ends) = match &*server.does {
        Does::Refuses(status, body) => {
            return (StatusCode::from_u16(*status).unwrap(), [(header::RETRY_AFTER, "3")], *body).into_response();
        }
        Does::Streams(pieces) => (pieces.clone(), Ends::Well),
        Does::Hangs(pieces) => (pieces.clone(), Ends::Never),
        Does::Pings(pieces, ping) => (pieces.clone(), Ends::Pinging(ping)),
        Does::Breaks(pieces) => (pieces.clone(), Ends::Badly),
    };
    server.seen.open.fetch_add(1, Ordering::SeqCst);
    let open = Open(Arc::clone(&server.seen));
    let end = match ends {
        Ends::Well => stream::empty().boxed(),
        Ends::Never => stream::pending().boxed(),
        Ends::Pinging(ping) => IntervalStream::new(tokio::time::interval(PING))
            .map(|_| Ok(Bytes::from_static(ping.as_bytes())))
            .boxed(),
        // A moment later: what is written together with the break is lost with it.
        Ends::Badly => IntervalStream::new(tokio::time::interval(PING))
            .skip(1)
            .map(|_| Err(std::io::Error::other("the connection breaks")))
            .boxed(),
    };
    // Each piece in a turn of its own, so that it is written by itself.
    let pieces = stream::iter(pieces).then(|piece| async {
        tokio::task::yield_now().await;
        Ok(Bytes::from(piece))
    });
    let all = pieces.chain(end).map(move |piece| {
        let _open = &open;
        piece
    });
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::from_stream(all)).into_response()
}

async fn count(State(server): State<Server>, Json(body): Json<Value>) -> Json<Value> {
    *server.seen.body.lock() = body;
    Json(json!({"count": 11}))
}

async fn embeddings(Json(body): Json<Value>) -> Json<Value> {
    let inputs = body["input"].as_array().unwrap().len();
    let data: Vec<Value> = (0..inputs)
        .rev()
        .map(|index| json!({"index": index, "embedding": [3.0, 4.0]}))
        .collect();
    Json(json!({"data": data, "usage": {"prompt_tokens": 5}}))
}

fn upstream(does: Does) -> (String, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let models =
        json!({"data": [{"id": "m", "created": 7, "created_at": "1970-01-02T00:00:00Z", "max_model_len": 4096, "owned_by": "somebody"}]});
    let router = Router::new()
        .route("/v1/models", get(move || async move { Json(models) }))
        .route("/v1/chat/completions", post(ask))
        .route("/v1/completions", post(ask))
        .route("/tokenize", post(count))
        .route("/v1/responses", post(ask))
        .route("/v1/messages/count_tokens", post(count))
        .route("/v1/messages", post(ask))
        .route("/v1/embeddings", post(embeddings))
        .with_state(Server {
            does: Arc::new(does),
            seen: Arc::clone(&seen),
        });
    let listener = chassis::listen::listen("127.0.0.1:0", "test").unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(chassis::http::serve(
        listener,
        router.into_service(),
        chassis::http::Limits::default(),
        Drain::new(),
    ));
    (format!("http://{address}/v1"), seen)
}

pub(crate) async fn worker(does: Does) -> (Worker, Arc<Seen>) {
    worker_with(does, Settings::default()).await
}

pub(crate) async fn worker_with(does: Does, settings: Settings) -> (Worker, Arc<Seen>) {
    let (address, seen) = upstream(does);
    let drain = Drain::new();
    let settings = Settings {
        upstream: Some(address),
        upstream_key: Some("sesame".to_owned().into()),
        upstream_seats: 2,
        ..settings
    };
    let engine = within(Openai::connect(&settings, &drain)).await.unwrap();
    (Worker::over(engine, Bounds { queue: 0, ..bounds() }, drain), seen)
}

/// The answer of a worker to a greeting.
pub(crate) async fn answer(worker: &Worker) -> Got {
    let call = worker.client().await.generate(said("a", "hi")).await.unwrap();
    whole(call.into_inner()).await
}

/// Each event as a piece of its own.
pub(crate) fn pieces(events: &[String]) -> Vec<Vec<u8>> {
    events.iter().map(|event| event.clone().into_bytes()).collect()
}
