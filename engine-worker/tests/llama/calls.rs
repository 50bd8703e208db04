//! Functions called by a model that was never taught to: a grammar makes it call them rightly where it must.

use engine_worker::{
    engine::Engine,
    llama::{Llama, Settings, ToolFormat},
};
use proto::v1::{
    ChatRequest, Entry, FinishReason, JsonSchema, Message, Reason, ResponseFormat, Role, Tool, ToolCall, ToolCallDelta, ToolChoice,
    ToolMode, entry::Event, response_format::Format,
};
use serde_json::Value;

use crate::{
    ask::{ask, ends, engine, greedy, load, refused, seeded, text, with_sampling},
    exact::cut,
};

fn weather() -> Tool {
    Tool {
        name: "get_weather".into(),
        description: "Tells the weather of a city.".into(),
        parameters: r#"{"type":"object","properties":{"city":{"type":"string","maxLength":12},"unit":{"enum":["c","f"]}},"required":["city","unit"],"additionalProperties":false}"#.into(),
        strict: true,
    }
}

fn time() -> Tool {
    Tool {
        name: "get_time".into(),
        description: "Tells the time.".into(),
        ..Tool::default()
    }
}

fn choice(mode: ToolMode, name: &str) -> ToolChoice {
    ToolChoice {
        mode: mode.into(),
        name: name.into(),
    }
}

fn calling(request: ChatRequest, mode: ToolMode, name: &str) -> ChatRequest {
    ChatRequest {
        tools: vec![weather(), time()],
        tool_choice: Some(choice(mode, name)),
        ..request
    }
}

/// The calls of an answer, put together as a client does.
fn calls(entries: &[Entry], choice: u32) -> Vec<ToolCallDelta> {
    let mut calls: Vec<ToolCallDelta> = Vec::new();
    for entry in entries.iter().filter(|entry| entry.choice == choice) {
        let Some(Event::ToolCall(delta)) = &entry.event else {
            continue;
        };
        if let Some(call) = calls.get_mut(delta.index as usize) {
            assert!(delta.id.is_empty() && delta.name.is_empty(), "named in its first piece only");
            call.arguments.push_str(&delta.arguments);
        } else {
            assert!(!delta.id.is_empty() && !delta.name.is_empty());
            calls.push((**delta).clone());
        }
    }
    calls
}

#[tokio::test]
async fn a_named_function_is_called_with_arguments_of_its_schema() {
    let engine = engine(1).await;
    for seed in 0..3 {
        let request = calling(seeded("What is the weather in Paris?", 120, seed), ToolMode::Named, "get_weather");
        let request = with_sampling(request, |sampling| sampling.logprobs = true);
        let entries = ask(&engine, &request).await;
        let calls = calls(&entries, 0);
        assert!(
            entries.iter().all(|entry| entry.logprobs.is_empty() || entry.event.is_none()),
            "they are of words for the reader, and of what may yet be words"
        );
        assert_eq!(
            (calls.len(), calls[0].name.as_str(), text(&entries, 0).as_str()),
            (1, "get_weather", "")
        );
        let arguments: Value = serde_json::from_str(&calls[0].arguments).unwrap_or_else(|error| panic!("{error}: {}", calls[0].arguments));
        assert!(arguments["city"].is_string() && ["c", "f"].contains(&arguments["unit"].as_str().unwrap()));
        assert_eq!(ends(&entries)[0].reason(), FinishReason::ToolCalls);
        let pieces = entries
            .iter()
            .filter(|entry| matches!(entry.event, Some(Event::ToolCall(_))))
            .count();
        assert!(pieces > 3, "the arguments are streamed: {pieces}");
        let usage = entries.last().unwrap().usage().unwrap();
        let tokens: u32 = entries.iter().map(|entry| entry.tokens).sum();
        assert_eq!(usage.completion_tokens, tokens);
    }
}

#[tokio::test]
async fn every_family_of_calls_is_written_and_read() {
    for format in [
        ToolFormat::Hermes,
        ToolFormat::Llama3,
        ToolFormat::Mistral,
        ToolFormat::Deepseek,
        ToolFormat::Prompt,
    ] {
        let engine = load(Settings {
            llama_seats: 1,
            llama_context: 2048,
            llama_threads: Some(1),
            llama_tools: format,
            ..Settings::default()
        })
        .await;
        let mut request = calling(greedy("What is the weather in Paris?", 150), ToolMode::Required, "");
        request.parallel_tool_calls = Some(false);
        let entries = ask(&engine, &request).await;
        let calls = calls(&entries, 0);
        assert_eq!((calls.len(), text(&entries, 0).as_str()), (1, ""), "{format:?}: {entries:?}");
        serde_json::from_str::<Value>(&calls[0].arguments).unwrap();
        assert_eq!(ends(&entries)[0].reason(), FinishReason::ToolCalls);
        assert_eq!(calls[0].id.len() == 9, format == ToolFormat::Mistral);
    }
}

