//! One answer on a call of its own.

use proto::v1::{ChatRequest, Failure, Reason, ResumeChatRequest, entry::Event};

use crate::{
    fake_worker::{FakeWorker, text},
    mesh::{all, ask, joined, mesh, ready, router_at, tenant},
};

#[tokio::test]
async fn every_token_comes_once_with_all_that_a_person_wants_to_see() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    let request = making.request.request.as_ref().unwrap();
    assert_eq!((making.request.epoch, making.request.position, request.n), (1, 0, 1));
    assert_eq!((request.model.as_str(), request.messages[0].text.as_str()), ("m", "hi"));
    assert!(
        request.sampling.as_ref().unwrap().seed.is_some(),
        "the seed is fixed for whoever goes on"
    );
    making.whole(20).await;

    let responses = answer.await.unwrap().unwrap();
    assert_eq!(joined(&responses, 0), text(20));
    let id = responses[0].stream_id.clone().unwrap();
    assert!(id.starts_with("ans_"));
    assert!(
        responses
            .iter()
            .all(|response| response.stream_id.as_ref() == Some(&id) && response.latency_ms.is_some())
    );
    assert_eq!(responses[0].head.as_ref().unwrap().model, "m");
    assert!(responses[1..].iter().all(|response| response.head.is_none()));
    assert!(
        responses[..20].iter().all(|response| response.entries.is_empty()),
        "text says it all"
    );
    assert!(matches!(responses[20].entries[0].event, Some(Event::Finished(_))));
}

#[tokio::test]
async fn an_answer_is_read_again_from_any_position() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 5).await;
    mesh.until_answers(|answers| answers[0].entries == 5).await;
    let id = making.request.stream_id.clone();
    let live = mesh.resume(&id, 3).await.unwrap();
    making.line.tokens(5, 10).await;
    making.line.finish(10).await;
    assert_eq!(joined(&all(live).await.unwrap(), 3), "3 4 5 6 7 8 9 ");
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(10));
    assert_eq!(joined(&all(mesh.resume(&id, 8).await.unwrap()).await.unwrap(), 8), "8 9 ");
    assert!(
        all(mesh.resume(&id, 11).await.unwrap()).await.unwrap().is_empty(),
        "nothing is past the end"
    );
}

#[tokio::test]
async fn what_the_worker_sends_twice_is_delivered_once() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let making = worker.started().await;
    making.line.head(1).await;
    making.line.tokens(0, 6).await;
    making.line.tokens(2, 8).await;
    making.line.tokens(0, 8).await;
    making.line.finish(8).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(8));
}

#[tokio::test]
async fn a_model_leads_to_the_worker_that_has_it() {
    let (small, large) = (FakeWorker::start(&["small"], 4), FakeWorker::start(&["large"], 4));
    let mesh = mesh(&[&small, &large], &[]).await;
    for (worker, name) in [(&large, "large"), (&small, "small"), (&small, "")] {
        let mut request = ask("hi");
        request.model = name.to_owned();
        let answer = mesh.streaming(request);
        worker.started().await.whole(2).await;
        let head = answer.await.unwrap().unwrap()[0].head.clone().unwrap();
        assert_eq!(head.model, if name.is_empty() { "small" } else { name });
    }
}

#[tokio::test]
async fn an_unknown_model_and_a_wrong_field_are_named() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = ask("hi");
    request.model = "other".to_owned();
    let failure = Failure::from_status(&mesh.stream(request).await.unwrap_err());
    assert_eq!((failure.reason(), failure.param.as_str()), (Reason::ModelNotFound, "model"));
    let mut request = ask("hi");
    request.n = 9;
    let failure = Failure::from_status(&mesh.stream(request).await.unwrap_err());
    assert_eq!((failure.reason(), failure.param.as_str()), (Reason::InvalidRequest, "n"));
}

#[tokio::test]
async fn a_model_that_a_worker_may_still_bring_is_unavailable_and_not_unknown() {
    let worker = FakeWorker::start(&["here"], 4);
    let mesh = router_at(&format!("{},127.0.0.1:9", worker.address), &[]).await;
    mesh.until(|status| ready(status) == 1).await;
    let mut request = ask("hi");
    request.model = "coming".to_owned();
    let failure = Failure::from_status(&mesh.stream(request.clone()).await.unwrap_err());
    assert_eq!((failure.reason(), failure.retry_after_ms), (Reason::Unavailable, 1000));
    request.model = "here".to_owned();
    let answer = mesh.streaming(request);
    worker.started().await.whole(2).await;
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn without_a_worker_the_answer_is_unavailable_at_once() {
    let mesh = router_at("127.0.0.1:9", &[]).await;
    let failure = Failure::from_status(&mesh.stream(ask("hi")).await.unwrap_err());
    assert_eq!(failure.reason(), Reason::Unavailable);
}

#[tokio::test]
async fn what_the_engine_refuses_fails_the_call_with_its_reason() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let answer = mesh.streaming(ask("hi"));
    let refusal = Failure::new(Reason::ContextLengthExceeded, "too long");
    worker.started().await.line.refuse(refusal).await;
    let failure = Failure::from_status(&answer.await.unwrap().unwrap_err());
    assert_eq!(failure.reason(), Reason::ContextLengthExceeded);
    mesh.until_idle().await;
    assert!(mesh.answers().await.is_empty(), "its name may be used again");
}

