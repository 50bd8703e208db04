//! The conversation store, as the router calls it. Every call has its own time limit, and none is on the way of an answer without a
//! conversation. [`outbox`] keeps the finished turns while the store is away; [`turn`] says what a turn is.

pub(crate) mod outbox;
pub(crate) mod turn;

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use chassis::channel;
use futures_util::TryStreamExt as _;
use proto::v1::{
    BeginTurnRequest, BeginTurnResponse, CheckpointRequest, CheckpointResponse, ClaimAnswerRequest, ClaimAnswerResponse, Failure,
    FinishTurnsRequest, FinishedTurn, GetAnswerRequest, ListOrphansRequest, Principal, Reason, StoredAnswer,
    conversation_service_client::ConversationServiceClient,
};
use tokio::time::{sleep, timeout};
use tonic::{Code, Response, Status, transport::Channel};
use tonic_health::pb::{HealthCheckRequest, health_client::HealthClient};

use crate::pulse::Pulse;

/// How often the store is asked how it is.
const PROBE: Duration = Duration::from_secs(1);

/// The store.
pub(crate) struct Store {
    client: ConversationServiceClient<Channel>,
    health: HealthClient<Channel>,
    limit: Duration,
    up: AtomicBool,
    pulse: Arc<Pulse>,
}

impl Store {
    /// The store at this address; it need not be there yet.
    ///
    /// # Errors
    /// The address is not one.
    pub(crate) fn new(address: &str, limit: Duration, pulse: Arc<Pulse>) -> Result<Self, channel::Error> {
        let channel = channel::lazy(address)?;
        Ok(Self {
            client: ConversationServiceClient::new(channel.clone())
                .max_decoding_message_size(proto::MAX_DECODED_MESSAGE)
                .max_encoding_message_size(proto::MAX_ENCODED_MESSAGE),
            health: HealthClient::new(channel),
            limit,
            up: AtomicBool::new(false),
            pulse,
        })
    }

    /// Whether it answered lately.
    pub(crate) fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Opens a turn.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says.
    pub(crate) async fn begin_turn(&self, request: BeginTurnRequest) -> Result<BeginTurnResponse, Failure> {
        let mut client = self.client.clone();
        self.call(async move { client.begin_turn(request).await }).await
    }

    /// Closes turns.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says.
    pub(crate) async fn finish_turns(&self, turns: Vec<FinishedTurn>) -> Result<(), Failure> {
        let mut client = self.client.clone();
        self.call(async move { client.finish_turns(FinishTurnsRequest { turns }).await })
            .await?;
        Ok(())
    }

    /// Takes the next epoch of an answer.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says.
    pub(crate) async fn claim(&self, request: ClaimAnswerRequest) -> Result<ClaimAnswerResponse, Failure> {
        let mut client = self.client.clone();
        self.call(async move { client.claim_answer(request).await }).await
    }

    /// Saves what an answer has so far.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says; `Conflict` if another router has taken it.
    pub(crate) async fn checkpoint(&self, request: CheckpointRequest) -> Result<CheckpointResponse, Failure> {
        let mut client = self.client.clone();
        self.call(async move { client.checkpoint(request).await }).await
    }

    /// What the store knows of an answer.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says; `NotFound` if it is not this principal's.
    pub(crate) async fn get_answer(&self, stream_id: &str, principal: Option<&Principal>) -> Result<StoredAnswer, Failure> {
        let mut client = self.client.clone();
        let request = GetAnswerRequest {
            principal: principal.cloned(),
            stream_id: stream_id.to_owned(),
        };
        self.call(async move { client.get_answer(request).await }).await
    }

    /// Answers that nobody makes any more, `most` at most.
    ///
    /// # Errors
    /// `StoreUnavailable`, or what the store says.
    pub(crate) async fn list_orphans(&self, most: u32) -> Result<Vec<StoredAnswer>, Failure> {
        let mut client = self.client.clone();
        let request = ListOrphansRequest { page_size: most };
        let listed = async move {
            let stream = client.list_orphans(request).await?.into_inner();
            stream.try_collect().await.map(Response::new)
        };
        self.call(listed).await
    }

    /// Asks the store how it is, again and again.
    pub(crate) async fn probe(&self) {
        loop {
            let mut health = self.health.clone();
            let healthy = timeout(self.limit, health.check(HealthCheckRequest::default())).await;
            self.set_up(matches!(healthy, Ok(Ok(_))));
            sleep(PROBE).await;
        }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        match timeout(self.limit, call).await {
            Ok(Ok(response)) => {
                self.set_up(true);
                Ok(response.into_inner())
            }
            Ok(Err(status)) if is_away(&status) => {
                self.set_up(false);
                Err(away(status.message()))
            }
            Ok(Err(status)) => {
                self.set_up(true);
                Err(Failure::from_status(&status))
            }
            Err(_) => {
                self.set_up(false);
                Err(away("it does not answer"))
            }
        }
    }

    fn set_up(&self, up: bool) {
        if self.up.swap(up, Ordering::Relaxed) != up {
            tracing::info!(up, "the conversation store");
            self.pulse.status_changed();
        }
    }
}

/// Whether the store could not be asked, rather than having said no.
fn is_away(status: &Status) -> bool {
    let said = status.metadata().get_bin(proto::FAILURE_METADATA).is_some();
    !said
        && matches!(
            status.code(),
            // Internal: what tonic makes of a connection that broke in the middle of a reply.
            Code::Unavailable | Code::Unknown | Code::Cancelled | Code::DeadlineExceeded | Code::Internal
        )
}

fn away(why: &str) -> Failure {
    Failure {
        retry_after_ms: 1000,
        ..Failure::new(Reason::StoreUnavailable, format!("the conversation store cannot be reached: {why}"))
    }
}