#[tokio::test]
async fn several_functions_are_called_and_each_is_counted() {
    let engine = engine(1).await;
    let mut most = 0;
    for seed in 0..4 {
        let request = calling(
            seeded("Tell me the weather of Rome, of Oslo, and the time.", 300, seed),
            ToolMode::Required,
            "",
        );
        let entries = ask(&engine, &request).await;
        let calls = calls(&entries, 0);
        let ids: std::collections::HashSet<&str> = calls.iter().map(|call| call.id.as_str()).collect();
        assert_eq!(ids.len(), calls.len());
        most = most.max(calls.len());
        if ends(&entries)[0].reason() == FinishReason::ToolCalls {
            for call in &calls {
                serde_json::from_str::<Value>(&call.arguments).unwrap();
            }
        }
    }
    assert!(most > 1, "one answer at least calls more than one");
}

#[tokio::test]
async fn an_answer_that_calls_goes_on_as_it_would_have() {
    cut(&calling(greedy("What is the weather in Paris?", 40), ToolMode::Required, ""), 2).await;
    let several = ChatRequest {
        n: 2,
        ..calling(seeded("What is the weather in Paris?", 30, 3), ToolMode::Named, "get_weather")
    };
    cut(&several, 7).await;
}

#[tokio::test]
async fn who_may_not_call_speaks() {
    let engine = engine(1).await;
    let request = calling(greedy("Hi", 20), ToolMode::None, "");
    let plain = greedy("Hi", 20);
    assert_eq!(text(&ask(&engine, &request).await, 0), text(&ask(&engine, &plain).await, 0));
    let auto = ask(&engine, &calling(greedy("Hi", 20), ToolMode::Auto, "")).await;
    assert!(!text(&auto, 0).is_empty() || !calls(&auto, 0).is_empty());
}

#[tokio::test]
async fn a_shape_and_calls_exclude_each_other_and_one_of_them_comes() {
    let engine = engine(1).await;
    let format = Format::JsonSchema(JsonSchema {
        schema: r#"{"type":"object","properties":{"ok":{"type":"boolean"}},"required":["ok"]}"#.into(),
        ..JsonSchema::default()
    });
    let mut request = calling(greedy("Is the sky blue?", 150), ToolMode::Auto, "");
    request.response_format = Some(ResponseFormat { format: Some(format) });
    let entries = ask(&engine, &request).await;
    let (said, calls) = (text(&entries, 0), calls(&entries, 0));
    assert!(said.is_empty() != calls.is_empty(), "{said:?} {calls:?}");
    if calls.is_empty() {
        assert!(serde_json::from_str::<Value>(&said).unwrap()["ok"].is_boolean());
    }
}

#[tokio::test]
async fn results_come_back_into_the_conversation() {
    let engine = engine(1).await;
    let mut request = calling(greedy("", 8), ToolMode::Auto, "");
    let plain = engine
        .count_tokens(calling(greedy("What is the weather in Paris?", 8), ToolMode::Auto, ""))
        .await
        .unwrap();
    request.messages.extend([
        Message {
            text: "What is the weather in Paris?".into(),
            ..Message::default()
        },
        Message {
            role: Role::Assistant.into(),
            tool_calls: vec![ToolCall {
                id: "c1".into(),
                name: "get_weather".into(),
                arguments: r#"{"city":"Paris","unit":"c"}"#.into(),
            }],
            ..Message::default()
        },
        Message {
            role: Role::Tool.into(),
            tool_call_id: "c1".into(),
            text: "Rain, 12 degrees.".into(),
            ..Message::default()
        },
    ]);
    let counted = engine.count_tokens(request.clone()).await.unwrap();
    let entries = ask(&engine, &request).await;
    let usage = entries.last().unwrap().usage().unwrap();
    assert_eq!(usage.prompt_tokens, counted.prompt_tokens, "counted as it is answered");
    assert!(counted.prompt_tokens > plain.prompt_tokens + 30);
}

#[tokio::test]
async fn what_cannot_be_called_is_refused() {
    let engine: std::sync::Arc<Llama> = engine(1).await;
    let with = |tool: Tool, mode: ToolMode| ChatRequest {
        tools: vec![tool],
        tool_choice: Some(choice(mode, "get_weather")),
        ..greedy("Hi", 4)
    };
    let schema = |parameters: &str, strict| Tool {
        parameters: parameters.into(),
        strict,
        ..weather()
    };
    let circle = r##"{"type":"object","allOf":[{"$ref":"#/$defs/a"}],"$defs":{"a":{"$ref":"#/$defs/a"}}}"##;
    for (request, param) in [
        (with(time(), ToolMode::Named), "tool_choice"),
        (with(schema("{", false), ToolMode::Required), "tools"),
        (with(schema(r#"{"type":"string"}"#, false), ToolMode::Required), "tools"),
        (with(schema(circle, false), ToolMode::Required), "tools"),
        (with(schema(circle, true), ToolMode::Auto), "tools"),
        (
            with(
                schema(
                    &format!(
                        r#"{{"type":"object","properties":{{"a":{{"type":"string","pattern":"^{}$"}}}}}}"#,
                        "(a{1,9999}){1,9999}".repeat(3)
                    ),
                    true,
                ),
                ToolMode::Auto,
            ),
            "tools",
        ),
    ] {
        let failure = refused(&engine, &request).await;
        assert_eq!(
            (failure.reason(), failure.param.as_str()),
            (Reason::InvalidRequest, param),
            "{failure}"
        );
    }
    // One that need not be right is called as the model likes.
    assert_eq!(ask(&engine, &with(schema(circle, false), ToolMode::Auto)).await.len(), 5);
}
