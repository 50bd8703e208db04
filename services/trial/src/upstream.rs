//! A plain SSE server in OpenAI's format: what nginx stands in front of. It does nothing but keep the pace.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::{Request, Response, header};
use http_body_util::{BodyExt as _, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    net::TcpListener,
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};

/// A scripted answer: the same directive that the mesh's scripted engine understands.
#[derive(Clone)]
struct Script {
    id: String,
    tokens: u64,
    gap: Duration,
    first: Duration,
    aligned: bool,
}

impl Script {
    fn find(body: &str) -> Option<Self> {
        let directive = body.split_once("[[script ")?.1.split_once("]]")?.0;
        let value = |key: &str| {
            directive
                .split_whitespace()
                .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
        };
        let micros = |key| Duration::from_micros(value(key).and_then(|text| text.parse().ok()).unwrap_or(0));
        Some(Self {
            id: value("id")?.to_owned(),
            tokens: value("tokens")?.parse().ok()?,
            gap: micros("gap_us"),
            first: micros("ttft_us"),
            aligned: value("step") == Some("1"),
        })
    }
}

/// Serves until the process is stopped.
pub async fn serve(listen: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(listen).await?;
    let start = Instant::now();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(async move {
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service_fn(move |request| answer(request, start)));
            let _ = connection.await; // the client went: nothing to do
        });
    }
}

async fn answer(request: Request<Incoming>, start: Instant) -> Result<Response<UnsyncBoxBody<Bytes, Infallible>>, Infallible> {
    let body = request
        .into_body()
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    let body = String::from_utf8_lossy(&body);
    let Some(script) = Script::find(&body) else {
        return Ok(Response::new(Full::new(Bytes::from_static(b"no script")).boxed_unsync()));
    };
    if !body.contains("\"stream\":true") {
        let tokens: Vec<_> = (0..script.tokens).map(|token| format!("{}.{token} ", script.id)).collect();
        let text = tokens.concat();
        let answer = format!("{{\"choices\":[{{\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\"}}}}]}}");
        return Ok(Response::builder()
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::from(answer).boxed_unsync())
            .unwrap_or_default());
    }
    let events = events(script, start).map(|bytes| Ok(Frame::data(bytes)));
    let response = Response::builder()
        .header(header::CONTENT_TYPE, "text/event-stream")
        .body(StreamBody::new(events).boxed_unsync());
    Ok(response.unwrap_or_default())
}

/// One event for each token, then the end. Each leaves in a write of its own, as servers of models send them: before it the stream is
/// pending once, and hyper flushes what it has.
fn events(script: Script, start: Instant) -> impl futures_util::Stream<Item = Bytes> + Send {
    let due = async move {
        sleep(script.first).await;
        if !script.aligned || script.gap.is_zero() {
            return Instant::now();
        }
        let steps = u32::try_from(start.elapsed().as_micros() / script.gap.as_micros()).unwrap_or(0) + 1;
        start + script.gap * steps
    };
    stream::once(due).flat_map(move |mut due| {
        let Script { id, gap, tokens, .. } = script.clone();
        let event = move |token: u64| {
            if token == tokens {
                return Bytes::from_static(b"data: [DONE]\n\n");
            }
            Bytes::from(format!(
                "data: {{\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{{\"index\":0,\"delta\":{{\"content\":\"{id}.{token} \"}},\"finish_reason\":null}}]}}\n\n"
            ))
        };
        stream::iter(0..=tokens).then(move |token| {
            let (event, at) = (event(token), due);
            due += gap;
            async move {
                yield_now().await;
                if token < tokens && !gap.is_zero() {
                    sleep_until(at).await;
                }
                event
            }
        })
    })
}
