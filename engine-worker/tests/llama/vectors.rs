//! The default embedding model, fetched with pip and converted here, against vectors that were worked out apart from it: the same weights
//! in double precision, by the definition of BERT.

use std::sync::Arc;

use engine_worker::{
    engine::Engine,
    llama::{Llama, Settings},
};
use proto::v1::{EmbedRequest, Embedding, Reason, Tokens};

use crate::ask::{engine, load};

const TEXTS: [&str; 4] = [
    "The cat sits on the mat.",
    "A cat is sitting on a mat.",
    "Stock prices fell sharply on Monday.",
    "Embeddings, tokenised unbelievably!",
];
/// The tokens of the last text, and the first components of each vector.
const LAST: [u32; 13] = [7861, 8270, 4667, 2015, 1010, 19204, 5084, 4895, 8671, 2666, 3567, 6321, 999];
const FIRST: [[f32; 4]; 4] = [
    [0.13418, -0.0329, -0.0248, 0.04144],
    [0.1098, -0.04336, -0.03124, 0.04729],
    [0.01885, -0.01341, 0.10586, 0.02663],
    [-0.02613, -0.05336, 0.06719, -0.01122],
];
/// How near the first text is to each.
const NEAR: [f32; 4] = [1.0, 0.9718, 0.0318, 0.0745];

fn texts(texts: &[&str]) -> EmbedRequest {
    EmbedRequest {
        inputs: texts.iter().map(|&text| text.to_owned()).collect(),
        ..EmbedRequest::default()
    }
}

fn dot(a: &Embedding, b: &Embedding) -> f32 {
    a.values.iter().zip(&b.values).map(|(a, b)| a * b).sum()
}

#[tokio::test]
async fn texts_become_the_vectors_of_the_model() {
    let engine: Arc<Llama> = engine(1).await;
    let models = engine.models();
    assert_eq!(
        (models[1].id.as_str(), models[1].chat, models[1].embeddings),
        ("all-MiniLM-L6-v2", false, true)
    );
    assert!(models[0].chat && !models[0].embeddings);
    let response = engine.embed(texts(&TEXTS)).await.unwrap();
    assert_eq!(
        (response.model.as_str(), response.usage.unwrap().prompt_tokens),
        ("all-MiniLM-L6-v2", 9 + 10 + 9 + 15)
    );
    let vectors = &response.embeddings;
    for (which, vector) in vectors.iter().enumerate() {
        assert_eq!(vector.values.len(), 384);
        assert!((dot(vector, vector) - 1.0).abs() < 1e-4);
        assert!(
            (dot(&vectors[0], vector) - NEAR[which]).abs() < 0.005,
            "{which}: {}",
            dot(&vectors[0], vector)
        );
        for (value, expected) in vector.values.iter().zip(FIRST[which]) {
            assert!((value - expected).abs() < 0.003, "{which}: {value} and not {expected}");
        }
    }
    let tokens = EmbedRequest {
        token_inputs: vec![Tokens { ids: LAST.to_vec() }],
        ..EmbedRequest::default()
    };
    let same = engine.embed(tokens).await.unwrap();
    assert!(dot(&same.embeddings[0], &vectors[3]) > 0.9999, "tokens are the text");
    refusals(&engine).await;
    engine.stop().await;
}

async fn refusals(engine: &Llama) {
    let refused = async |request| {
        let failure = engine.embed(request).await.unwrap_err();
        (failure.reason(), failure.param)
    };
    let invalid = |param: &str| (Reason::InvalidRequest, param.to_owned());
    let cut = |dimensions| EmbedRequest {
        dimensions,
        ..texts(&["a"])
    };
    assert_eq!(refused(cut(64)).await, invalid("dimensions"), "it was not trained to be cut");
    assert_eq!(engine.embed(cut(384)).await.unwrap().embeddings[0].values.len(), 384);
    assert_eq!(refused(texts(&[])).await, invalid("input"));
    let unknown = EmbedRequest {
        token_inputs: vec![Tokens { ids: vec![99_999] }],
        ..EmbedRequest::default()
    };
    assert_eq!(refused(unknown).await, invalid("input"));
    assert_eq!(
        refused(texts(&[&"word ".repeat(600)])).await,
        (Reason::ContextLengthExceeded, "input".to_owned())
    );
    let other = |model: &str| EmbedRequest {
        model: model.to_owned(),
        ..texts(&["a"])
    };
    assert_eq!(refused(other("nobody")).await.0, Reason::ModelNotFound);
    assert_eq!(refused(other(&engine.models()[0].id)).await.0, Reason::Unsupported);
}

#[tokio::test]
async fn who_wants_no_vectors_has_none() {
    let engine = load(Settings {
        llama_seats: 1,
        llama_context: 256,
        llama_vectors: Some("none".into()),
        ..Settings::default()
    })
    .await;
    assert_eq!(engine.models().len(), 1);
    assert_eq!(engine.embed(texts(&["a"])).await.unwrap_err().reason(), Reason::Unsupported);
}
