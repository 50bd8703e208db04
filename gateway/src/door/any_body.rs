//! Whatever a client sends, a door answers with a request or with a refusal that names a field: never with a panic.

use proptest::{collection::vec, prelude::*, sample::Index};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{completions, embeddings, messages, responses, simple, text, ws};
use crate::{body, failure::Refusal};

/// Any JSON, as deep as a request's.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        (-2_i64..3).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,8}".prop_map(Value::from),
        prop::sample::select(vec!["", "text", "user", "tool", "auto", "json_schema", "function"]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 16, 4, |inner| {
        let name = prop::sample::select(vec!["type", "text", "role", "content", "name", "function", "schema", "id"]);
        prop_oneof![
            vec(inner.clone(), 0..4).prop_map(Value::from),
            vec((name, inner), 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

/// What happens to a body: something somewhere is replaced, or taken out.
fn changes() -> impl Strategy<Value = Vec<(Index, Option<Value>)>> {
    vec((any::<Index>(), prop::option::weighted(0.8, any_json())), 0..4)
}

fn changed(mut body: Value, changes: Vec<(Index, Option<Value>)>) -> Value {
    for (place, value) in changes {
        let mut places = Vec::new();
        pointers(&body, "", &mut places);
        let place = place.get(&places).clone();
        match (value, place.rsplit_once('/')) {
            (Some(value), _) => {
                if let Some(at) = body.pointer_mut(&place) {
                    *at = value;
                }
            }
            (None, Some((within, name))) => {
                if let Some(Value::Object(fields)) = body.pointer_mut(within) {
                    fields.remove(name);
                }
            }
            (None, None) => {}
        }
    }
    body
}

fn pointers(value: &Value, at: &str, places: &mut Vec<String>) {
    places.push(at.to_owned());
    match value {
        Value::Object(fields) => fields
            .iter()
            .for_each(|(name, value)| pointers(value, &format!("{at}/{name}"), places)),
        Value::Array(items) => (0..)
            .zip(items)
            .for_each(|(index, value): (usize, _)| pointers(value, &format!("{at}/{index}"), places)),
        _ => {}
    }
}

/// Reads `body` as `T` and makes a request of it, or checks the refusal.
fn check<T: DeserializeOwned, R>(body: &Value, into: impl Fn(T) -> Result<R, Refusal>) -> Result<(), TestCaseError> {
    names(body, body::parse::<T>(body.to_string().as_bytes()).and_then(into))
}

/// Checks how `body` was refused, if it was.
fn names<R>(body: &Value, judged: Result<R, Refusal>) -> Result<(), TestCaseError> {
    let Err(refusal) = judged else { return Ok(()) };
    let error = refusal.object();
    prop_assert_eq!(refusal.status().as_u16(), 400, "{}", error);
    if body.is_object() {
        let param = error["param"].as_str().unwrap_or_default();
        prop_assert!(!param.is_empty(), "no field is named: {error} of {body}");
        prop_assert!(error["message"].as_str().is_some_and(|message| message.contains(param)), "{error}");
    }
    Ok(())
}

fn chat() -> Value {
    json!({
        "model": "m", "stream": true, "stream_options": {"include_usage": true}, "max_completion_tokens": 9, "n": 2, "temperature": 0.5,
        "top_p": 0.9, "top_k": -1, "seed": 1, "stop": ["a"], "logit_bias": {"5": -100}, "logprobs": true, "top_logprobs": 2,
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}], "tool_choice": "auto",
        "disconnect": "detach", "detach_grace_ms": 5, "conversation_id": "c",
        "messages": [{"role": "user", "content": [{"type": "text", "text": "x"}]}, {"role": "assistant", "content": null,
            "tool_calls": [{"id": "t", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "t", "content": "42"}],
    })
}

fn message() -> Value {
    json!({
        "model": "m", "max_tokens": 9, "stream": true, "system": [{"type": "text", "text": "x"}], "stop_sequences": ["a"], "temperature": 0.5,
        "tools": [{"name": "f", "input_schema": {"type": "object"}}], "tool_choice": {"type": "tool", "name": "f"},
        "thinking": {"type": "enabled", "budget_tokens": 5}, "output_config": {"format": {"type": "json_schema", "schema": {}}},
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": [{"type": "thinking", "thinking": "h", "signature": ""},
            {"type": "tool_use", "id": "t", "name": "f", "input": {}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "42"}]}]}],
    })
}

fn response() -> Value {
    json!({
        "model": "m", "stream": true, "instructions": "x", "conversation": {"id": "conv_c"}, "store": true, "background": false,
        "max_output_tokens": 9, "max_tool_calls": 2, "temperature": 0.5, "top_p": 0.9, "presence_penalty": 0.1, "frequency_penalty": -0.1,
        "top_logprobs": 2, "include": ["message.output_text.logprobs"], "parallel_tool_calls": true, "truncation": "auto", "user": "u",
        "tools": [{"type": "function", "name": "f", "parameters": {"type": "object"}, "strict": true}],
        "tool_choice": {"type": "function", "name": "f"}, "reasoning": {"effort": "low"}, "metadata": {"k": "v"},
        "text": {"format": {"type": "json_schema", "name": "x", "schema": {"type": "object"}}, "verbosity": "low"},
        "disconnect": "detach", "detach_grace_ms": 5,
        "input": [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "x"}]},
            {"type": "reasoning", "id": "rs_a_0", "summary": [], "content": [{"type": "reasoning_text", "text": "h"}]},
            {"type": "function_call", "call_id": "t", "name": "f", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "t", "output": "42"}, {"type": "item_reference", "id": "msg_a_0"}],
    })
}

