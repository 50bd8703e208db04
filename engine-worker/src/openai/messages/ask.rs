//! A request of the mesh as the body of `POST /messages` (<https://platform.claude.com/docs/en/api/messages>). Pure.
//!
//! The seed is left out, for which there is no field; what else has none is refused.

use proto::v1::{ChatRequest, Failure, Reason, ResponseFormat, Sampling, Thinking, Tool, ToolChoice, ToolMode, response_format::Format};
use serde_json::{Map, Value, json};

use super::conversation::conversation;
use crate::openai::dialect::{bites, decimal, json_text, no_words};

type Body = Map<String, Value>;

/// The body, for this model. `most` stands for `max_tokens`, which the API asks for, where the request has none.
///
/// # Errors
/// JSON text that is none, or a field that the API does not have.
pub(in crate::openai) fn body(request: &ChatRequest, model: &str, most: u32) -> Result<Value, Failure> {
    let plain = Sampling::default();
    let sampling = request.sampling.as_ref().unwrap_or(&plain);
    no_words(
        "Anthropic's Messages",
        &[
            ("prompt", request.raw),
            ("n", request.n > 1),
            ("logprobs", sampling.logprobs),
            ("logit_bias", !sampling.logit_bias.is_empty()),
            ("min_p", bites(sampling.min_p, 0.0)),
            ("frequency_penalty", bites(sampling.frequency_penalty, 0.0)),
            ("presence_penalty", bites(sampling.presence_penalty, 0.0)),
            ("repetition_penalty", bites(sampling.repetition_penalty, 1.0)),
        ],
    )?;
    let mut body = Body::new();
    body.insert("model".into(), model.into());
    body.insert("max_tokens".into(), request.max_tokens.unwrap_or(most).into());
    body.insert("stream".into(), true.into());
    let (system, turns) = conversation(request)?;
    if !system.is_empty() {
        body.insert("system".into(), system.into());
    }
    body.insert("messages".into(), turns);
    add_sampling(&mut body, sampling);
    if let Some(format) = request.response_format.as_ref().and_then(format_of).transpose()? {
        body.insert("output_config".into(), json!({ "format": format }));
    }
    if let Some(thinking) = &request.thinking {
        add_thinking(&mut body, thinking);
    }
    if !request.tools.is_empty() {
        let tools: Result<Vec<Value>, Failure> = request.tools.iter().map(tool).collect();
        body.insert("tools".into(), tools?.into());
        let one_at_a_time = request.parallel_tool_calls == Some(false);
        if request.tool_choice.is_some() || one_at_a_time {
            body.insert("tool_choice".into(), tool_choice(request.tool_choice.as_ref(), one_at_a_time));
        }
    }
    Ok(Value::Object(body))
}

/// Temperatures end at 1 there. A higher one is asked as 1, as Anthropic itself does for OpenAI's clients.
fn add_sampling(body: &mut Body, sampling: &Sampling) {
    let temperature = sampling.temperature.map(|temperature| temperature.min(1.0));
    for (key, number) in [("temperature", temperature), ("top_p", sampling.top_p)] {
        if let Some(number) = number {
            body.insert(key.into(), decimal(number));
        }
    }
    if let Some(most) = sampling.top_k.filter(|most| *most > 0) {
        body.insert("top_k".into(), most.into());
    }
    if !sampling.stop.is_empty() {
        body.insert("stop_sequences".into(), json!(sampling.stop));
    }
}

/// Without a bound the model itself decides how much it thinks. What OpenAI calls minimal is low there.
fn add_thinking(body: &mut Body, thinking: &Thinking) {
    let kind = match thinking.enabled {
        None => None,
        Some(false) => Some(json!({"type": "disabled"})),
        Some(true) if thinking.budget > 0 => Some(json!({"type": "enabled", "budget_tokens": thinking.budget})),
        Some(true) => Some(json!({"type": "adaptive"})),
    };
    if let Some(kind) = kind {
        body.insert("thinking".into(), kind);
    }
    let effort = match thinking.effort.as_str() {
        "" | "none" => return,
        "minimal" => "low",
        effort => effort,
    };
    if let Some(config) = body.entry("output_config").or_insert_with(|| json!({})).as_object_mut() {
        config.insert("effort".into(), effort.into());
    }
}

fn format_of(format: &ResponseFormat) -> Option<Result<Value, Failure>> {
    Some(match format.format.as_ref()? {
        Format::JsonSchema(schema) => {
            json_text("response_format", &schema.schema).map(|schema| json!({"type": "json_schema", "schema": schema}))
        }
        Format::JsonObject(_) | Format::Grammar(_) => Err(Failure {
            param: "response_format".to_owned(),
            ..Failure::new(
                Reason::Unsupported,
                "the server behind this worker speaks Anthropic's Messages, which know no shape but a JSON schema",
            )
        }),
    })
}

fn tool(tool: &Tool) -> Result<Value, Failure> {
    let schema = if tool.parameters.is_empty() {
        json!({"type": "object"})
    } else {
        json_text("tools", &tool.parameters)?
    };
    let mut function = json!({"name": tool.name, "input_schema": schema});
    if !tool.description.is_empty() {
        function["description"] = tool.description.as_str().into();
    }
    if tool.strict {
        function["strict"] = true.into();
    }
    Ok(function)
}

