//! A request of the mesh as the body of `POST /responses` (<https://platform.openai.com/docs/api-reference/responses/create>). Pure.
//!
//! Nothing is kept at the server (`store` is false): the whole conversation goes with each request. The seed is left out, for which there
//! is no field; what else has none is refused.

use proto::{
    Piece,
    v1::{
        ChatRequest, Failure, Message, Reason, ResponseFormat, Role, Sampling, Thinking, Tool, ToolChoice, ToolMode,
        response_format::Format,
    },
};
use serde_json::{Map, Value, json};

use crate::openai::dialect::{bites, decimal, json_text, no_words};

type Body = Map<String, Value>;

/// The body, for this model.
///
/// # Errors
/// A schema that is no JSON, or a field that the API does not have.
pub(in crate::openai) fn body(request: &ChatRequest, model: &str) -> Result<Value, Failure> {
    let plain = Sampling::default();
    let sampling = request.sampling.as_ref().unwrap_or(&plain);
    no_words(
        "OpenAI's Responses",
        &[
            ("prompt", request.raw),
            ("n", request.n > 1),
            ("stop", !sampling.stop.is_empty()),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("top_k", sampling.top_k.is_some_and(|most| most > 0)),
            ("min_p", bites(sampling.min_p, 0.0)),
            ("frequency_penalty", bites(sampling.frequency_penalty, 0.0)),
            ("presence_penalty", bites(sampling.presence_penalty, 0.0)),
            ("repetition_penalty", bites(sampling.repetition_penalty, 1.0)),
        ],
    )?;
    let mut body = Body::new();
    body.insert("model".into(), model.into());
    body.insert("input".into(), input(request));
    body.insert("stream".into(), true.into());
    body.insert("store".into(), false.into());
    if let Some(most) = request.max_tokens {
        body.insert("max_output_tokens".into(), most.into());
    }
    for (key, number) in [("temperature", sampling.temperature), ("top_p", sampling.top_p)] {
        if let Some(number) = number {
            body.insert(key.into(), decimal(number));
        }
    }
    if sampling.logprobs {
        body.insert("include".into(), json!(["message.output_text.logprobs"]));
        body.insert("top_logprobs".into(), sampling.top_logprobs.into());
    }
    if let Some(format) = request.response_format.as_ref().and_then(format_of).transpose()? {
        body.insert("text".into(), json!({ "format": format }));
    }
    if !request.tools.is_empty() {
        let tools: Result<Vec<Value>, Failure> = request.tools.iter().map(tool).collect();
        body.insert("tools".into(), tools?.into());
        if let Some(choice) = &request.tool_choice {
            body.insert("tool_choice".into(), tool_choice(choice));
        }
        if let Some(parallel) = request.parallel_tool_calls {
            body.insert("parallel_tool_calls".into(), parallel.into());
        }
    }
    if let Some(reasoning) = request.thinking.as_ref().and_then(reasoning) {
        body.insert("reasoning".into(), reasoning);
    }
    Ok(Value::Object(body))
}

/// Whoever asks for thoughts wants to see them: OpenAI shows a summary, if it is asked for.
fn reasoning(thinking: &Thinking) -> Option<Value> {
    let mut reasoning = Body::new();
    if !thinking.effort.is_empty() {
        reasoning.insert("effort".into(), thinking.effort.as_str().into());
    } else if thinking.enabled == Some(false) {
        reasoning.insert("effort".into(), "none".into());
    }
    if thinking.enabled == Some(true) {
        reasoning.insert("summary".into(), "auto".into());
    }
    (!reasoning.is_empty()).then_some(Value::Object(reasoning))
}

/// The conversation as items: a message, a call and a call's result are one each.
fn input(request: &ChatRequest) -> Value {
    let mut items = Vec::with_capacity(request.messages.len() + 1);
    for message in &request.messages {
        add(message, &mut items);
    }
    if !request.prompt.is_empty() {
        items.push(json!({"role": "user", "content": request.prompt}));
    }
    items.into()
}

fn add(message: &Message, items: &mut Vec<Value>) {
    let role = match message.role() {
        Role::System => "system",
        Role::Developer => "developer",
        Role::Unspecified | Role::User => "user",
        Role::Assistant => "assistant",
        Role::Tool => {
            items.push(json!({"type": "function_call_output", "call_id": message.tool_call_id, "output": message.text}));
            return;
        }
    };
    if !message.text.is_empty() || message.tool_calls.is_empty() {
        items.push(json!({"role": role, "content": content(message)}));
    }
    for call in &message.tool_calls {
        items.push(json!({"type": "function_call", "call_id": call.id, "name": call.name, "arguments": call.arguments}));
    }
}

