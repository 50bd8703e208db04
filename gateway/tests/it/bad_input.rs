//! Whatever a client sends, it is told what is wrong with it, and nothing reaches the router.

use proto::v1::{Failure, Reason};

use crate::{
    client,
    gateway::Gateway,
    router::{Router, finished},
};

const HI: &str = r#""messages":[{"role":"user","content":"hi"}]"#;

#[tokio::test]
async fn each_wrong_field_of_a_completion_is_named() {
    let gateway = Gateway::before(&[]).await;
    let long_stop = format!(r#"{{{HI},"stop":"{}"}}"#, "x".repeat(257));
    let deep = format!(r#"{{{HI},"x":{}{}}}"#, "[".repeat(64), "]".repeat(64));
    let cases: Vec<(&str, &str)> = vec![
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("null", ""),
        ("{}", "messages"),
        (&deep, ""),
        (r#"{"messages":null}"#, "messages"),
        (r#"{"messages":[]}"#, "messages"),
        (r#"{"messages":"hi"}"#, "messages"),
        (r#"{"messages":[{"content":"hi"}]}"#, "messages[0].role"),
        (r#"{"messages":[{"role":"user"}]}"#, "messages[0].content"),
        (r#"{"messages":[{"role":"king","content":"hi"}]}"#, "messages[0].role"),
        (r#"{"messages":[{"role":"user","content":7}]}"#, "messages[0].content"),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text","text":7}]}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"text"}]}]}"#,
            "messages[0].content[0].text",
        ),
        (
            r#"{"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://x/y.png"}}]}]}"#,
            "messages[0].content[0].image_url",
        ),
        (r#"{"messages":[{"role":"tool","content":"1"}]}"#, "messages[0].tool_call_id"),
        (r#"{"messages":[{"role":"user","content":"\ud800"}]}"#, ""),
        (r#"{"model":7,"messages":[]}"#, "model"),
        (&long_stop, "stop"),
    ];
    for (body, param) in cases {
        refused(&gateway, body, param).await;
    }
    let fields = [
        (r#""max_tokens":-1"#, "max_tokens"),
        (r#""max_tokens":0"#, "max_tokens"),
        (r#""max_tokens":1e99"#, "max_tokens"),
        (r#""max_tokens":99999999999"#, "max_tokens"),
        (r#""max_tokens":"many""#, "max_tokens"),
        (r#""max_completion_tokens":-5"#, "max_completion_tokens"),
        (r#""n":0"#, "n"),
        (r#""n":9"#, "n"),
        (r#""temperature":2.1"#, "temperature"),
        (r#""temperature":"hot""#, "temperature"),
        (r#""top_p":-0.1"#, "top_p"),
        (r#""top_p":1.5"#, "top_p"),
        (r#""top_k":-2"#, "top_k"),
        (r#""presence_penalty":-2.5"#, "presence_penalty"),
        (r#""seed":1.5"#, "seed"),
        (r#""stop":[1]"#, "stop[0]"),
        (r#""stop":"""#, "stop"),
        (r#""logit_bias":{"cat":1}"#, "logit_bias"),
        (r#""logit_bias":{"1":101}"#, "logit_bias"),
        (r#""top_logprobs":3"#, "top_logprobs"),
        (r#""logprobs":true,"top_logprobs":21"#, "top_logprobs"),
        (r#""stream_options":{"include_usage":true}"#, "stream_options"),
        (r#""stream":"yes""#, "stream"),
        (r#""response_format":{"type":"xml"}"#, "response_format.type"),
        (r#""response_format":{"type":"json_schema"}"#, "response_format.json_schema"),
        (r#""tools":[{"type":"web_search"}]"#, "tools[0]"),
        (r#""tools":[{"type":"function","function":{}}]"#, "tools[0].function.name"),
        (r#""tool_choice":"perhaps""#, "tool_choice"),
        (r#""disconnect":"stay""#, "disconnect"),
        (r#""disconnect":7"#, "disconnect"),
        (r#""disconnect":"cancel","detach_grace_ms":5"#, "detach_grace_ms"),
        (r#""disconnect":"detach","detach_grace_ms":0"#, "detach_grace_ms"),
        (r#""detach_grace_ms":1800001"#, "detach_grace_ms"),
    ];
    for (field, param) in fields {
        refused(&gateway, &format!("{{{HI},{field}}}"), param).await;
    }
}

async fn refused(gateway: &Gateway, body: &str, param: &str) {
    let response = client::post(gateway.address, "/v1/chat/completions", body).await.whole().await;
    let error = &response.json()["error"];
    assert_eq!(response.status, 400, "{body}: {error}");
    assert_eq!(error["param"].as_str().unwrap_or_default(), param, "{body}: {error}");
    assert_eq!(error["type"], "invalid_request_error");
    assert!(
        error["message"].as_str().is_some_and(|message| message.contains(param)),
        "{body}: {error}"
    );
}

#[tokio::test]
async fn null_is_as_good_as_absent_and_unknown_fields_are_ignored() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let nulls = [
        "model",
        "stream",
        "stream_options",
        "max_tokens",
        "max_completion_tokens",
        "n",
        "temperature",
        "top_p",
        "top_k",
        "min_p",
        "frequency_penalty",
        "presence_penalty",
        "repetition_penalty",
        "seed",
        "stop",
        "logit_bias",
        "logprobs",
        "top_logprobs",
        "response_format",
        "tools",
        "tool_choice",
        "parallel_tool_calls",
        "reasoning_effort",
        "user",
        "service_tier",
        "store",
        "metadata",
        "conversation_id",
        "disconnect",
        "detach_grace_ms",
    ];
    let nulls: Vec<String> = nulls.iter().map(|name| format!(r#""{name}":null"#)).collect();
    let body = format!(
        r#"{{{HI},{},"user":"me","service_tier":"auto","metadata":{{"a":[1]}}}}"#,
        nulls.join(",")
    );
    let post = async { client::post(gateway.address, "/v1/chat/completions", &body).await.whole().await };
    let (response, _) = tokio::join!(post, router.say(vec![finished(proto::v1::FinishReason::Stop, 0)]));
    assert_eq!(response.status, 200, "{}", response.body);
}

#[tokio::test]
async fn everything_that_may_be_asked_for_reaches_the_router() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let body = r#"{
        "model": "tiny", "max_completion_tokens": 9, "n": 2, "temperature": 0.5, "top_p": 0.9, "top_k": -1, "min_p": 0.1, "seed": -1,
        "stop": ["a", "b"], "logit_bias": {"5": -100}, "logprobs": true, "top_logprobs": 2, "conversation_id": "c1",
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}, "strict": true}},
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {"type":"object"}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}}, "parallel_tool_calls": false, "reasoning_effort": "low",
        "messages": [
            {"role": "developer", "content": [{"type": "text", "text": "be"}, {"type": "text", "text": "brief"}]},
            {"role": "user", "content": "hi", "name": "ann"},
            {"role": "assistant", "content": null, "tool_calls": [{"id": "t1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]},
            {"role": "tool", "tool_call_id": "t1", "content": "42"}
        ]
    }"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\ncontent-type: application/json\nx-request-id: mine\ncontent-length: {}",
        body.len()
    );
    let post = async { client::send(gateway.address, &head, body.as_bytes()).await.whole().await };
    let (response, mut request) = tokio::join!(post, router.say(vec![finished(proto::v1::FinishReason::Stop, 0)]));
    assert_eq!((response.status, response.header("x-request-id")), (200, Some("mine")));
    assert_eq!(std::mem::take(&mut request.stream_id).len(), 32);
    let debug = format!("{request:#?}");
    let unset = [": \"\",", ": [],", ": None,", ": 0,", ": false,"];
    let set: Vec<&str> = debug
        .lines()
        .filter(|line| !unset.iter().any(|unset| line.ends_with(unset)))
        .collect();
    insta::assert_snapshot!(set.join("\n"));
}

#[tokio::test]
async fn a_body_over_the_bound_is_refused_before_and_while_it_is_read() {
    let gateway = Gateway::with(&[], &["--body-limit", "1000"]).await;
    let announced = "POST /chat HTTP/1.1\ncontent-type: application/json\ncontent-length: 1001";
    assert_eq!(client::send(gateway.address, announced, b"").await.status, 413);
    let chunk = format!("3e9\r\n{}\r\n", " ".repeat(1001));
    let chunked = "POST /chat HTTP/1.1\ncontent-type: application/json\ntransfer-encoding: chunked";
    let response = client::send(gateway.address, chunked, chunk.as_bytes()).await.whole().await;
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (413, &"body_too_large".into())
    );
}

#[tokio::test]
async fn a_body_of_another_type_or_that_is_not_utf_8_is_refused() {
    let gateway = Gateway::before(&[]).await;
    let form = "POST /chat HTTP/1.1\ncontent-type: application/x-www-form-urlencoded\ncontent-length: 2";
    assert_eq!(client::send(gateway.address, form, b"{}").await.status, 415);
    let json = "POST /chat HTTP/1.1\ncontent-type: application/json\ncontent-length: 15";
    let response = client::send(gateway.address, json, b"{\"message\":\"\xff\"}").await.whole().await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (400, &"invalid_json".into()));
}

#[tokio::test]
async fn an_unknown_address_or_method_is_told_in_json() {
    let gateway = Gateway::before(&[]).await;
    let response = client::get(gateway.address, "/v2/everything").await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (404, &"not_found".into()));
    let response = client::get(gateway.address, "/v1/chat/completions").await;
    assert_eq!(
        (response.status, &response.json()["error"]["code"]),
        (405, &"method_not_allowed".into())
    );
    assert_eq!(response.header("allow"), Some("POST"));
}

#[tokio::test]
async fn a_refusal_of_the_router_is_an_http_error_before_the_first_byte() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let full = Failure {
        queue_depth: 12,
        retry_after_ms: 1500,
        ..Failure::new(Reason::QueueFull, "12 wait already")
    };
    let refuse = async {
        let (received, _) = router.started().await;
        received.refuse(full).await;
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/stream?prompt=hi"), refuse);
    assert_eq!((response.status, response.header("retry-after")), (503, Some("2")));
    assert_eq!(response.json()["error"]["queue_depth"], 12);
}
