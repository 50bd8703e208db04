//! What is wrong is told, with the field or the file, and nothing breaks.

use engine_worker::{
    llama::{Error, Llama, Settings},
    model,
};
use proto::v1::{ChatRequest, JsonSchema, Reason, ResponseFormat, ResumePoint, response_format::Format};

use crate::ask::{ask, begin, engine, greedy, refused, whole, with_sampling};

#[tokio::test]
async fn a_bad_request_is_refused_with_its_field() {
    let engine = engine(2).await;
    let shaped = |format: Format| ChatRequest {
        response_format: Some(ResponseFormat { format: Some(format) }),
        ..greedy("Hi", 2)
    };
    let schema = |schema: &str| {
        shaped(Format::JsonSchema(JsonSchema {
            schema: schema.into(),
            ..JsonSchema::default()
        }))
    };
    let cases = [
        ("messages", ChatRequest::default()),
        ("max_tokens", greedy("Hi", 0)),
        ("n", ChatRequest { n: 3, ..greedy("Hi", 1) }),
        (
            "temperature",
            with_sampling(greedy("Hi", 1), |sampling| sampling.temperature = Some(-1.0)),
        ),
        (
            "stop",
            with_sampling(greedy("Hi", 1), |sampling| sampling.stop = vec![String::new()]),
        ),
        ("response_format", schema("{")),
        ("response_format", schema(r#"{"$ref":"https://example.invalid/x.json"}"#)),
        ("response_format", schema(r#"{"type":"nonsense"}"#)),
        ("response_format", shaped(Format::Grammar("root : \"a\"".into()))),
        ("response_format", shaped(Format::Grammar("no rule".into()))),
        ("response_format", shaped(Format::Grammar("root ::= root \"a\"".into()))),
        ("response_format", shaped(Format::Grammar("root ::= missing".into()))),
        ("response_format", shaped(Format::Grammar("root ::= \"a\\\0\"".into()))),
        ("response_format", shaped(Format::Grammar("root ::= [a]{1000000}".into()))),
        (
            "response_format",
            shaped(Format::Grammar(format!("root ::= \"{}\"", "x".repeat(70_000)))),
        ),
    ];
    for (field, request) in cases {
        let failure = refused(&engine, &request).await;
        assert_eq!(
            (failure.reason(), failure.param.as_str()),
            (Reason::InvalidRequest, field),
            "{failure}"
        );
    }
    let unknown = ChatRequest {
        model: "gpt-9".into(),
        ..greedy("Hi", 1)
    };
    assert_eq!(refused(&engine, &unknown).await.reason(), Reason::ModelNotFound);
    assert_eq!(ask(&engine, &greedy("Hi", 2)).await.len(), 3, "and it still answers");
}

#[tokio::test]
async fn too_long_a_conversation_names_both_lengths() {
    let engine = engine(1).await;
    let failure = refused(&engine, &greedy(&"word ".repeat(3000), 1)).await;
    assert_eq!(failure.reason(), Reason::ContextLengthExceeded);
    assert!(failure.message.contains("2048") && failure.message.contains("30"), "{failure}");
}

#[tokio::test]
async fn a_resume_point_that_cannot_be_is_refused() {
    let engine = engine(1).await;
    for (choice, token_ids) in [(1, vec![1000]), (0, vec![9_999_999]), (0, vec![2]), (0, vec![1000; 9])] {
        let mut request = whole(&greedy("Hi", 4));
        request.resume = vec![ResumePoint {
            choice,
            token_ids,
            ..ResumePoint::default()
        }];
        assert_eq!(begin(&engine, request).await.err().unwrap().param, "resume");
    }
}

#[tokio::test]
async fn a_file_that_is_no_model_is_an_error_and_not_the_end() {
    let dir = tempfile::tempdir().unwrap();
    let whole = model::locate(&model::Settings::default()).await.unwrap();
    let bytes = std::fs::read(whole).unwrap();
    let mut damaged = bytes[..2_000_000].to_vec();
    damaged[24..400].fill(0xff);
    for (name, content) in [
        ("text.gguf", b"hello, I am no model".as_slice()),
        ("cut.gguf", &bytes[..2_000_000]),
        ("short.gguf", &bytes[..40]),
        ("damaged.gguf", &damaged),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, content).unwrap();
        let settings = Settings {
            source: model::Settings {
                model: Some(path.to_string_lossy().into_owned()),
                ..model::Settings::default()
            },
            ..Settings::default()
        };
        let error = Llama::load(settings).await.err().unwrap();
        assert!(matches!(error, Error::Model(_) | Error::Load { .. }));
        assert!(error.to_string().contains(name), "{error}");
        println!("{error}");
    }
}
