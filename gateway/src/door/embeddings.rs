//! `POST /v1/embeddings`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/embeddings>): texts, as numbers or
//! as base64.

use axum::{
    Json,
    extract::{Request, State},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::v1::{EmbedRequest, Embedding};
use serde::Deserialize;
use serde_json::{Value, json};

use super::completions::TextOr;
use crate::{app::App, body, failure::Refusal, identity::Caller, turn};

/// The most texts in one request, as at OpenAI.
const INPUTS: usize = 2048;

/// The body.
#[derive(Debug, Deserialize)]
struct Embed {
    model: Option<String>,
    input: TextOr<String>,
    encoding_format: Option<String>,
}

/// The door.
pub(crate) async fn create(State(app): State<App>, caller: Caller, request: Request) -> Result<Json<Value>, Refusal> {
    let embed: Embed = body::json(request, app.settings()).await?;
    let base64 = match embed.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(other) => {
            let message = format!("encoding_format: expected float or base64, got {other:?}");
            return Err(Refusal::invalid("encoding_format", message));
        }
    };
    let inputs = match embed.input {
        TextOr::Text(text) => vec![text],
        TextOr::List(texts) => texts,
    };
    if inputs.is_empty() || inputs.len() > INPUTS || inputs.iter().any(String::is_empty) {
        return Err(Refusal::invalid(
            "input",
            format!("input: expected 1 to {INPUTS} texts, none of them empty"),
        ));
    }
    let request = EmbedRequest {
        model: embed.model.unwrap_or_default(),
        inputs,
        principal: Some(caller.principal().clone()),
    };
    let response = turn::embed(app.clients(), request).await?;
    let data: Vec<Value> = (0..)
        .zip(&response.embeddings)
        .map(|(index, one)| object(index, one, base64))
        .collect();
    let tokens = response.usage.unwrap_or_default().prompt_tokens;
    Ok(Json(json!({
        "object": "list",
        "data": data,
        "model": response.model,
        "usage": { "prompt_tokens": tokens, "total_tokens": tokens },
    })))
}

fn object(index: u32, embedding: &Embedding, base64: bool) -> Value {
    let vector = if base64 {
        let bytes: Vec<u8> = embedding.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        BASE64_STANDARD.encode(bytes).into()
    } else {
        json!(embedding.values)
    };
    json!({ "object": "embedding", "index": index, "embedding": vector })
}
