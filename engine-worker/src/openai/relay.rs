//! One answer from the server's stream into its journal, under three clocks: connect (the client's own), first token, between
//! tokens. However it ends, the request is dropped, and the server sees that nobody waits.

use std::{pin::pin, time::Duration};

use futures_util::StreamExt as _;
use proto::v1::{Failure, Reason, Usage};
use reqwest::{
    RequestBuilder, Response,
    header::{self, HeaderName},
};
use tokio::time::{Instant, timeout, timeout_at};

use super::{continuation::Made, dialect::Dialect, failure::of_status, hearing::Hearing};
use crate::answer::Answer;

/// OpenAI's finer `Retry-After`.
const RETRY_AFTER_MS: HeaderName = HeaderName::from_static("retry-after-ms");
/// The most bytes of an error's body that are read.
const ERROR_BYTES: usize = 16 * 1024;
/// How long the usage may take once every choice has ended: some servers never close.
const TAIL: Duration = Duration::from_secs(2);
/// How long the last event may take once the usage is known, too: only a server that is slow to say goodbye has anything left to say.
const GOODBYE: Duration = Duration::from_millis(100);

/// How long the server may be silent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clocks {
    pub(super) first_token: Duration,
    pub(super) idle: Duration,
}

/// Why a stream is not read on.
enum Stop {
    /// The journal takes nothing more.
    Over,
    /// The answer broke off.
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// One call of the server.
pub(super) struct Call {
    pub(super) request: RequestBuilder,
    pub(super) dialect: Dialect,
    pub(super) choices: u32,
    /// What was made before.
    pub(super) made: Made,
    pub(super) clocks: Clocks,
}

/// Makes the call and writes the answer.
pub(super) async fn relay(call: Call, mut answer: Answer) {
    let made = call.made;
    let mut hearing = Hearing::new(call.dialect, call.choices);
    let cancelled = answer.cancelled();
    let read = read(call.request, call.clocks, &mut hearing, &mut answer);
    let outcome = tokio::select! {
        biased;
        () = cancelled => return,
        outcome = read => outcome,
    };
    let told = hearing.told;
    if let Some(usage) = told.usage {
        answer.set_usage(made.add_to(usage));
    } else if let Some(input) = told.input {
        answer.set_usage(Usage {
            prompt_tokens: input.prompt_tokens,
            cached_tokens: input.cached_tokens,
            ..answer.usage()
        });
    }
    match outcome.and_then(|()| Ok(told.ends()?)) {
        Ok(ends) => answer.finish(ends),
        Err(Stop::Failed(failure)) => answer.fail(failure),
        Err(Stop::Over) => {}
    }
}

async fn read(request: RequestBuilder, clocks: Clocks, hearing: &mut Hearing, answer: &mut Answer) -> Result<(), Stop> {
    let mut deadline = Instant::now() + clocks.first_token;
    let silent = |what: &str| Failure::new(Reason::Timeout, format!("the server behind this worker sent no {what} in time"));
    let response = timeout_at(deadline, request.send()).await.map_err(|_| silent("first token"))?;
    let response = accept(response.map_err(|error| unreachable(&error))?).await?;
    let mut pieces = pin!(response.bytes_stream());
    let mut first = true;
    while !hearing.told.done {
        let whole = hearing.told.is_whole();
        if whole {
            let tail = if hearing.told.usage.is_some() { GOODBYE } else { TAIL };
            deadline = deadline.min(Instant::now() + tail);
        }
        let piece = match timeout_at(deadline, pieces.next()).await {
            Ok(None) => break,
            Ok(Some(Ok(piece))) => piece,
            Ok(Some(Err(_))) | Err(_) if whole => break,
            Ok(Some(Err(error))) => return Err(broke(&error).into()),
            Err(_) => return Err(silent(if first { "first token" } else { "token" }).into()),
        };
        let outcome = hearing.feed(&piece);
        // Only entries are a sign of life: keep-alives and announcements come also from a server that is stuck.
        if !hearing.told.entries.is_empty() {
            first = false;
            deadline = Instant::now() + clocks.idle;
        }
        for entry in hearing.told.entries.drain(..) {
            answer.push(entry).map_err(|_| Stop::Over)?;
        }
        outcome?;
    }
    Ok(())
}

/// Takes a response that is a stream of events; anything else is a failure.
async fn accept(response: Response) -> Result<Response, Failure> {
    let status = response.status();
    let text = |name| response.headers().get(name).and_then(|value| value.to_str().ok());
    if status.is_success() {
        return match text(header::CONTENT_TYPE) {
            Some(kind) if kind.starts_with("text/event-stream") => Ok(response),
            kind => Err(Failure::new(
                Reason::Upstream,
                format!(
                    "the server behind this worker answered with {}, not with a stream of events",
                    kind.unwrap_or("no type")
                ),
            )),
        };
    }
    let number = |name| text(name).and_then(|text| text.parse().ok());
    let retry_after = number(RETRY_AFTER_MS)
        .map(Duration::from_millis)
        .or_else(|| number(header::RETRY_AFTER).map(Duration::from_secs));
    let body = bounded(response, ERROR_BYTES).await;
    Err(of_status(status.as_u16(), &body, retry_after))
}

/// The first bytes of a body, `most` at most, as far as they come in a moment.
pub(super) async fn bounded(response: Response, most: usize) -> Vec<u8> {
    let mut body = Vec::new();
    let mut pieces = pin!(response.bytes_stream());
    while body.len() < most
        && let Ok(Some(Ok(piece))) = timeout(TAIL, pieces.next()).await
    {
        body.extend_from_slice(&piece[..piece.len().min(most - body.len())]);
    }
    body
}

/// The server was not reached. The error's text names the address, which the caller need not know.
pub(super) fn unreachable(error: &reqwest::Error) -> Failure {
    let what = if error.is_connect() {
        "cannot be reached"
    } else {
        "did not take the request"
    };
    Failure::new(Reason::Unavailable, format!("the server behind this worker {what}"))
}

fn broke(error: &reqwest::Error) -> Failure {
    tracing::debug!(%error, "an upstream's stream broke");
    Failure::new(
        Reason::Upstream,
        "the connection to the server behind this worker broke in the middle of the answer",
    )
}
