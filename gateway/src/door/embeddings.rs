//! `POST /v1/embeddings`, to OpenAI's wire format (<https://platform.openai.com/docs/api-reference/embeddings>): texts or their
//! tokens, as numbers or as base64.

use axum::{
    Json,
    extract::{Request, State},
};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use proto::v1::{EmbedRequest, Embedding, Tokens};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{app::App, body, failure::Refusal, identity::Caller, turn};

/// The most texts in one request, as at OpenAI.
const INPUTS: usize = 2048;

/// The body.
#[derive(Debug, Deserialize)]
struct Embed {
    model: Option<String>,
    input: Value,
    encoding_format: Option<String>,
    dimensions: Option<i64>,
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

/// A text, several, the tokens of one, or of several.
fn inputs(given: Value) -> Option<(Vec<String>, Vec<Tokens>)> {
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

fn object(index: u32, embedding: &Embedding, base64: bool) -> Value {
    let vector = if base64 {
        let bytes: Vec<u8> = embedding.values.iter().flat_map(|value| value.to_le_bytes()).collect();
        BASE64_STANDARD.encode(bytes).into()
    } else {
        json!(embedding.values)
    };
    json!({ "object": "embedding", "index": index, "embedding": vector })
}

#[cfg(test)]
mod tests {
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
