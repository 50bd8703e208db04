//! One writer at a time: epochs, and going on where another worker stopped.

use engine_worker::scripted::oracle::Oracle;
use proto::v1::{AbortRequest, AttachRequest, Entry, Failure, GenerateRequest, Reason, ResumePoint, entry::Event};

use crate::harness::{Worker, ask, bounds, seats, whole};

const SCRIPT: &str = "id=r tokens=400 gap_us=5000";

/// The same answer in another epoch, with `tokens` tokens made already.
fn resumed(epoch: u32, script: &str, tokens: u32) -> GenerateRequest {
    let oracle = Oracle::named("r");
    let point = ResumePoint {
        choice: 0,
        token_ids: (0..tokens).map(|index| oracle.id(0, index)).collect(),
        text: oracle.whole(0, tokens),
        end: None,
    };
    GenerateRequest {
        epoch,
        position: tokens,
        resume: vec![point],
        ..ask("a", script)
    }
}

#[tokio::test]
async fn the_same_or_a_lower_epoch_is_refused() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange
        .start(
            1,
            GenerateRequest {
                epoch: 2,
                ..ask("a", SCRIPT)
            },
        )
        .await;
    exchange.begun(1).await;
    for (call, epoch) in [(2, 1), (3, 2)] {
        exchange.start(call, GenerateRequest { epoch, ..ask("a", SCRIPT) }).await;
        let refused = exchange.end(call).await.refused.clone().unwrap();
        assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Conflict, "epoch"));
    }
    exchange.tokens(1, 3).await;
}

#[tokio::test]
async fn a_higher_epoch_ends_the_lower_one_and_goes_on_at_its_position() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut first = worker.exchange().await;
    first.start(1, ask("a", SCRIPT)).await;
    first.tokens(1, 10).await;
    let mut second = worker.exchange().await;
    second.start(1, resumed(2, "id=r tokens=30 gap_us=0", 7)).await;
    assert_eq!(
        first.end(1).await.failure().reason(),
        Reason::Moved,
        "whoever still reads the old epoch is sent on"
    );
    let got = second.end(1).await;
    assert_eq!((got.first, got.head.as_ref().unwrap().epoch), (7, 2));
    assert_eq!(
        got.text(),
        (7..30).map(|index| Oracle::named("r").text(0, index)).collect::<String>()
    );
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.usage.unwrap().completion_tokens, 30, "what was made before counts once");
    let mut client = worker.client().await;
    let attach = |position| AttachRequest {
        stream_id: "a".to_owned(),
        position,
        ..AttachRequest::default()
    };
    let status = client.attach(attach(6)).await.unwrap_err();
    assert_eq!(
        Failure::from_status(&status).param,
        "position",
        "this worker never had what came before"
    );
    assert_eq!(whole(client.attach(attach(29)).await.unwrap().into_inner()).await.tokens(), 1);
}

#[tokio::test]
async fn an_answer_that_failed_can_begin_again_in_a_higher_epoch() {
    let settings = engine_worker::scripted::Settings {
        script_faults: true,
        ..seats(1)
    };
    let worker = Worker::scripted(&settings, bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "id=r tokens=30 gap_us=0 fail_at=12")).await;
    assert_eq!(exchange.end(1).await.failure().reason(), Reason::Upstream);
    exchange.start(2, resumed(2, "id=r tokens=30 gap_us=0", 12)).await;
    assert_eq!(exchange.end(2).await.tokens(), 18);
}

#[tokio::test]
async fn a_prefix_that_was_never_said_is_refused() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut exchange = worker.exchange().await;
    let mut wrong = resumed(2, SCRIPT, 9);
    wrong.resume[0].token_ids[4] ^= 1;
    exchange.start(1, wrong).await;
    let refused = exchange.end(1).await.refused.clone().unwrap();
    assert_eq!((refused.reason(), refused.param.as_str()), (Reason::InvalidRequest, "resume"));
    exchange.start(2, resumed(2, "id=r tokens=12 gap_us=0", 9)).await;
    assert_eq!(exchange.end(2).await.tokens(), 3, "a refused epoch was never begun");
}

