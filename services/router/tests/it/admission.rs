//! Who waits, who is refused, and whose turn it is.

use proto::v1::{CancelChatRequest, ChatRequest, CountTokensRequest, EmbedRequest, Failure, Reason};

use crate::{
    fake_worker::{FakeWorker, text},
    mesh::{ask, joined, mesh, tenant},
};

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_says_how_many_wait() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &["--queue-factor", "2"]).await;
    let first = mesh.streaming(ask("1"));
    let making = worker.started().await;
    let second = mesh.streaming(ask("2"));
    let third = mesh.streaming(ask("3"));
    mesh.until(|status| status.queue_depth == 2).await;
    let failure = Failure::from_status(&mesh.stream(ask("4")).await.unwrap_err());
    assert_eq!((failure.reason(), failure.queue_depth), (Reason::QueueFull, 2));
    assert!(failure.retry_after_ms > 0);
    making.whole(1).await;
    for _ in 0..2 {
        worker.started().await.whole(1).await;
    }
    for answer in [first, second, third] {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_slot_that_comes_free_is_the_next_ones() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &[]).await;
    let answers: Vec<_> = (0..3).map(|index| mesh.streaming(ask(&index.to_string()))).collect();
    for _ in 0..3 {
        let making = worker.started().await;
        assert!(!worker.has_seen().await, "one slot, one answer");
        making.whole(4).await;
    }
    for answer in answers {
        assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(4));
    }
    mesh.until_idle().await;
}

#[tokio::test]
async fn a_modest_tenant_does_not_wait_for_a_greedy_one() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &["--queue-factor", "10"]).await;
    let by = |name: &str, prompt: &str| {
        let mut request = ask(prompt);
        request.principal = Some(tenant(name));
        mesh.streaming(request)
    };
    let mut answers = vec![by("greedy", "first")];
    let mut making = worker.started().await;
    for waiting in 1..=4 {
        answers.push(by("greedy", "more"));
        mesh.until(|status| status.queue_depth == waiting).await;
    }
    answers.push(by("modest", "please"));
    mesh.until(|status| status.queue_depth == 5).await;
    let mut order = Vec::new();
    for _ in 0..5 {
        making.whole(1).await;
        making = worker.started().await;
        order.push(making.request.request.as_ref().unwrap().messages[0].text.clone());
    }
    making.whole(1).await;
    assert!(order.iter().position(|prompt| prompt == "please").unwrap() <= 1, "{order:?}");
    for answer in answers {
        answer.await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn one_who_leaves_the_queue_takes_no_slot() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &[]).await;
    let first = mesh.streaming(ask("1"));
    let making = worker.started().await;
    let second = mesh.streaming(ask("2"));
    mesh.until(|status| status.queue_depth == 1).await;
    second.abort();
    mesh.until(|status| status.queue_depth == 0).await;
    making.whole(1).await;
    first.await.unwrap().unwrap();
    mesh.until_idle().await;
    assert!(!worker.has_seen().await);
}

#[tokio::test]
async fn whoever_asked_for_an_answer_that_is_cancelled_in_the_queue_is_told_so() {
    let worker = FakeWorker::start(&["m"], 1);
    let mesh = mesh(&[&worker], &[]).await;
    let first = mesh.streaming(ask("1"));
    let making = worker.started().await;
    let second = mesh.streaming(ChatRequest {
        stream_id: "waits".to_owned(),
        ..ask("2")
    });
    mesh.until(|status| status.queue_depth == 1).await;
    let cancel = CancelChatRequest {
        stream_id: "waits".to_owned(),
        ..CancelChatRequest::default()
    };
    let was_running = mesh.client.clone().cancel_chat(cancel).await.unwrap().into_inner().was_running;
    let failure = Failure::from_status(&second.await.unwrap().unwrap_err());
    assert_eq!((was_running, failure.reason()), (true, Reason::Conflict), "{failure:?}");
    making.whole(1).await;
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn seats_that_others_take_at_a_worker_count() {
    let worker = FakeWorker::start(&["m"], 2);
    let mesh = mesh(&[&worker], &[]).await;
    worker.tell(|load| load.busy = 2);
    mesh.until(|status| status.workers[0].load.as_ref().is_some_and(|load| load.busy == 2))
        .await;
    let answer = mesh.streaming(ask("hi"));
    mesh.until(|status| status.queue_depth == 1).await;
    assert!(!worker.has_seen().await);
    worker.tell(|load| load.busy = 0);
    worker.started().await.whole(1).await;
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn vectors_come_from_a_worker_that_makes_them() {
    let worker = FakeWorker::start(&["m"], 2);
    let mesh = mesh(&[&worker], &[]).await;
    let mut client = mesh.client.clone();
    let request = |inputs: &[&str]| EmbedRequest {
        inputs: inputs.iter().map(|&text| text.to_owned()).collect(),
        ..EmbedRequest::default()
    };
    let response = client.embed(request(&["a", "b"])).await.unwrap().into_inner();
    assert_eq!((response.model.as_str(), response.embeddings.len()), ("m", 2));
    let failure = Failure::from_status(&client.embed(request(&[])).await.unwrap_err());
    assert_eq!(failure.param, "inputs");
}

#[tokio::test]
async fn a_worker_counts_the_tokens_of_an_input_and_makes_nothing() {
    let worker = FakeWorker::start(&["m"], 2);
    let mesh = mesh(&[&worker], &[]).await;
    let mut client = mesh.client.clone();
    let request = |prompt: &str| CountTokensRequest {
        request: Some(ask(prompt)),
    };
    let counted = client.count_tokens(request("four")).await.unwrap().into_inner();
    assert_eq!((counted.model.as_str(), counted.prompt_tokens, counted.estimated), ("m", 4, true));
    assert!(!worker.has_seen().await);
    let failure = Failure::from_status(&client.count_tokens(request("")).await.unwrap_err());
    assert_eq!(failure.param, "messages");
}