proptest! {
    #[test]
    fn responses_takes_or_names(changes in changes()) {
        let body = changed(response(), changes);
        names(&body, responses::judge(body.to_string().as_bytes()))?;
    }

    #[test]
    fn metadata_is_within_its_bounds_or_named(given in prop::collection::btree_map(".{0,70}", ".{0,4}|.{500,520}", 0..20)) {
        let within = given.len() <= 16
            && given.iter().all(|(key, value)| (1..=64).contains(&key.chars().count()) && value.chars().count() <= 512);
        let judged = responses::metadata("metadata", Some(&given));
        prop_assert_eq!(judged.is_ok(), within);
        names(&json!({}), judged)?;
    }

    #[test]
    fn inputs_of_embeddings_are_texts_or_tokens_and_never_empty(given in any_json(), texts in vec("[a-z]{0,2}", 0..4), tokens in vec(vec(any::<u32>(), 0..3), 0..4)) {
        for given in [given, json!(texts), json!(tokens), json!([texts, tokens])] {
            if let Some((texts, tokens)) = embeddings::inputs(given) {
                prop_assert!(texts.is_empty() != tokens.is_empty());
                prop_assert!(texts.iter().all(|text| !text.is_empty()) && tokens.iter().all(|one| !one.ids.is_empty()));
            }
        }
        prop_assert_eq!(embeddings::inputs(json!(texts)).is_some(), !texts.is_empty() && texts.iter().all(|text| !text.is_empty()));
        prop_assert_eq!(embeddings::inputs(json!(tokens)).is_some(), !tokens.is_empty() && tokens.iter().all(|one| !one.is_empty()));
    }

    #[test]
    fn chat_completions_takes_or_names(changes in changes()) {
        check(&changed(chat(), changes), completions::Completion::into_chat)?;
    }

    #[test]
    fn text_completions_takes_or_names(changes in changes(), tokens: bool) {
        let prompt = if tokens { json!([[1, 2], [3]]) } else { json!(["a", "b"]) };
        let body = json!({"prompt": prompt, "max_tokens": 5, "n": 2, "best_of": 2, "echo": false, "logprobs": 1, "stop": "x", "seed": 3});
        check(&changed(body, changes), text::TextCompletion::into_requests)?;
    }

    #[test]
    fn messages_takes_or_names(changes in changes()) {
        check(&changed(message(), changes), messages::Asked::into_chat)?;
    }

    #[test]
    fn the_simple_door_and_the_socket_take_or_name(changes in changes()) {
        let body = json!({"message": "x", "messages": [{"role": "user", "content": "x"}], "max_tokens": 5, "disconnect": "cancel", "temperature": 1});
        let body = changed(body, changes);
        check(&body, simple::Chat::into_chat)?;
        let heard = ws::parse(body.to_string().as_bytes());
        prop_assert!(heard.is_ok() || heard.is_err_and(|refusal| refusal.status().as_u16() == 400));
    }

    #[test]
    fn what_is_no_json_is_refused(bytes in vec(any::<u8>(), 0..64)) {
        if let Err(refusal) = body::parse::<completions::Completion>(&bytes).and_then(completions::Completion::into_chat) {
            prop_assert_eq!(refusal.status().as_u16(), 400);
        }
    }

    #[test]
    fn a_query_takes_or_names(query in "[a-z_=&%0-9.+-]{0,60}|(limit|after|seed|max_tokens|temperature|disconnect)=.{0,8}") {
        let Ok(uri) = format!("/x?{query}").parse::<http::Uri>() else { return Ok(()) };
        let query = body::Query::of(&uri);
        for refusal in [super::from_query(&query, "q").err(), super::conversations::Page::of(&uri).err()].into_iter().flatten() {
            prop_assert!(refusal.object()["param"].is_string(), "{:?}", refusal);
        }
    }

    #[test]
    fn what_says_to_come_back_is_read_or_named(value in vec(any::<u8>(), 0..24), name in 0_usize..3) {
        let Ok(value) = http::HeaderValue::from_bytes(&value) else { return Ok(()) };
        let name = ["last-event-id", "idempotency-key", "x-unbroken-resume"][name];
        let headers = http::HeaderMap::from_iter([(http::HeaderName::from_static(name), value)]);
        let query = body::Query::of(&http::Uri::from_static("/"));
        if let Err(refusal) = crate::comeback::Comeback::of(&headers, &query) {
            prop_assert!(refusal.object()["param"].is_string(), "{:?}", refusal);
        }
    }
}