#[tokio::test]
async fn an_abort_for_an_older_epoch_leaves_a_newer_one_alone() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, resumed(3, SCRIPT, 2)).await;
    exchange.tokens(1, 1).await;
    let abort = async |epoch| {
        let stream_id = "a".to_owned();
        let mut client = worker.client().await;
        client
            .abort(AbortRequest { stream_id, epoch })
            .await
            .unwrap()
            .into_inner()
            .was_running
    };
    assert!(!abort(2).await);
    assert!(abort(3).await);
}

#[tokio::test]
async fn the_router_that_takes_an_answer_over_can_end_it_and_the_one_before_cannot() {
    let worker = Worker::scripted(&seats(1), bounds());
    let (mut first, mut second, mut third) = (worker.exchange().await, worker.exchange().await, worker.exchange().await);
    first.start(1, ask("a", SCRIPT)).await;
    first.tokens(1, 3).await;
    second.attach(1, "a", 0).await;
    second.tokens(1, 3).await;
    second.own(1, 2).await;
    first.disowned(1).await;
    third.attach(1, "a", 0).await;
    assert_eq!(third.begun(1).await.head.as_ref().unwrap().epoch, 2);
    third.own(1, 2).await;
    third.disowned(1).await; // it came too late for that epoch
    for late in [&mut first, &mut third] {
        late.cancel(1).await;
        late.start(9, ask("", "")).await;
        late.end(9).await; // it is refused, and so the cancel before it was heard
    }
    let mut client = worker.client().await;
    let stale = AbortRequest {
        stream_id: "a".to_owned(),
        epoch: 1,
    };
    assert!(!client.abort(stale).await.unwrap().into_inner().was_running);
    let made = first.got[&1].tokens();
    assert!(!first.tokens(1, made + 3).await.is_over(), "who was disowned reads on");
    second.cancel(1).await;
    assert!(second.end(1).await.is_cancelled());
}

#[tokio::test]
async fn choices_that_have_ended_stay_ended_where_the_others_go_on() {
    let worker = Worker::scripted(&seats(3), bounds());
    let mut whole_request = ask("whole", "id=r tokens=14 gap_us=0");
    let chat = whole_request.request.as_mut().unwrap();
    chat.n = 3;
    chat.sampling.get_or_insert_default().stop = vec![Oracle::named("r").text(1, 5).trim().to_owned()];
    let mut exchange = worker.exchange().await;
    exchange.start(0, whole_request.clone()).await;
    let unbroken = timeless(&exchange.end(0).await.entries);
    let ended: Vec<usize> = (0..unbroken.len()).filter(|&at| unbroken[at].end.is_some()).collect();
    assert_eq!(ended.len(), 3);
    assert!(ended[0] + 8 < ended[1], "one choice ends long before the others: {ended:?}");
    let Some(Event::Finished(finished)) = &unbroken.last().unwrap().event else {
        panic!()
    };
    assert!(finished.choices.iter().any(|end| !end.stop.is_empty()));
    for position in 1..unbroken.len() {
        let made = &unbroken[..position];
        let point = |choice: u32| {
            let own = || made.iter().filter(move |entry| entry.choice == choice);
            ResumePoint {
                choice,
                token_ids: own().flat_map(|entry| entry.token_ids.clone()).collect(),
                text: own().map(|entry| entry.token.as_str()).collect(),
                end: own().find_map(|entry| entry.end.as_deref().cloned()),
            }
        };
        let call = u32::try_from(position).unwrap();
        let request = GenerateRequest {
            stream_id: format!("cut {position}"),
            position: call,
            resume: (0..3).map(point).collect(),
            ..whole_request.clone()
        };
        exchange.start(call, request.clone()).await;
        assert_eq!(
            timeless(&exchange.end(call).await.entries),
            unbroken[position..],
            "cut at {position}"
        );
        if made.iter().any(|entry| entry.end.is_some()) {
            let mut forgetful = request;
            "forgetful".clone_into(&mut forgetful.stream_id);
            forgetful.resume.iter_mut().for_each(|point| point.end = None);
            exchange.start(1000 + call, forgetful).await;
            assert_eq!(exchange.end(1000 + call).await.refused.as_ref().unwrap().param, "resume");
        }
    }
}

/// Entries without the time at which the answer ended.
fn timeless(entries: &[Entry]) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    if let Some(Event::Finished(finished)) = &mut entries.last_mut().unwrap().event {
        finished.ended_ms = 0;
    }
    entries
}
