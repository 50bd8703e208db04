//! `POST /v1/embeddings`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/embeddings>): texts or their
//! tokens, as numbers or as base64.

use axum::{
    Json,
    extract::{Request, State},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::v1::{EmbedRequest, Embedding, Tokens, Usage};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::ToSchema;

use super::completions::{Piece, TextOr};
use crate::{app::App, body, failure::Refusal, identity::Caller, openapi, outlive::outlive, stack::Arrival, turn};

/// The most texts in one request, as at OpenAI.
const INPUTS: usize = 2048;

/// What is asked.
#[derive(Debug, Deserialize, ToSchema)]
#[schema(as = EmbeddingRequest, examples(json!({"input": ["Hello", "Bye"]}), json!({"input": "Hello", "encoding_format": "base64"})))]
struct Embed {
    /// Empty or missing: the first model that can.
    model: Option<String>,
    /// A text, several, the token ids of one, or of several: at most 2,048, none of them empty.
    #[schema(value_type = TextOr<Piece>)]
    input: Value,
    /// `float` or `base64`.
    #[schema(pattern = "^(float|base64)$")]
    encoding_format: Option<String>,
    /// How many components each vector has. Missing: all.
    #[schema(minimum = 1)]
    dimensions: Option<i64>,
}

/// The vectors, in the order of the texts.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EmbeddingList)]
pub(crate) struct List {
    /// `list`.
    object: &'static str,
    data: Vec<Item>,
    model: String,
    usage: InputUsage,
}

/// A vector.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Embedding)]
struct Item {
    /// `embedding`.
    object: &'static str,
    index: u32,
    embedding: Vector,
}

/// Numbers, or base64 of little-endian 32-bit floats.
#[derive(Debug, Serialize, ToSchema)]
#[serde(untagged)]
enum Vector {
    Numbers(Vec<f32>),
    Base64(String),
}

/// What it took.
#[derive(Debug, Serialize, ToSchema)]
struct InputUsage {
    prompt_tokens: u32,
    total_tokens: u32,
}

/// Turns texts into vectors.
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    operation_id = "embed",
    tag = openapi::OPENAI,
    request_body = Embed,
    responses((status = OK, description = "The vectors.", body = List), openapi::BodyRefused),
)]
pub(crate) async fn create(State(app): State<App>, arrival: Arrival, caller: Caller, request: Request) -> Result<Json<List>, Refusal> {
    let asked = read(&app, &caller, request).await;
    // No work is saved by its client's going, which costs what it costs.
    let drain = app.drain().clone();
    outlive(&drain, async move {
        let embedded = match asked {
            Ok(asked) => embed(&app, &arrival, &caller, asked).await,
            Err(refusal) => Err(refusal),
        };
        let took = embedded.as_ref().map(|list| {
            let usage = Usage {
                prompt_tokens: list.usage.prompt_tokens,
                ..Usage::default()
            };
            (list.model.as_str(), usage)
        });
        app.request_log().done((&caller, &arrival), "embeddings", took);
        embedded.map(Json)
    })
    .await
}

/// What is asked of the mesh, and whether the vectors are wanted in base64.
async fn read(app: &App, caller: &Caller, request: Request) -> Result<(EmbedRequest, bool), Refusal> {
    let embed: Embed = body::json(request, app.settings()).await?;
    let base64 = match embed.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("encoding_format: expected float or base64, got {other:?}");
            return Err(Refusal::invalid("encoding_format", message));
        }
    };
    let (inputs, token_inputs) = inputs(embed.input).ok_or_else(|| {
        let message = format!("input: expected 1 to {INPUTS} texts or arrays of tokens, none of them empty");
        Refusal::invalid("input", message)
    })?;
    let dimensions = match embed.dimensions {
        None => 0,
        Some(given) => u32::try_from(given).ok().filter(|&given| given > 0).ok_or_else(|| {
            let message = format!("dimensions: expected a number of at least 1, got {given}");
            Refusal::invalid("dimensions", message)
        })?,
    };
    let request = EmbedRequest {
        model: embed.model.unwrap_or_default(),
        inputs,
        principal: Some(caller.principal().clone()),
        token_inputs,
        dimensions,
    };
    Ok((request, base64))
}

async fn embed(app: &App, arrival: &Arrival, caller: &Caller, (request, base64): (EmbedRequest, bool)) -> Result<List, Refusal> {
    let grant = app.limits().admit_embedding((caller, &arrival.quota), &request).await?;
    let response = turn::embed(app.clients(), request).await?;
    let tokens = response.usage.unwrap_or_default().prompt_tokens;
    if let Some(grant) = grant {
        grant.settle(tokens.into());
    }
    Ok(List {
        object: "list",
        data: (0..)
            .zip(response.embeddings)
            .map(|(index, one)| object(index, one, base64))
            .collect(),
        model: response.model,
        usage: InputUsage {
            prompt_tokens: tokens,
            total_tokens: tokens,
        },
    })
}

/// A text, several, the tokens of one, or of several.
pub(super) fn inputs(given: Value) -> Option<(Vec<String>, Vec<Tokens>)> {
    let list = match given {
        Value::String(text) => vec![Value::String(text)],
        Value::Array(list) if list.first().is_some_and(Value::is_number) => vec![Value::Array(list)],
        Value::Array(list) => list,
        _ => return None,
    };
    let (mut texts, mut tokens) = (Vec::new(), Vec::new());
    let sizes = 1..=INPUTS;
    if !sizes.contains(&list.len()) {
        return None;
    }
    for one in list {
        match one {
            Value::String(text) if !text.is_empty() => texts.push(text),
            Value::Array(ids) if !ids.is_empty() => {
                let id = |id: &Value| id.as_u64().and_then(|id| u32::try_from(id).ok());
                tokens.push(Tokens {
                    ids: ids.iter().map(id).collect::<Option<_>>()?,
                });
            }
            _ => return None,
        }
    }
    (texts.is_empty() || tokens.is_empty()).then_some((texts, tokens))
}

fn object(index: u32, embedding: Embedding, base64: bool) -> Item {
    let vector = if base64 {
        let bytes: Vec<u8> = embedding.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        Vector::Base64(BASE64_STANDARD.encode(bytes))
    } else {
        Vector::Numbers(embedding.values)
    };
    Item {
        object: "embedding",
        index,
        embedding: vector,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn an_input_is_texts_or_their_tokens() {
        let counts = |given: Value| inputs(given).map(|(texts, tokens)| (texts.len(), tokens.len()));
        assert_eq!(counts(json!("a")), Some((1, 0)));
        assert_eq!(counts(json!(["a", "b"])), Some((2, 0)));
        assert_eq!(counts(json!([5, 6, 7])), Some((0, 1)));
        assert_eq!(counts(json!([[5], [6, 7]])), Some((0, 2)));
        for wrong in [
            json!(7),
            json!([]),
            json!([""]),
            json!([[]]),
            json!(["a", [5]]),
            json!([-1]),
            json!([[1.5]]),
            json!(null),
        ] {
            assert_eq!(counts(wrong.clone()), None, "{wrong}");
        }
    }
}
