//! Many answers on one call.

use proto::v1::{Reason, entry::Event};

use crate::{
    fake_worker::{FakeWorker, text},
    mesh::{ask, mesh, text_of},
};

#[tokio::test]
async fn answers_on_one_call_are_not_mixed_up() {
    let worker = FakeWorker::start(&["m"], 64);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    let mut made = Vec::new();
    for call in 0..20 {
        exchange.start(call, ask(&call.to_string())).await;
        made.push(worker.started().await);
    }
    for making in &made {
        making.line.head(1).await;
    }
    for step in 0..10 {
        for making in &made {
            let owner = making.request.request.as_ref().unwrap().messages[0].text.clone();
            let entry = proto::v1::Entry::text(format!("{owner}.{step} "), step);
            making.line.entries(step, vec![entry]).await;
        }
    }
    for making in &made {
        making.line.finish(10).await;
    }
    let mut texts = vec![String::new(); 20];
    let (mut heads, mut ended) = (0, 0);
    let mut next = [0; 20];
    while ended < 20 {
        let response = exchange.next().await;
        let call = response.call as usize;
        if response.head.is_some() {
            assert_eq!(next[call], 0, "the head comes before the first entry");
            heads += 1;
        }
        assert!(
            response.token.is_none() && response.stream_id.is_none(),
            "an exchange says nothing twice"
        );
        if let Some(first) = response.entries.first() {
            assert_eq!(response.position, Some(next[call]));
            assert!(first.token_ids.is_empty(), "ids are the router's");
            next[call] += u32::try_from(response.entries.len()).unwrap();
            texts[call] += &text_of(&response.entries);
            ended += usize::from(response.entries.last().unwrap().is_terminal());
        }
    }
    assert_eq!(heads, 20);
    for (call, said) in texts.iter().enumerate() {
        let expected: Vec<String> = (0..10).map(|step| format!("{call}.{step} ")).collect();
        assert_eq!(*said, expected.concat());
    }
}

#[tokio::test]
async fn the_head_comes_as_soon_as_a_worker_has_the_answer() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(7, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    let response = exchange.next().await;
    let head = response.head.unwrap();
    assert_eq!(
        (response.call, head.stream_id, head.prompt_tokens),
        (7, making.request.stream_id.clone(), 3)
    );
    assert!(head.created > 0 && response.entries.is_empty());
    making.line.tokens(0, 4).await;
    making.line.finish(4).await;
    assert_eq!(text_of(&exchange.whole(7, 0).await), text(4));
}

#[tokio::test]
async fn a_refused_command_says_so_and_leaves_the_others_alone() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    exchange.start(2, ask("")).await;
    exchange.start(1, ask("again")).await;
    for (call, reason) in [(2, Reason::InvalidRequest), (1, Reason::InvalidRequest)] {
        let response = exchange.next().await;
        assert_eq!((response.call, response.refused.unwrap().reason()), (call, reason));
    }
    making.whole(2).await;
    exchange.whole(1, 0).await;
}

#[tokio::test]
async fn what_the_engine_refuses_is_a_refused_command() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, ask("hi")).await;
    let refusal = proto::v1::Failure::invalid("response_format.grammar", "it does not parse");
    worker.started().await.line.refuse(refusal.clone()).await;
    let response = exchange.next().await;
    assert_eq!((response.refused, response.entries.len()), (Some(Box::new(refusal)), 0));
}

#[tokio::test]
async fn a_slow_client_that_attaches_again_loses_nothing() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    making.line.head(1).await;
    assert!(exchange.next().await.head.is_some());
    exchange.detach(1, true).await;
    making.line.tokens(0, 6).await;
    mesh.until_answers(|answers| answers[0].entries == 6 && answers[0].readers == 0)
        .await;
    exchange.attach(2, &making.request.stream_id, 0).await;
    mesh.until_answers(|answers| answers[0].readers == 1).await;
    making.line.finish(6).await;
    let entries = exchange.whole(2, 0).await;
    assert_eq!(text_of(&entries), text(6));
    assert!(!worker.has_seen().await, "slow is not gone");
    assert!(matches!(entries[6].event, Some(Event::Finished(_))));
}

#[tokio::test]
async fn a_reader_that_begins_past_the_end_is_told_so() {
    let worker = FakeWorker::start(&["m"], 4);
    let mesh = mesh(&[&worker], &[]).await;
    let mut exchange = mesh.exchange().await;
    exchange.start(1, ask("hi")).await;
    let making = worker.started().await;
    making.whole(2).await;
    exchange.whole(1, 0).await;
    exchange.attach(2, &making.request.stream_id, 3).await;
    loop {
        let response = exchange.next().await;
        assert!(response.entries.is_empty() && response.call == 2);
        if response.done == Some(true) {
            break;
        }
    }
}
