//! Keeps the connection to one worker: dials, listens to its load, reads its exchange, and dials again.
//!
//! [`keep`] runs as one task for each worker. A worker that is silent past the limit counts as dead even if its socket is open:
//! a stopped process or a cut cable says nothing.

use std::{future::poll_fn, sync::Arc, task::Poll, time::Duration};

use futures_util::StreamExt as _;
use proto::v1::{Failure, GenerateResponse, Load, Reason, WatchLoadRequest, WorkerState, engine_service_client::EngineServiceClient};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming, transport::Channel};

use super::{COMMANDS, Worker, growing};

/// How often a worker is asked to say that it lives.
const HEARTBEAT: Duration = Duration::from_millis(400);
/// The first pause before dialling again: a worker that restarts is back soon.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// And the longest: a worker that comes back is found within it.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// A connection that lasted so long, as long as any pause, was a good one: pauses begin small again.
const GOOD_LINE: Duration = LONGEST_PAUSE;
/// Messages that are taken in one turn, so that the load is heard in between.
const TURN: usize = 256;

/// Keeps the connection until the task is dropped.
pub(crate) async fn keep(worker: Arc<Worker>, silence: Duration) {
    let mut failures = 0;
    loop {
        let begun = Instant::now();
        let reason = match connected(&worker, silence).await {
            Ok(never) => match never {},
            Err(reason) => reason,
        };
        if begun.elapsed() >= GOOD_LINE {
            failures = 0;
        }
        if worker.set_state(WorkerState::Ejected, &reason) {
            tracing::warn!(worker = %worker.address, %reason, "the worker is away");
        }
        worker.closed(&Failure::new(Reason::WorkerLost, format!("the worker was lost: {reason}")));
        sleep(growing(FIRST_PAUSE, LONGEST_PAUSE, failures)).await;
        failures += 1;
    }
}

/// One connection, from dialling to its end. Says why it ended.
async fn connected(worker: &Arc<Worker>, silence: Duration) -> Result<std::convert::Infallible, String> {
    let endpoint = chassis::channel::endpoint(&worker.address).map_err(|error| error.to_string())?;
    let channel = chassis::channel::connect(&endpoint).await.map_err(|error| cause(&error))?;
    let mut client = EngineServiceClient::new(channel)
        .max_decoding_message_size(proto::MAX_DECODED_MESSAGE)
        .max_encoding_message_size(proto::MAX_ENCODED_MESSAGE);
    let (commands, mut load, mut inbound) = timeout(silence, open(&mut client))
        .await
        .map_err(|_| "it took the connection, but does not answer".to_owned())?
        .map_err(|status| status.message().to_owned())?;
    let first = next_load(&mut load, silence).await?;
    stop_the_lost(worker, &mut client).await;
    worker.opened(commands, client);
    tracing::info!(worker = %worker.address, instance = %first.instance, slots = first.slots, "the worker is ready");
    worker.heard(first);
    let listening = async {
        loop {
            match next_load(&mut load, silence).await {
                Ok(load) => worker.heard(load),
                Err(reason) => break reason,
            }
        }
    };
    // One task for both: nothing of a worker outlives its connection.
    tokio::select! {
        biased;
        reason = read(worker, &mut inbound) => Err(reason),
        reason = listening => Err(reason),
    }
}

/// Stops what the worker still makes of answers that have gone on elsewhere. One that fails is no harm: nobody reads it.
async fn stop_the_lost(worker: &Worker, client: &mut EngineServiceClient<Channel>) {
    let lost = std::mem::take(&mut *worker.lost.lock());
    for stale in lost {
        let _ = timeout(HEARTBEAT, client.abort(stale)).await;
    }
}

type Opened = (mpsc::Sender<proto::v1::EngineCommand>, Streaming<Load>, Streaming<GenerateResponse>);

async fn open(client: &mut EngineServiceClient<Channel>) -> Result<Opened, Status> {
    let interval_ms = u32::try_from(HEARTBEAT.as_millis()).unwrap_or(0);
    let load = client.watch_load(WatchLoadRequest { interval_ms }).await?.into_inner();
    let (commands, waiting) = mpsc::channel(COMMANDS);
    let inbound = client.bi_generate(ReceiverStream::new(waiting)).await?.into_inner();
    Ok((commands, load, inbound))
}

async fn next_load(load: &mut Streaming<Load>, silence: Duration) -> Result<Load, String> {
    match timeout(silence, load.message()).await {
        Err(_) => Err(format!("it has been silent for {} ms", silence.as_millis())),
        Ok(Ok(Some(load))) => Ok(load),
        Ok(Ok(None)) => Err("it closed the connection".to_owned()),
        Ok(Err(status)) => Err(status.message().to_owned()),
    }
}

/// Reads the exchange to its end: takes all that is ready at once, under one reading of the clock.
async fn read(worker: &Worker, inbound: &mut Streaming<GenerateResponse>) -> String {
    poll_fn(|context| {
        let mut now = None;
        for _ in 0..TURN {
            match inbound.poll_next_unpin(context) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(response))) => take(worker, response, *now.get_or_insert_with(Instant::now)),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(status.message().to_owned()),
                Poll::Ready(None) => return Poll::Ready("it ended the exchange".to_owned()),
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await
}

fn take(worker: &Worker, response: GenerateResponse, now: Instant) {
    let Some(feed) = worker.feed(response.call) else {
        return; // was cancelled here, and what was on its way has come
    };
    if let Some(head) = response.head {
        feed.head(*head, response.request);
    }
    if response.disowned {
        feed.disowned();
    }
    if let Some(failure) = response.refused {
        drop(worker.forget(response.call));
        feed.refused(*failure);
    } else if !response.entries.is_empty() {
        feed.entries(response.position, response.entries, now);
    }
}

/// The innermost words of a transport error: its own are only "transport error".
fn cause(error: &dyn std::error::Error) -> String {
    let mut inner = error;
    while let Some(source) = inner.source() {
        inner = source;
    }
    inner.to_string()
}
