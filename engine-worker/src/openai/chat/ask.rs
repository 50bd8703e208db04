//! A request of the mesh as the body of `POST /chat/completions`
//! (<https://platform.openai.com/docs/api-reference/chat/create>; what OpenAI does not name is named as vLLM does,
//! <https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html>). Pure.
//!
//! Only what was asked is sent: a server need not know a field that nobody used.

use proto::v1::{ChatRequest, Failure, Reason, ResponseFormat, Sampling, Thinking, Tool, ToolChoice, ToolMode, response_format::Format};
use serde_json::{Map, Value, json};

use super::conversation::messages;
use crate::openai::dialect::{decimal, json_text};

type Body = Map<String, Value>;

/// The body, for this model.
///
/// # Errors
/// A schema that is no JSON, or a format that such servers do not have.
pub(in crate::openai) fn body(request: &ChatRequest, model: &str) -> Result<Value, Failure> {
    let mut body = Body::new();
    body.insert("model".into(), model.into());
    if !request.raw {
        body.insert("messages".into(), messages(request));
        if request.continue_final_message {
            go_on(&mut body);
        }
    } else if request.prompt_tokens.is_empty() {
        body.insert("prompt".into(), request.prompt.as_str().into());
    } else {
        body.insert("prompt".into(), json!(request.prompt_tokens));
    }
    body.insert("stream".into(), true.into());
    body.insert("stream_options".into(), json!({"include_usage": true}));
    if let Some(most) = request.max_tokens {
        body.insert("max_tokens".into(), most.into());
    }
    if request.n > 1 {
        body.insert("n".into(), request.n.into());
    }
    if let Some(sampling) = &request.sampling {
        add_sampling(&mut body, sampling);
    }
    if let Some(format) = request.response_format.as_ref().and_then(format_of).transpose()? {
        body.insert("response_format".into(), format);
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
    if let Some(thinking) = &request.thinking {
        add_thinking(&mut body, thinking);
    }
    if request.raw {
        in_legacy_words(&mut body);
    }
    Ok(Value::Object(body))
}

/// Asks for what follows the last message, and not for another one: vLLM's words.
pub(in crate::openai) fn go_on(body: &mut Body) {
    body.insert("add_generation_prompt".into(), false.into());
    body.insert("continue_final_message".into(), true.into());
}

/// What the legacy completions name differently (<https://platform.openai.com/docs/api-reference/completions/create>).
fn in_legacy_words(body: &mut Body) {
    let top = body.remove("top_logprobs");
    if body.remove("logprobs").is_some() {
        body.insert("logprobs".into(), top.unwrap_or_else(|| 0.into()));
    }
}

/// `chat_template_kwargs` is vLLM's and SGLang's, and `enable_thinking` what the templates of models that can be told look at.
fn add_thinking(body: &mut Body, thinking: &Thinking) {
    if let Some(enabled) = thinking.enabled {
        body.insert("chat_template_kwargs".into(), json!({"enable_thinking": enabled}));
    }
    if !thinking.effort.is_empty() {
        body.insert("reasoning_effort".into(), thinking.effort.as_str().into());
    }
}

fn add_sampling(body: &mut Body, sampling: &Sampling) {
    let numbers = [
        ("temperature", sampling.temperature),
        ("top_p", sampling.top_p),
        ("min_p", sampling.min_p),
        ("frequency_penalty", sampling.frequency_penalty),
        ("presence_penalty", sampling.presence_penalty),
        ("repetition_penalty", sampling.repetition_penalty),
    ];
    for (key, number) in numbers {
        if let Some(number) = number {
            body.insert(key.into(), decimal(number));
        }
    }
    match sampling.top_k {
        None => {}
        Some(0) => _ = body.insert("top_k".into(), (-1).into()), // vLLM's word for all
        Some(top_k) => _ = body.insert("top_k".into(), top_k.into()),
    }
    if let Some(seed) = sampling.seed {
        body.insert("seed".into(), (seed & i64::MAX.unsigned_abs()).into()); // servers take signed ones
    }
    if !sampling.stop.is_empty() {
        body.insert("stop".into(), json!(sampling.stop));
    }
    if !sampling.logit_bias.is_empty() {
        let biases = sampling.logit_bias.iter().map(|(id, bias)| (id.to_string(), decimal(*bias)));
        body.insert("logit_bias".into(), Value::Object(biases.collect()));
    }
    if sampling.logprobs {
        body.insert("logprobs".into(), true.into());
        if sampling.top_logprobs > 0 {
            body.insert("top_logprobs".into(), sampling.top_logprobs.into());
        }
    }
}

fn format_of(format: &ResponseFormat) -> Option<Result<Value, Failure>> {
    Some(match format.format.as_ref()? {
        Format::JsonObject(_) => Ok(json!({"type": "json_object"})),
        Format::JsonSchema(schema) => json_text("response_format", &schema.schema).map(|text| {
            let name = if schema.name.is_empty() { "answer" } else { &schema.name };
            json!({"type": "json_schema", "json_schema": {"name": name, "schema": text, "strict": schema.strict}})
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

fn tool(tool: &Tool) -> Result<Value, Failure> {
    let mut function = Body::new();
    function.insert("name".into(), tool.name.as_str().into());
    if !tool.description.is_empty() {
        function.insert("description".into(), tool.description.as_str().into());
    }
    if !tool.parameters.is_empty() {
        function.insert("parameters".into(), json_text("tools", &tool.parameters)?);
    }
    if tool.strict {
        function.insert("strict".into(), true.into());
    }
    Ok(json!({"type": "function", "function": function}))
}

fn tool_choice(choice: &ToolChoice) -> Value {
    match choice.mode() {
        ToolMode::Unspecified | ToolMode::Auto => "auto".into(),
        ToolMode::None => "none".into(),
        ToolMode::Required => "required".into(),
        ToolMode::Named => json!({"type": "function", "function": {"name": choice.name}}),
    }
}

#[cfg(test)]
mod tests {
    use proto::v1::{JsonSchema, Message, Role, ToolCall};

    use super::*;

    #[test]
    fn a_small_request_stays_small() {
        let request = ChatRequest {
            prompt: "hi".to_owned(),
            ..ChatRequest::default()
        };
        assert_eq!(
            body(&request, "m").unwrap(),
            json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "stream": true, "stream_options": {"include_usage": true}})
        );
    }

    #[test]
    fn a_raw_input_is_sent_as_the_legacy_completions_want_it() {
        let request = ChatRequest {
            raw: true,
            prompt_tokens: vec![5, 6],
            sampling: Some(Sampling {
                logprobs: true,
                top_logprobs: 2,
                ..Sampling::default()
            }),
            ..ChatRequest::default()
        };
        assert_eq!(
            body(&request, "m").unwrap(),
            json!({"model": "m", "prompt": [5, 6], "stream": true, "stream_options": {"include_usage": true}, "logprobs": 2})
        );
    }

    #[test]
    fn thinking_is_told_in_the_words_of_servers_that_can_be_told() {
        let request = ChatRequest {
            prompt: "hi".to_owned(),
            thinking: Some(Thinking {
                enabled: Some(false),
                effort: "low".to_owned(),
                budget: 0,
            }),
            ..ChatRequest::default()
        };
        let body = body(&request, "m").unwrap();
        assert_eq!(body["chat_template_kwargs"], json!({"enable_thinking": false}));
        assert_eq!(body["reasoning_effort"], "low");
    }

    #[test]
    fn all_that_was_asked_is_passed_on() {
        let call = ToolCall {
            id: "c1".to_owned(),
            name: "look".to_owned(),
            arguments: "{}".to_owned(),
        };
        let request = ChatRequest {
            max_tokens: Some(5),
            n: 2,
            messages: vec![
                Message {
                    role: Role::System.into(),
                    text: "be brief".to_owned(),
                    ..Message::default()
                },
                Message {
                    role: Role::Assistant.into(),
                    tool_calls: vec![call],
                    ..Message::default()
                },
                Message {
                    role: Role::Tool.into(),
                    text: "42".to_owned(),
                    tool_call_id: "c1".to_owned(),
                    ..Message::default()
                },
            ],
            sampling: Some(Sampling {
                temperature: Some(0.7),
                top_k: Some(0),
                min_p: Some(0.05),
                seed: Some(u64::MAX),
                stop: vec!["\n".to_owned()],
                logit_bias: [(7, -100.0)].into(),
                logprobs: true,
                top_logprobs: 3,
                ..Sampling::default()
            }),
            response_format: Some(ResponseFormat {
                format: Some(Format::JsonSchema(JsonSchema {
                    name: "s".to_owned(),
                    schema: r#"{"type":"object"}"#.to_owned(),
                    strict: true,
                })),
            }),
            tools: vec![Tool {
                name: "look".to_owned(),
                parameters: r#"{"type":"object"}"#.to_owned(),
                ..Tool::default()
            }],
            tool_choice: Some(ToolChoice {
                mode: ToolMode::Named.into(),
                name: "look".to_owned(),
            }),
            ..ChatRequest::default()
        };
        assert_eq!(
            body(&request, "m").unwrap(),
            json!({
                "model": "m",
                "messages": [
                    {"role": "system", "content": "be brief"},
                    {"role": "assistant", "content": null, "tool_calls": [{"id": "c1", "type": "function", "function": {"name": "look", "arguments": "{}"}}]},
                    {"role": "tool", "content": "42", "tool_call_id": "c1"},
                ],
                "stream": true, "stream_options": {"include_usage": true}, "max_tokens": 5, "n": 2,
                "temperature": 0.7, "min_p": 0.05, "top_k": -1, "seed": i64::MAX, "stop": ["\n"], "logit_bias": {"7": -100.0},
                "logprobs": true, "top_logprobs": 3,
                "response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": {"type": "object"}, "strict": true}},
                "tools": [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}],
                "tool_choice": {"type": "function", "function": {"name": "look"}},
            })
        );
    }

    #[test]
    fn a_schema_that_is_no_json_is_refused_by_its_field() {
        let request = ChatRequest {
            tools: vec![Tool {
                name: "look".to_owned(),
                parameters: "{".to_owned(),
                ..Tool::default()
            }],
            ..ChatRequest::default()
        };
        assert_eq!(body(&request, "m").unwrap_err().param, "tools");
    }
}