/// What is said is a text; only with pictures is it a list of parts. How closely to look must be said there.
fn content(message: &Message) -> Value {
    if message.images.is_empty() {
        return message.text.as_str().into();
    }
    let part = |piece| match piece {
        Piece::Text(text) => json!({"type": "input_text", "text": text}),
        Piece::Image(image) => {
            let detail = if image.detail.is_empty() { "auto" } else { &image.detail };
            json!({"type": "input_image", "image_url": image.data_uri(), "detail": detail})
        }
    };
    message.pieces().into_iter().map(part).collect()
}

fn format_of(format: &ResponseFormat) -> Option<Result<Value, Failure>> {
    Some(match format.format.as_ref()? {
        Format::JsonObject(_) => Ok(json!({"type": "json_object"})),
        Format::JsonSchema(schema) => json_text("response_format", &schema.schema).map(|text| {
            let name = if schema.name.is_empty() { "answer" } else { &schema.name };
            json!({"type": "json_schema", "name": name, "schema": text, "strict": schema.strict})
        }),
        Format::Grammar(_) => Err(Failure {
            param: "response_format".to_owned(),
            ..Failure::new(
                Reason::Unsupported,
                "grammars in GBNF are llama.cpp's; the server behind this worker is asked in OpenAI's words",
            )
        }),
    })
}

/// Strictness is always said: left out, it is on in this API, where it is off in chat completions.
fn tool(tool: &Tool) -> Result<Value, Failure> {
    let mut function = json!({"type": "function", "name": tool.name, "strict": tool.strict, "parameters": null});
    if !tool.description.is_empty() {
        function["description"] = tool.description.as_str().into();
    }
    if !tool.parameters.is_empty() {
        function["parameters"] = json_text("tools", &tool.parameters)?;
    }
    Ok(function)
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice.mode() {
        ToolMode::Unspecified | ToolMode::Auto => "auto".into(),
        ToolMode::None => "none".into(),
        ToolMode::Required => "required".into(),
        ToolMode::Named => json!({"type": "function", "name": choice.name}),
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{JsonSchema, ToolCall};

    use super::*;

    #[test]
    fn a_conversation_with_calls_is_a_list_of_items() {
        let call = ToolCall {
            id: "c1".to_owned(),
            name: "look".to_owned(),
            arguments: "{}".to_owned(),
        };
        let message = |role: Role, text: &str| Message {
            role: role.into(),
            text: text.to_owned(),
            ..Message::default()
        };
        let request = ChatRequest {
            prompt: "and now?".to_owned(),
            max_tokens: Some(50),
            messages: vec![
                message(Role::System, "be brief"),
                Message {
                    tool_calls: vec![call],
                    ..message(Role::Assistant, "")
                },
                Message {
                    tool_call_id: "c1".to_owned(),
                    ..message(Role::Tool, "42")
                },
            ],
            sampling: Some(Sampling {
                temperature: Some(0.7),
                seed: Some(7),
                logprobs: true,
                top_logprobs: 2,
                frequency_penalty: Some(0.0),
                ..Sampling::default()
            }),
            response_format: Some(ResponseFormat {
                format: Some(Format::JsonSchema(JsonSchema {
                    schema: r#"{"type":"object"}"#.to_owned(),
                    ..JsonSchema::default()
                })),
            }),
            tools: vec![Tool {
                name: "look".to_owned(),
                description: "looks".to_owned(),
                parameters: r#"{"type":"object"}"#.to_owned(),
                ..Tool::default()
            }],
            tool_choice: Some(ToolChoice {
                mode: ToolMode::Named.into(),
                name: "look".to_owned(),
            }),
            parallel_tool_calls: Some(false),
            thinking: Some(Thinking {
                enabled: Some(true),
                effort: "low".to_owned(),
                budget: 0,
            }),
            ..ChatRequest::default()
        };
        assert_eq!(
            body(&request, "m").unwrap(),
            json!({
                "model": "m",
                "input": [
                    {"role": "system", "content": "be brief"},
                    {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
                    {"type": "function_call_output", "call_id": "c1", "output": "42"},
                    {"role": "user", "content": "and now?"},
                ],
                "stream": true, "store": false, "max_output_tokens": 50, "temperature": 0.7,
                "include": ["message.output_text.logprobs"], "top_logprobs": 2,
                "text": {"format": {"type": "json_schema", "name": "answer", "schema": {"type": "object"}, "strict": false}},
                "tools": [{"type": "function", "name": "look", "strict": false, "parameters": {"type": "object"}, "description": "looks"}],
                "tool_choice": {"type": "function", "name": "look"}, "parallel_tool_calls": false,
                "reasoning": {"effort": "low", "summary": "auto"},
            })
        );
    }

    #[test]
    fn what_the_api_has_no_field_for_is_refused() {
        let request = ChatRequest {
            prompt: "hi".to_owned(),
            sampling: Some(Sampling {
                stop: vec!["END".to_owned()],
                ..Sampling::default()
            }),
            ..ChatRequest::default()
        };
        let refused = body(&request, "m").unwrap_err();
        assert_eq!((refused.reason(), refused.param.as_str()), (Reason::Unsupported, "stop"));
    }
}
