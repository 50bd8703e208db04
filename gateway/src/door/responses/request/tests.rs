//! What is refused, and what becomes of what is asked.

use proto::v1::{ToolMode, response_format::Format};

use super::*;

fn plan(body: &Value) -> Result<Plan, Value> {
    let asked: Asked = crate::body::parse(body.to_string().as_bytes()).map_err(|refusal| refusal.object())?;
    asked.plan().map_err(|refusal| refusal.object())
}

fn with(name: &str, value: Value) -> Result<Plan, Value> {
    let mut body = json!({"model": "m", "input": "hi"});
    body[name] = value;
    plan(&body)
}

#[test]
fn the_field_at_fault_is_named() {
    let wrong = [
        ("model", json!(7), "model"),
        ("input", json!([]), "input"),
        ("input", json!([{"role": "user"}]), "input[0].content"),
        ("temperature", json!(2.5), "temperature"),
        ("top_p", json!(-0.1), "top_p"),
        ("top_logprobs", json!(21), "top_logprobs"),
        ("max_output_tokens", json!(0), "max_output_tokens"),
        ("tools", json!([{"type": "web_search"}]), "tools[0].type"),
        ("tools", json!([{"type": "function"}]), "tools[0].name"),
        ("tool_choice", json!("sometimes"), "tool_choice"),
        ("tool_choice", json!({"type": "function", "name": "nobody"}), "tool_choice.name"),
        ("text", json!({"format": {"type": "xml"}}), "text.format.type"),
        ("text", json!({"format": {"type": "json_schema"}}), "text.format.name"),
        ("truncation", json!("always"), "truncation"),
        ("reasoning", json!({"effort": "enormous"}), "reasoning.effort"),
        ("metadata", json!({"k": "v".repeat(513)}), "metadata"),
        ("metadata", json!({"k": 1}), "metadata.k"),
        ("prompt", json!({"id": "pmpt_1"}), "prompt"),
        ("disconnect", json!("never"), "disconnect"),
    ];
    for (name, value, param) in wrong {
        assert_eq!(with(name, value.clone()).unwrap_err()["param"], param, "{name} {value}");
    }
    let both = json!({"model": "m", "input": "hi", "conversation": "conv_1", "previous_response_id": "resp_1"});
    assert_eq!(plan(&both).unwrap_err()["param"], "previous_response_id");
    let unkept = json!({"model": "m", "input": "hi", "background": true, "store": false});
    assert_eq!(plan(&unkept).unwrap_err()["param"], "background");
}

#[test]
fn input_may_be_missing_where_there_is_something_to_go_on_from() {
    for from in [json!({"previous_response_id": "resp_1"}), json!({"conversation": "conv_1"})] {
        assert!(plan(&from).unwrap().input.is_empty(), "{from}");
    }
    assert_eq!(plan(&json!({"model": "m"})).unwrap_err()["param"], "input");
}

#[test]
fn what_is_nothing_but_an_id_names_another_item() {
    let plan = plan(&json!({"input": [{"id": "msg_1"}, {"role": "user", "content": "hi"}]})).unwrap();
    let named: Vec<_> = plan.input.iter().map(Item::reference).collect();
    assert_eq!(named, [Some("msg_1"), None]);
}

#[test]
fn of_a_share_of_nothing_the_likeliest_token_is_left() {
    let top_p = plan(&json!({"input": "hi", "top_p": 0})).unwrap().request.sampling.unwrap().top_p;
    assert!(
        top_p.is_some_and(|share| share > 0.0 && share < 1e-3),
        "the mesh takes no 0: {top_p:?}"
    );
}

#[test]
fn a_missing_model_is_left_to_the_router() {
    for body in [json!({"input": "hi"}), json!({"input": "hi", "model": null})] {
        assert_eq!(plan(&body).unwrap().request.model, "", "{body}");
    }
}

#[test]
fn what_took_effect_is_shown() {
    let body = json!({
        "model": "m", "input": "hi", "instructions": "Be brief.", "max_output_tokens": 9, "conversation": {"id": "conv_1"},
        "tools": [{"type": "function", "name": "a", "parameters": {"type": "object"}}, {"type": "function", "name": "b"}],
        "tool_choice": {"type": "allowed_tools", "mode": "required", "tools": [{"type": "function", "name": "b"}]},
        "text": {"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}, "strict": true}},
        "include": ["message.output_text.logprobs"], "reasoning": null, "metadata": {"k": "v"},
    });
    let plan = plan(&body).unwrap();
    assert_eq!(
        (plan.conversation.as_deref(), plan.store, plan.shape.background),
        (Some("conv_1"), true, false)
    );
    let request = &plan.request;
    assert_eq!((request.instructions.as_str(), request.max_tokens), ("Be brief.", Some(9)));
    assert_eq!(request.tools.iter().map(|tool| tool.name.as_str()).collect::<Vec<_>>(), ["b"]);
    assert_eq!(request.tool_choice.as_ref().unwrap().mode(), ToolMode::Required);
    assert!(request.sampling.as_ref().unwrap().logprobs);
    assert!(matches!(
        request.response_format.as_ref().unwrap().format,
        Some(Format::JsonSchema(_))
    ));
    assert_eq!(plan.asked["tools"].as_array().unwrap().len(), 2, "all are shown");
    assert_eq!(
        plan.asked["tools"][1],
        json!({"type": "function", "name": "b", "description": null, "parameters": null, "strict": false})
    );
    assert_eq!(plan.asked["text"]["format"]["name"], "n");
    assert_eq!(
        (&plan.asked["temperature"], &plan.asked["truncation"]),
        (&json!(1.0), &json!("disabled"))
    );
}
