//! Each entry exactly once, whoever reads from wherever.

use engine_worker::scripted::oracle::Oracle;
use proto::v1::{AttachRequest, FinishReason, Message, Principal, Reason, Role, entry::Event};

use crate::harness::{Worker, ask, bounds, said, seats, whole};

#[tokio::test]
async fn an_answer_arrives_whole_with_its_head_first() {
    let worker = Worker::scripted(&seats(4), bounds());
    let call = worker
        .client()
        .await
        .generate(ask("a", "id=r1 tokens=50 gap_us=500"))
        .await
        .unwrap();
    let got = whole(call.into_inner()).await;
    assert_eq!(got.text(), Oracle::named("r1").whole(0, 50));
    let head = got.head.as_ref().unwrap();
    assert_eq!((head.stream_id.as_str(), head.model.as_str(), head.epoch), ("a", "scripted", 1));
    assert_eq!(head.prompt_tokens, 4, "words of the prompt");
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.choices[0].reason(), FinishReason::Stop);
    assert_eq!(finished.usage.unwrap().completion_tokens, 50);
}

#[tokio::test]
async fn without_a_directive_the_oracle_knows_every_word() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut request = said("a", "tell me a tale");
    let chat = request.request.as_mut().unwrap();
    chat.sampling = Some(proto::v1::Sampling {
        seed: Some(7),
        ..Default::default()
    });
    chat.max_tokens = Some(5);
    let got = whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;
    let message = Message {
        role: Role::User.into(),
        text: "tell me a tale".to_owned(),
        ..Message::default()
    };
    assert_eq!(got.text(), Oracle::words(7, &[message]).whole(0, 5));
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.choices[0].reason(), FinishReason::Length);
}

#[tokio::test]
async fn choices_share_one_journal_and_each_says_its_own() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut request = ask("a", "id=r tokens=6 gap_us=0");
    request.request.as_mut().unwrap().n = 3;
    let got = whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;
    for choice in 0..3 {
        let said = got.entries.iter().filter(|entry| entry.choice == choice && !entry.is_terminal());
        let said: String = said.map(|entry| entry.token.as_str()).collect();
        assert_eq!(said, Oracle::named("r").whole(choice, 6));
    }
}

#[tokio::test]
async fn attaching_at_every_position_gives_exactly_the_rest_live_and_afterwards() {
    const TOKENS: u32 = 40;
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1000, ask("a", &format!("id=r tokens={TOKENS} gap_us=2000"))).await;
    exchange.begun(1000).await;
    for position in 0..=TOKENS {
        exchange.attach(position, "a", position).await;
    }
    let all = exchange.close().await;
    let whole_text = Oracle::named("r").whole(0, TOKENS);
    assert_eq!(all[&1000].text(), whole_text);
    let mut client = worker.client().await;
    for position in 0..=TOKENS {
        let rest: String = (position..TOKENS).map(|index| Oracle::named("r").text(0, index)).collect();
        let stream_id = "a".to_owned();
        let later = client
            .attach(AttachRequest {
                stream_id,
                position,
                ..AttachRequest::default()
            })
            .await
            .unwrap();
        for got in [&all[&position], &whole(later.into_inner()).await] {
            assert_eq!((got.first, got.text()), (position, rest.clone()));
            assert!(matches!(got.terminal(), Event::Finished(_)));
        }
    }
}

#[tokio::test]
async fn reading_past_the_end_or_what_nobody_knows_is_refused() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut exchange = worker.exchange().await;
    exchange.start(1, ask("a", "tokens=3 gap_us=0")).await;
    exchange.end(1).await;
    exchange.attach(2, "a", 4).await;
    exchange.attach(3, "nobody", 0).await;
    exchange.end(3).await;
    let refusal = |call| exchange.got[&call].refused.clone().unwrap();
    assert_eq!(
        (refusal(2).reason(), refusal(2).param.as_str()),
        (Reason::InvalidRequest, "position")
    );
    assert_eq!((refusal(3).reason(), refusal(3).param.as_str()), (Reason::NotFound, "stream_id"));
}

#[tokio::test]
async fn an_ended_answer_still_says_whose_it_is_and_when_it_was_admitted() {
    let worker = Worker::scripted(&seats(4), bounds());
    let mut request = ask("a", "tokens=3 gap_us=0");
    request.created = 1_700_000_000;
    let chat = request.request.as_mut().unwrap();
    chat.fingerprint = b"f".to_vec();
    chat.principal = Some(Principal {
        tenant: "t".to_owned(),
        ..Principal::default()
    });
    let owner = chat.principal.clone();
    whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;
    let attach = AttachRequest {
        stream_id: "a".to_owned(),
        adopt: true,
        ..AttachRequest::default()
    };
    let mut attached = worker.client().await.attach(attach).await.unwrap().into_inner();
    let told = attached.message().await.unwrap().unwrap();
    assert_eq!(told.head.unwrap().created, 1_700_000_000);
    let asked = told.request.unwrap();
    assert_eq!((asked.principal, asked.fingerprint), (owner, b"f".to_vec()));
    assert!(asked.prompt.is_empty(), "what was said is not kept");
}

#[tokio::test]
async fn five_hundred_answers_on_one_exchange_each_get_their_own_whole() {
    let worker = Worker::scripted(&seats(512), bounds());
    let mut exchange = worker.exchange().await;
    for call in 0..500 {
        let request = ask(&format!("s{call}"), &format!("id=r{call} tokens=30 gap_us=5000 step=1"));
        exchange.start(call, request).await;
    }
    let all = exchange.close().await;
    assert_eq!(all.len(), 500);
    for (call, got) in &all {
        assert_eq!(got.text(), Oracle::named(format!("r{call}")).whole(0, 30));
        assert!(matches!(got.terminal(), Event::Finished(_)));
    }
}