fn tool_choice(choice: Option<&ToolChoice>, one_at_a_time: bool) -> Value {
    let mode = choice.map(ToolChoice::mode).unwrap_or_default();
    let mut told = match mode {
        ToolMode::Unspecified | ToolMode::Auto => json!({"type": "auto"}),
        ToolMode::None => json!({"type": "none"}),
        ToolMode::Required => json!({"type": "any"}),
        ToolMode::Named => json!({"type": "tool", "name": choice.map_or("", |choice| &choice.name)}),
    };
    if one_at_a_time && mode != ToolMode::None {
        told["disable_parallel_tool_use"] = true.into();
    }
    told
}

#[cfg(test)]
mod tests {
    use proto::v1::{JsonObject, JsonSchema, Message, Role, ToolCall};

    use super::*;

    fn message(role: Role, text: &str) -> Message {
        Message {
            role: role.into(),
            text: text.to_owned(),
            ..Message::default()
        }
    }

    #[test]
    fn turns_alternate_results_are_the_users_and_instructions_stand_apart() {
        let call = |id: &str, arguments: &str| ToolCall {
            id: id.to_owned(),
            name: "look".to_owned(),
            arguments: arguments.to_owned(),
        };
        let result = |id: &str, text: &str| Message {
            tool_call_id: id.to_owned(),
            ..message(Role::Tool, text)
        };
        let request = ChatRequest {
            prompt: "and now?".to_owned(),
            messages: vec![
                message(Role::System, "be brief"),
                message(Role::User, "one"),
                message(Role::User, "two"),
                Message {
                    reasoning: "hm".to_owned(),
                    tool_calls: vec![call("c1", r#"{"a":1}"#), call("c2", "")],
                    ..message(Role::Assistant, "")
                },
                result("c1", "42"),
                result("c2", "43"),
                message(Role::Developer, "be kind"),
            ],
            sampling: Some(Sampling {
                temperature: Some(1.5),
                top_k: Some(0),
                seed: Some(7),
                stop: vec!["END".to_owned()],
                repetition_penalty: Some(1.0),
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
                ..Tool::default()
            }],
            tool_choice: Some(ToolChoice {
                mode: ToolMode::Required.into(),
                ..ToolChoice::default()
            }),
            parallel_tool_calls: Some(false),
            thinking: Some(Thinking {
                enabled: Some(true),
                effort: "minimal".to_owned(),
                budget: 1024,
            }),
            ..ChatRequest::default()
        };
        assert_eq!(
            body(&request, "m", 4096).unwrap(),
            json!({
                "model": "m", "max_tokens": 4096, "stream": true, "system": "be brief\n\nbe kind",
                "messages": [
                    {"role": "user", "content": [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]},
                    {"role": "assistant", "content": [
                        {"type": "tool_use", "id": "c1", "name": "look", "input": {"a": 1}},
                        {"type": "tool_use", "id": "c2", "name": "look", "input": {}},
                    ]},
                    {"role": "user", "content": [
                        {"type": "tool_result", "tool_use_id": "c1", "content": "42"},
                        {"type": "tool_result", "tool_use_id": "c2", "content": "43"},
                        {"type": "text", "text": "and now?"},
                    ]},
                ],
                "temperature": 1.0, "stop_sequences": ["END"],
                "output_config": {"format": {"type": "json_schema", "schema": {"type": "object"}}, "effort": "low"},
                "thinking": {"type": "enabled", "budget_tokens": 1024},
                "tools": [{"name": "look", "input_schema": {"type": "object"}}],
                "tool_choice": {"type": "any", "disable_parallel_tool_use": true},
            })
        );
    }

    #[test]
    fn what_the_api_has_no_field_for_is_refused_by_its_name() {
        let ask = |change: fn(&mut ChatRequest)| {
            let mut request = ChatRequest {
                prompt: "hi".to_owned(),
                ..ChatRequest::default()
            };
            change(&mut request);
            body(&request, "m", 9).unwrap_err()
        };
        let refused = [
            (ask(|request| request.n = 2), "n"),
            (ask(|request| request.sampling.get_or_insert_default().logprobs = true), "logprobs"),
            (
                ask(|request| request.sampling.get_or_insert_default().presence_penalty = Some(0.5)),
                "presence_penalty",
            ),
            (
                ask(|request| {
                    request.response_format = Some(ResponseFormat {
                        format: Some(Format::JsonObject(JsonObject {})),
                    });
                }),
                "response_format",
            ),
        ];
        for (failure, field) in refused {
            assert_eq!((failure.reason(), failure.param.as_str()), (Reason::Unsupported, field));
        }
        let call = ask(|request| {
            request.messages = vec![Message {
                tool_calls: vec![ToolCall {
                    arguments: "{".to_owned(),
                    ..ToolCall::default()
                }],
                ..message(Role::Assistant, "")
            }];
        });
        assert_eq!((call.reason(), call.param.as_str()), (Reason::InvalidRequest, "messages"));
    }
}
