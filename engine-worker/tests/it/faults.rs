//! The script's faults, and what only it can show: tool calls, reasoning, stop strings, probabilities, vectors.

use engine_worker::scripted::Settings;
use proto::v1::{EmbedRequest, Failure, Reason, Sampling, entry::Event};

use crate::harness::{Worker, ask, bounds, said, seats, whole};

#[tokio::test]
async fn faults_need_the_operators_leave() {
    let worker = Worker::scripted(&seats(1), bounds());
    let status = worker.client().await.generate(ask("a", "fail_at=1")).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).reason(), Reason::InvalidRequest);
}

#[tokio::test]
async fn an_answer_breaks_off_where_the_setting_says() {
    let settings = Settings {
        script_fail_at: Some(4),
        ..seats(1)
    };
    let worker = Worker::scripted(&settings, bounds());
    let call = worker.client().await.generate(ask("a", "tokens=9 gap_us=0")).await.unwrap();
    let got = whole(call.into_inner()).await;
    assert_eq!((got.tokens(), got.failure().reason()), (4, Reason::Upstream));
    assert_eq!(got.failure().usage.unwrap().completion_tokens, 4);
}

#[tokio::test]
async fn the_script_thinks_and_calls_functions() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut request = ask("a", "id=r tokens=8 gap_us=0 reasoning=3 tool=look");
    request.request.as_mut().unwrap().sampling = Some(Sampling {
        logprobs: true,
        top_logprobs: 2,
        ..Sampling::default()
    });
    let got = whole(worker.client().await.generate(request).await.unwrap().into_inner()).await;
    let thought: String = got
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Some(Event::Reasoning(text)) => Some(text.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(thought, "r.0 r.1 r.2 ");
    let arguments: String = got
        .entries
        .iter()
        .filter_map(|entry| match &entry.event {
            Some(Event::ToolCall(piece)) => Some(piece.arguments.as_str()),
            _ => None,
        })
        .collect();
    assert_eq!(arguments, r#"{"text":"r.4 r.5 r.6 "}"#);
    assert!(
        got.entries.iter().all(|entry| entry.logprobs.is_empty()),
        "they are of the text alone"
    );
    let Event::Finished(finished) = got.terminal() else {
        panic!("{got:?}")
    };
    assert_eq!(finished.usage.unwrap().reasoning_tokens, 3);
}

#[tokio::test]
async fn vectors_have_length_one_and_hang_on_their_text() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut client = worker.client().await;
    let embed = |inputs: &[&str]| EmbedRequest {
        inputs: inputs.iter().map(ToString::to_string).collect(),
        ..EmbedRequest::default()
    };
    let vectors = client.embed(embed(&["one", "two", "one"])).await.unwrap().into_inner().embeddings;
    assert_eq!(vectors[0], vectors[2]);
    assert_ne!(vectors[0], vectors[1]);
    let length: f32 = vectors[0].values.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-5);
    let status = client.embed(embed(&[])).await.unwrap_err();
    assert_eq!(Failure::from_status(&status).param, "inputs");
    let ids = |ids: &[u32]| EmbedRequest {
        token_inputs: vec![proto::v1::Tokens { ids: ids.to_vec() }],
        ..EmbedRequest::default()
    };
    let embedded = client.embed(ids(&[5, 6, 7])).await.unwrap().into_inner();
    assert_eq!((embedded.embeddings.len(), embedded.usage.unwrap().prompt_tokens), (1, 3));
    let cut = EmbedRequest {
        dimensions: 8,
        ..ids(&[5])
    };
    assert_eq!(Failure::from_status(&client.embed(cut).await.unwrap_err()).param, "dimensions");
}

#[tokio::test]
async fn an_input_is_counted_as_the_answer_to_it_will_say() {
    let worker = Worker::scripted(&seats(1), bounds());
    let mut client = worker.client().await;
    let mut asked = said("a", "[[script id=r tokens=2]] four words of it");
    asked.request.as_mut().unwrap().messages.push(proto::v1::Message {
        text: "and a message before".to_owned(),
        ..proto::v1::Message::default()
    });
    let request = proto::v1::CountTokensRequest {
        request: asked.request.clone(),
    };
    let counted = client.count_tokens(request).await.unwrap().into_inner();
    let answer = whole(client.generate(asked).await.unwrap().into_inner()).await;
    let Event::Finished(finished) = answer.terminal() else {
        panic!("{answer:?}")
    };
    assert_eq!(finished.usage.unwrap().prompt_tokens, counted.prompt_tokens);
    assert!(!counted.estimated && counted.prompt_tokens == 11, "{counted:?}");
    let nothing = client.count_tokens(proto::v1::CountTokensRequest::default()).await.unwrap_err();
    assert_eq!(Failure::from_status(&nothing).param, "messages");
}
