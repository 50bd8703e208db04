//! What must be true of a mesh when all clients have their answers: nothing runs, no seat is taken, and the store has each answer once,
//! with the text and the usage that its client saw.

use std::time::Duration;

use anyhow::Context as _;
use proto::v1::{
    CreateConversationRequest, GetAnswerRequest, ListAnswersRequest, ListMessagesRequest, Principal, Role, WatchStatusRequest,
    chat_service_client::ChatServiceClient, conversation_service_client::ConversationServiceClient,
};
use tokio::time::{Instant, sleep};
use tonic::transport::Channel;

use crate::history::History;

/// How long a mesh may take until all that was cancelled or lost is let go of: the graces of readers and workers, and more.
const SETTLED: Duration = Duration::from_secs(45);
/// How long a finished turn may take to be stored: longer than the store was away, and longer than a lease, after which another router
/// takes the answer of one that was killed just before it could write.
const STORED: Duration = Duration::from_mins(1);

/// Makes a conversation for somebody anonymous.
pub async fn conversation(store: Channel) -> anyhow::Result<String> {
    let request = CreateConversationRequest {
        principal: Some(Principal::default()),
        ..CreateConversationRequest::default()
    };
    Ok(ConversationServiceClient::new(store)
        .create_conversation(request)
        .await?
        .into_inner()
        .id)
}

/// Waits until nothing runs any more at these routers and their workers.
///
/// # Errors
/// What still runs.
pub async fn settled(routers: &[Channel]) -> Result<(), String> {
    let deadline = Instant::now() + SETTLED;
    loop {
        let left = match running(routers).await {
            Ok(left) if left.is_empty() => return Ok(()),
            Ok(left) => format!("{left:?}"),
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() > deadline {
            return Err(format!("left running: {left}"));
        }
        sleep(Duration::from_millis(100)).await;
    }
}

async fn running(routers: &[Channel]) -> anyhow::Result<Vec<String>> {
    let mut running = Vec::new();
    for (number, router) in routers.iter().enumerate() {
        let mut client = ChatServiceClient::new(router.clone());
        let mut answers = client.list_answers(ListAnswersRequest {}).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if answer.state == "running" {
                running.push(format!("{} at router {number}", answer.stream_id));
            }
        }
        let mut statuses = client.watch_status(WatchStatusRequest {}).await?.into_inner();
        let status = statuses.message().await?.context("no status")?;
        if status.running + status.queue_depth > 0 {
            running.push(format!(
                "router {number} has {} running, {} queued",
                status.running, status.queue_depth
            ));
        }
        for worker in status.workers {
            let busy = worker.load.map_or(0, |load| load.busy + load.queued);
            if busy > 0 {
                running.push(format!("{busy} seats of {}", worker.address));
            }
        }
    }
    Ok(running)
}

/// Until when all answers that have ended now must be stored.
pub fn deadline() -> Instant {
    Instant::now() + STORED
}

/// Waits until the answer that this history is of is stored, and checks it.
///
/// # Errors
/// How what is stored at the deadline differs from what the client saw.
pub async fn stored(store: &Channel, history: &History, deadline: Instant) -> Result<(), String> {
    loop {
        match look(store, history).await {
            Ok(()) => return Ok(()),
            Err(wrong) if Instant::now() > deadline => return Err(format!("{}: {wrong:#}", history.id)),
            Err(_) => sleep(Duration::from_millis(100)).await,
        }
    }
}

async fn look(store: &Channel, history: &History) -> anyhow::Result<()> {
    let principal = || Some(Principal::default());
    let (Some(stream_id), Some(conversation)) = (&history.stream_id, &history.conversation) else {
        anyhow::bail!("it has no name, or is in no conversation");
    };
    let mut store = ConversationServiceClient::new(store.clone());
    let request = GetAnswerRequest {
        principal: principal(),
        stream_id: stream_id.clone(),
    };
    let answer = store.get_answer(request).await?.into_inner();
    anyhow::ensure!(answer.state == "finished", "it is stored as {}", answer.state);
    let tokens = answer.usage.context("no usage")?.completion_tokens;
    anyhow::ensure!(tokens as usize == history.received(), "{tokens} tokens are stored");
    let request = ListMessagesRequest {
        principal: principal(),
        conversation_id: conversation.clone(),
        ..ListMessagesRequest::default()
    };
    let mut messages = store.list_messages(request).await?.into_inner();
    let mut found = 0;
    while let Some(stored) = messages.message().await? {
        let message = stored.message.unwrap_or_default();
        if stored.stream_id == *stream_id && message.role() == Role::Assistant {
            found += 1;
            anyhow::ensure!(message.text == history.text(), "stored is {:?}", message.text);
        }
    }
    anyhow::ensure!(found == 1, "it is stored {found} times");
    Ok(())
}