#[tokio::test]
async fn a_repeated_start_reads_the_first_answer_and_another_request_conflicts() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let request = |fingerprint: &[u8], name: &str| {
        let mut request = ask("hi");
        request.stream_id = "ans_1".to_owned();
        request.fingerprint = fingerprint.to_vec();
        request.principal = Some(tenant(name));
        request
    };
    let first = mesh.streaming(request(b"a", "t"));
    worker.knows_nothing().await;
    let making = worker.started().await;
    let second = mesh.streaming(request(b"a", "t"));
    mesh.until_answers(|answers| answers[0].readers == 2).await;
    let refused = |status| Failure::from_status(&status).reason();
    assert_eq!(refused(mesh.stream(request(b"b", "t")).await.unwrap_err()), Reason::Conflict);
    assert_eq!(refused(mesh.stream(request(b"a", "other")).await.unwrap_err()), Reason::NotFound);
    making.whole(3).await;
    for answer in [first, second] {
        assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(3));
    }
    assert!(!worker.has_seen().await, "one generation for both");
}

#[tokio::test]
async fn a_start_that_was_refused_may_be_repeated() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let request = ChatRequest {
        stream_id: "ans_1".to_owned(),
        fingerprint: b"a".to_vec(),
        ..ask("hi")
    };
    let first = mesh.streaming(request.clone());
    worker.knows_nothing().await;
    let refusal = Failure::new(Reason::ContextLengthExceeded, "too long");
    worker.started().await.line.refuse(refusal).await;
    assert!(first.await.unwrap().is_err());
    let second = mesh.streaming(request);
    worker.knows_nothing().await;
    worker.started().await.whole(2).await;
    assert_eq!(joined(&second.await.unwrap().unwrap(), 0), text(2));
}

#[tokio::test]
async fn who_comes_after_the_retention_is_told_that_it_is_over() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &["--retention", "1ms"]).await;
    let request = ChatRequest {
        stream_id: "ans_1".to_owned(),
        fingerprint: b"a".to_vec(),
        ..ask("hi")
    };
    let first = mesh.streaming(request.clone());
    worker.knows_nothing().await;
    worker.started().await.whole(2).await;
    first.await.unwrap().unwrap();
    mesh.until_answers(<[_]>::is_empty).await;
    let refused = |status| Failure::from_status(&status).reason();
    assert_eq!(refused(mesh.resume("ans_1", 0).await.unwrap_err()), Reason::Expired);
    assert_eq!(refused(mesh.stream(request.clone()).await.unwrap_err()), Reason::Expired);
    let mut client = mesh.client.clone();
    let theirs = ResumeChatRequest {
        stream_id: "ans_1".to_owned(),
        principal: Some(tenant("other")),
        ..ResumeChatRequest::default()
    };
    let (resumed, ()) = tokio::join!(client.resume_chat(theirs), worker.knows_nothing());
    assert_eq!(refused(resumed.unwrap_err()), Reason::NotFound, "nobody hears of another's");
}

#[tokio::test]
async fn another_principals_answer_is_not_found() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = ask("hi");
    request.principal = Some(tenant("theirs"));
    let answer = mesh.streaming(request);
    let making = worker.started().await;
    let refused = Failure::from_status(&mesh.resume(&making.request.stream_id, 0).await.unwrap_err());
    assert_eq!(refused.reason(), Reason::NotFound);
    making.whole(1).await;
    answer.await.unwrap().unwrap();
}

#[tokio::test]
async fn workers_are_found_by_name() {
    let worker = FakeWorker::start(&["m"], 4);
    let port = worker.address.rsplit(':').next().unwrap();
    let mesh = router_at(&format!("dns:///localhost:{port}"), &["--dns-interval", "100ms"]).await;
    mesh.until(|status| ready(status) == 1).await;
    let answer = mesh.streaming(ask("hi"));
    worker.started().await.whole(2).await;
    assert_eq!(joined(&answer.await.unwrap().unwrap(), 0), text(2));
}

#[tokio::test]
async fn the_callers_trace_goes_on_in_the_worker() {
    const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut request = tonic::Request::new(ask("hi"));
    request.metadata_mut().insert("traceparent", TRACE.parse().unwrap());
    let mut client = mesh.client.clone();
    let (called, making) = tokio::join!(client.stream_chat(request), async {
        let making = worker.started().await;
        making.whole(1).await;
        making
    });
    assert_eq!(making.request.request.unwrap().traceparent, TRACE);
    all(called.unwrap().into_inner()).await.unwrap();
}
