//! Whatever a client sends, it is answered or refused, and nothing breaks: bodies, queries, ids of events, keys. [`Doors::check`] is also
//! what `services/trial/fuzz` calls with inputs that libFuzzer makes.
//!
//! An input is a request as a person would write it: `POST /v1/messages`, headers, an empty line, the body. No router is there, so what is
//! right ends as unavailable.

use axum::{Router, body::Body};
use chassis::drain::Drain;
use clap::Parser;
use http::{HeaderName, HeaderValue, Method, Request, StatusCode, Uri, header};
use tokio::runtime::Runtime;
use tower::ServiceExt as _;

/// The most bytes of an answer that are read: the longest page is shorter.
const ANSWER: usize = 4 * 1024 * 1024;

#[derive(Debug, Parser)]
struct Command {
    #[command(flatten)]
    settings: gateway::Settings,
}

/// The doors of a gateway in this process.
pub(crate) struct Doors {
    runtime: Runtime,
    routes: Router,
}

impl Doors {
    pub(crate) fn open() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        Self::with(runtime, &[])
    }

    /// Those of a gateway with these settings.
    pub(crate) fn with(runtime: Runtime, settings: &[&str]) -> Self {
        let always = ["gateway", "--routers", "127.0.0.1:1"];
        let settings = Command::parse_from(always.iter().chain(settings)).settings;
        let routes = runtime.block_on(async { gateway::routes(settings, Drain::new()).unwrap() });
        Self { runtime, routes }
    }

    /// Judges one input, and tells the status that it got; `None` for what is no request.
    pub(crate) fn check(&self, input: &[u8]) -> Option<StatusCode> {
        Some(self.ask(request(input)?))
    }

    /// Judges one request, and tells the status that it got.
    pub(crate) fn ask(&self, request: Request<Body>) -> StatusCode {
        let answered = self.runtime.block_on(async {
            let response = self.routes.clone().oneshot(request).await.unwrap();
            let (head, body) = response.into_parts();
            (head, axum::body::to_bytes(body, ANSWER).await)
        });
        let (head, body) = answered;
        assert_ne!(head.status, StatusCode::INTERNAL_SERVER_ERROR, "a door broke");
        let kind = head.headers.get(header::CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
        if kind.starts_with(b"application/json") {
            let body: serde_json::Value = serde_json::from_slice(&body.unwrap()).expect("what is called JSON is JSON");
            let refused = head.status.is_client_error() || head.status.is_server_error();
            let health = body.get("status").is_some();
            assert!(
                !refused || health || body["error"]["message"].is_string(),
                "a refusal says why: {body}"
            );
        }
        head.status
    }
}

/// The request that an input is.
pub(crate) fn request(input: &[u8]) -> Option<Request<Body>> {
    let end = input.windows(2).position(|two| two == b"\n\n");
    let (head, body) = end.map_or((input, &b""[..]), |end| (&input[..end], &input[end + 2..]));
    let mut lines = head.split(|byte| *byte == b'\n');
    let (method, target) = std::str::from_utf8(lines.next()?).ok()?.split_once(' ')?;
    let mut request = Request::new(Body::from(body.to_vec()));
    *request.method_mut() = Method::from_bytes(method.as_bytes()).ok()?;
    *request.uri_mut() = target.parse::<Uri>().ok().filter(|uri| uri.path().starts_with('/'))?;
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?;
        request.headers_mut().append(name, value);
    }
    // As every client says, so that an input need not.
    request
        .headers_mut()
        .entry(header::HOST)
        .or_insert(HeaderValue::from_static("localhost"));
    Some(request)
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::*;

    /// What breaks parsers.
    const TOKENS: [&str; 20] = [
        "null",
        "-1",
        "0",
        "4294967296",
        "1e99",
        "\"",
        "[",
        "{",
        "}",
        "\\ud800",
        "é",
        "true",
        "\n",
        ".",
        "%00",
        "%ff",
        "&",
        ",\"x\":[[[[",
        "Bearer ",
        "..",
    ];

    fn seeds() -> Vec<Vec<u8>> {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/fuzzed");
        let mut files: Vec<_> = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path()).collect();
        files.sort();
        files.iter().map(|file| std::fs::read(file).unwrap()).collect()
    }

    #[test]
    fn every_seed_is_a_request_that_only_lacks_a_router() {
        let doors = Doors::open();
        for seed in seeds() {
            let status = doors.check(&seed).unwrap();
            // Anthropic's word for it is 529.
            assert!(matches!(status.as_u16(), 503 | 529), "{status}: {}", String::from_utf8_lossy(&seed));
        }
    }

    #[test]
    fn any_change_of_a_good_request_is_answered_or_refused() {
        let (doors, seeds) = (Doors::open(), seeds());
        let change = (any::<prop::sample::Index>(), 0_usize..12, select(&TOKENS[..]));
        let changes = (any::<prop::sample::Index>(), prop::collection::vec(change, 0..5));
        let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(1000));
        let tried = runner.run(&changes, |(which, changes)| {
            let mut bytes = which.get(&seeds).clone();
            for (at, gone, token) in changes {
                let at = at.index(bytes.len() + 1);
                let end = (at + gone).min(bytes.len());
                bytes.splice(at..end, token.bytes());
            }
            doors.check(&bytes);
            Ok(())
        });
        tried.unwrap();
    }
}
