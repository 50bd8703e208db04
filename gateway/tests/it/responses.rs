//! The Responses door: what streams, to the byte; what is shown again; and what came before.

use std::time::Duration;

use proto::v1::{Entry, Failure, FinishReason, Reason, Role, TokenLogprob, ToolCallDelta, Usage, entry::Event};
use serde_json::{Value, json};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, texts},
    stored::Stored,
};

fn hello() -> Vec<Entry> {
    let mut entries = texts(&["Hello", "", ", \"you\"\n"]);
    entries.push(finished(FinishReason::Stop, 3));
    entries
}

fn event(event: Event) -> Entry {
    Entry {
        tokens: 1,
        event: Some(event),
        ..Entry::default()
    }
}

fn call(index: u32, id: &str, arguments: &str) -> Entry {
    event(Event::ToolCall(Box::new(ToolCallDelta {
        index,
        id: id.to_owned(),
        name: if id.is_empty() { String::new() } else { "weather".to_owned() },
        arguments: arguments.to_owned(),
    })))
}

fn tools() -> Vec<Entry> {
    vec![
        event(Event::Reasoning("hm".to_owned())),
        event(Event::Reasoning(" so".to_owned())),
        Entry::text("Let me look.", 7),
        call(0, "call_1", "{\"city\""),
        call(0, "", ":\"Oslo\"}"),
        call(1, "call_2", "{}"),
        finished(FinishReason::ToolCalls, 6),
    ]
}

/// Asks for what is not stored: then nothing in it differs from run to run but the answer's name.
async fn unkept(mut body: Value, entries: Vec<Entry>) -> Whole {
    body["store"] = false.into();
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let post = async {
        client::post(gateway.address, "/v1/responses", &body.to_string())
            .await
            .whole()
            .await
    };
    let (mut response, request) = tokio::join!(post, router.say(entries));
    assert!(!request.keep);
    response.body = response.body.replace(&request.stream_id, "ID");
    response
}

fn ask() -> Value {
    json!({"model": "tiny", "input": "hi"})
}

fn stream() -> Value {
    json!({"model": "tiny", "input": "hi", "stream": true})
}

#[tokio::test]
async fn a_streamed_response_is_openais_to_the_byte() {
    let response = unkept(stream(), hello()).await;
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("text/event-stream; charset=utf-8"));
    insta::assert_snapshot!(response.body);
}

#[tokio::test]
async fn a_whole_response_is_openais_object() {
    let mut body = ask();
    body["instructions"] = "Be brief.".into();
    body["metadata"] = json!({"topic": "trees"});
    let response = unkept(body, hello()).await;
    assert_eq!(response.header("content-type"), Some("application/json"));
    insta::assert_snapshot!(serde_json::to_string_pretty(&response.json()).unwrap());
}

#[tokio::test]
async fn thoughts_texts_and_calls_are_items_that_follow_each_other() {
    let mut body = stream();
    body["tools"] = json!([{"type": "function", "name": "weather", "parameters": {"type": "object"}}]);
    insta::assert_snapshot!(unkept(body, tools()).await.body);
}

#[tokio::test]
async fn what_was_cut_is_incomplete() {
    let mut entries = texts(&["Hel"]);
    entries.push(finished(FinishReason::Length, 1));
    insta::assert_snapshot!(unkept(stream(), entries).await.body);
}

#[tokio::test]
async fn what_broke_ends_with_an_error_and_a_failed_response_and_without_done() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::WorkerLost, "the worker died")));
    insta::assert_snapshot!(unkept(stream(), entries).await.body);
}

#[tokio::test]
async fn a_whole_response_that_breaks_off_is_an_http_error() {
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::failed(Failure::new(Reason::Timeout, "no token came in time")));
    let response = unkept(ask(), entries).await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (504, &"timeout".into()));
}

#[tokio::test]
async fn log_probabilities_come_with_their_token_and_with_the_text() {
    let mut body = stream();
    body["include"] = json!(["message.output_text.logprobs"]);
    let likely = |token: &str, logprob| TokenLogprob {
        token: token.to_owned(),
        logprob,
        bytes: token.as_bytes().to_vec(),
        top: Vec::new(),
    };
    let mut entries = texts(&["é"]);
    entries[0].logprobs = vec![TokenLogprob {
        top: vec![likely("é", -0.5), likely("e", f32::NEG_INFINITY)],
        ..likely("é", -0.5)
    }];
    entries.push(finished(FinishReason::Stop, 1));
    insta::assert_snapshot!(unkept(body, entries).await.body);
}

fn id(response: &Whole) -> String {
    response.json()["id"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_response_is_found_again_as_it_was_and_gone_when_it_was_deleted() {
    let stored = Stored::start().await;
    let (made, request) = stored.ask(&ask(), tools()).await;
    assert_eq!(made.status, 200, "{}", made.body);
    assert!(request.keep && request.disconnect() == proto::v1::DisconnectPolicy::Cancel);
    let path = format!("/v1/responses/{}", id(&made));
    assert_eq!(stored.get(&path).await.json(), made.json());
    let deleted = stored.delete(&path).await;
    assert_eq!(deleted.json(), json!({"id": id(&made), "object": "response", "deleted": true}));
    for gone in [path.as_str(), "/v1/responses/resp_unknown", "/v1/responses/what"] {
        let gone = stored.get(gone).await;
        assert_eq!((gone.status, &gone.json()["error"]["code"]), (404, &"not_found".into()));
    }
    assert_eq!(stored.delete(&path).await.status, 404);
}

#[tokio::test]
async fn from_after_any_event_the_rest_comes_from_the_store_to_the_byte() {
    let stored = Stored::start().await;
    for entries in [tools(), hello()] {
        let (made, request) = stored.ask(&stream(), entries).await;
        assert_eq!(
            request.disconnect(),
            proto::v1::DisconnectPolicy::Detach,
            "its client can come back"
        );
        let path = format!("/v1/responses/resp_{}?stream=true", request.stream_id);
        assert_eq!(stored.get(&path).await.body, made.body);
        let mut rest = made.body.as_str();
        for (number, event) in made.body.split_inclusive("\n\n").enumerate() {
            if event == "data: [DONE]\n\n" {
                break;
            }
            rest = &rest[event.len()..];
            assert_eq!(stored.get(&format!("{path}&starting_after={number}")).await.body, rest);
        }
        assert_eq!(rest, "data: [DONE]\n\n");
    }
    let refused = stored.get("/v1/responses/resp_x?starting_after=3").await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &"starting_after".into()));
}

#[tokio::test]
async fn a_running_response_is_streamed_from_where_it_runs() {
    let stored = Stored::start().await;
    let post = client::post(
        stored.gateway.address,
        "/v1/responses",
        r#"{"model":"tiny","input":"hi","stream":true}"#,
    );
    let ((received, request), mut first) = tokio::join!(
        async {
            let (received, request) = stored.router.started().await;
            received.admit(&request.stream_id).await;
            received.entries(0, texts(&["Hel", "lo"])).await;
            (received, request)
        },
        post
    );
    let mut begun = String::new();
    while !begun.contains("\"lo\"") {
        begun.push_str(&first.chunk().await.unwrap());
    }
    let path = format!("/v1/responses/resp_{}?stream=true&starting_after=2", request.stream_id);
    let (second, ()) = tokio::join!(client::get(stored.gateway.address, &path), async {
        let (again, asked) = stored.router.attached().await;
        assert_eq!((asked.stream_id.as_str(), asked.position), (request.stream_id.as_str(), 0));
        again.admit(&request.stream_id).await;
        let mut all = texts(&["Hel", "lo"]);
        all.push(finished(FinishReason::Stop, 2));
        again.entries(0, all).await;
        received.entries(2, vec![finished(FinishReason::Stop, 2)]).await;
    });
    begun.push_str(&first.rest().await);
    let after: Vec<&str> = begun.split_inclusive("\n\n").skip(3).collect();
    assert_eq!(second.body, after.concat());
}

#[tokio::test]
async fn an_end_that_is_the_gateways_and_not_the_answers_hides_no_event_from_who_comes_back() {
    let stored = Stored::start().await;
    let body = stream();
    let (made, request) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["Hel"])).await;
        received.refuse(Failure::new(Reason::Internal, "nobody can read on")).await;
        request
    });
    let events: Vec<&str> = made.body.split_inclusive("\n\n").collect();
    let (error, before) = events.split_last().unwrap();
    assert!(
        error.starts_with("event: error\n") && error.contains("\"sequence_number\":4,"),
        "{error}"
    );
    let mut entries = texts(&["Hel"]);
    entries.push(finished(FinishReason::Stop, 1));
    stored.finish(&request, &entries).await;
    let path = format!("/v1/responses/resp_{}?stream=true", request.stream_id);
    let whole = stored.get(&path).await.body;
    let rest = stored.get(&format!("{path}&starting_after=4")).await.body;
    assert_eq!(format!("{}{rest}", before.concat()), whole);
}

#[tokio::test]
async fn a_background_response_is_polled_until_it_has_ended() {
    let stored = Stored::start().await;
    let mut body = ask();
    body["background"] = true.into();
    let (made, (received, request)) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.admit(&request.stream_id).await;
        (received, request)
    });
    assert_eq!(request.disconnect(), proto::v1::DisconnectPolicy::Background);
    assert_eq!(
        (&made.json()["status"], &made.json()["output"]),
        (&"in_progress".into(), &json!([]))
    );
    assert!(stored.router.next().await.is_detach(false), "nobody reads it");
    let path = format!("/v1/responses/{}", id(&made));
    let poll = async |entries: Vec<Entry>| {
        let (shown, ()) = tokio::join!(stored.get(&path), async {
            let (attached, _) = stored.router.attached().await;
            attached.admit(&request.stream_id).await;
            if !entries.is_empty() {
                attached.entries(0, entries).await;
            }
        });
        shown.json()
    };
    assert_eq!(poll(Vec::new()).await["status"], "queued");
    stored.router.next().await; // it detaches
    let running = poll(texts(&["Hel"])).await;
    assert_eq!(
        (&running["status"], &running["output"][0]["content"][0]["text"]),
        (&"in_progress".into(), &"Hel".into())
    );
    stored.router.next().await;
    // It has ended, and the store does not know yet.
    assert_eq!(poll(hello()).await["status"], "completed");
    stored.finish(&request, &hello()).await;
    let shown = stored.get(&path).await.json();
    assert_eq!(
        (&shown["status"], &shown["usage"]["output_tokens"]),
        (&"completed".into(), &3.into())
    );
    drop(received);
}

#[tokio::test]
async fn a_background_response_that_waits_for_a_slot_is_queued() {
    let stored = Stored::start().await;
    let mut body = ask();
    body["background"] = true.into();
    let (made, (_received, _)) = tokio::join!(stored.post("/v1/responses", &body), stored.router.started());
    assert_eq!(made.json()["status"], "queued");
}

#[tokio::test]
async fn a_background_response_says_that_it_was_queued() {
    let stored = Stored::start().await;
    let mut body = stream();
    body["background"] = true.into();
    let (made, _) = stored.ask(&body, hello()).await;
    let types: Vec<&str> = made.body.lines().filter_map(|line| line.strip_prefix("event: ")).take(3).collect();
    assert_eq!(types, ["response.created", "response.queued", "response.in_progress"]);
}

#[tokio::test]
async fn what_was_cancelled_says_so() {
    let stored = Stored::start().await;
    let mut entries = texts(&["Hel"]);
    entries.push(Entry::cancelled(Usage::default()));
    let (made, request) = stored.ask(&ask(), entries).await;
    assert_eq!(made.json()["status"], "cancelled");
    let path = format!("/v1/responses/resp_{}/cancel", request.stream_id);
    let again = stored.post(&path, &json!({})).await;
    assert_eq!((again.status, &again.json()["status"]), (200, &"cancelled".into()));
}

#[tokio::test]
async fn a_response_goes_on_from_those_before_it() {
    let stored = Stored::start().await;
    let mut first = ask();
    first["instructions"] = "Be brief.".into();
    let (made, _) = stored.ask(&first, tools()).await;
    let second = json!({
        "model": "tiny", "previous_response_id": id(&made),
        "input": [{"type": "function_call_output", "call_id": "call_1", "output": "21"}],
    });
    let (made, request) = stored.ask(&second, hello()).await;
    assert_eq!(request.instructions, "", "they are not carried over");
    assert_eq!(made.json()["previous_response_id"], second["previous_response_id"]);
    let third = json!({"model": "tiny", "previous_response_id": id(&made), "input": "And?", "instructions": "Be long."});
    let (_, request) = stored.ask(&third, hello()).await;
    let said: Vec<_> = request
        .messages
        .iter()
        .map(|message| (message.role(), message.text.as_str(), message.tool_calls.len()))
        .collect();
    assert_eq!(
        said,
        [
            (Role::User, "hi", 0),
            (Role::Assistant, "Let me look.", 2),
            (Role::Tool, "21", 0),
            (Role::Assistant, "Hello, \"you\"\n", 0),
            (Role::User, "And?", 0),
        ]
    );
    assert_eq!(
        (request.instructions.as_str(), request.messages[1].reasoning.as_str()),
        ("Be long.", "hm so")
    );
    let unknown = json!({"model": "tiny", "previous_response_id": "resp_unknown", "input": "x"});
    let refused = stored.post("/v1/responses", &unknown).await;
    assert_eq!(
        (refused.status, &refused.json()["error"]["param"]),
        (404, &"previous_response_id".into())
    );
}

#[tokio::test]
async fn an_item_may_be_named_instead_of_sent_again() {
    let stored = Stored::start().await;
    let (made, _) = stored.ask(&ask(), hello()).await;
    let item = made.json()["output"][0]["id"].clone();
    let body = json!({"model": "tiny", "input": [{"type": "item_reference", "id": item}, {"role": "user", "content": "And?"}]});
    let (again, request) = stored.ask(&body, hello()).await;
    assert_eq!(request.messages[0].text, "Hello, \"you\"\n");
    let items = stored
        .get(&format!("/v1/responses/{}/input_items?order=asc", id(&again)))
        .await
        .json();
    assert_eq!(items["data"][0]["id"], item);
    let body = json!({"model": "tiny", "input": [{"type": "item_reference", "id": "msg_nobody_0"}]});
    let refused = stored.post("/v1/responses", &body).await;
    assert_eq!((refused.status, &refused.json()["error"]["param"]), (404, &"input[0].id".into()));
}

#[tokio::test]
async fn the_input_is_listed_page_by_page_in_either_order() {
    let stored = Stored::start().await;
    let input: Vec<Value> = (0..5)
        .map(|number| json!({"role": "user", "content": number.to_string()}))
        .collect();
    let (made, _) = stored.ask(&json!({"model": "tiny", "input": input}), hello()).await;
    let path = format!("/v1/responses/{}/input_items", id(&made));
    for (order, expected) in [("asc", ["0", "1", "2", "3", "4"]), ("desc", ["4", "3", "2", "1", "0"])] {
        let (mut after, mut texts) = (String::new(), Vec::new());
        loop {
            let page = stored.get(&format!("{path}?limit=2&order={order}&after={after}")).await.json();
            let data = page["data"].as_array().unwrap();
            texts.extend(data.iter().map(|item| item["content"][0]["text"].as_str().unwrap().to_owned()));
            if page["has_more"] == false {
                break;
            }
            page["last_id"].as_str().unwrap().clone_into(&mut after);
        }
        assert_eq!(texts, expected);
    }
    assert_eq!(
        stored.get(&path).await.json()["data"][0]["content"][0]["text"],
        "4",
        "the newest first, if not said otherwise"
    );
    for wrong in ["limit=0", "limit=101", "order=random", "after=nobody"] {
        assert_eq!(stored.get(&format!("{path}?{wrong}")).await.status, 400, "{wrong}");
    }
}

#[tokio::test]
async fn the_same_key_is_the_same_response_also_when_its_router_has_forgotten_it() {
    let stored = Stored::start().await;
    let post = async |body: &str| {
        let head = format!(
            "POST /v1/responses HTTP/1.1\ncontent-type: application/json\nidempotency-key: k1\ncontent-length: {}",
            body.len()
        );
        client::send(stored.gateway.address, &head, body.as_bytes()).await.whole().await
    };
    let body = stream().to_string();
    let (made, ()) = tokio::join!(post(&body), async {
        let request = stored.router.say(hello()).await;
        stored.finish(&request, &hello()).await;
    });
    let (again, ()) = tokio::join!(post(&body), async {
        let (received, _) = stored.router.started().await;
        received.refuse(Failure::new(Reason::Expired, "not kept any more")).await;
    });
    assert_eq!(again.body, made.body);
    let reused = post(&ask().to_string()).await;
    assert_eq!(
        (reused.status, &reused.json()["error"]["code"]),
        (422, &"idempotency_key_reused".into())
    );
}

#[tokio::test]
async fn what_does_not_fit_is_left_out_where_that_is_wished_for() {
    let stored = Stored::start().await;
    let input: Vec<Value> = (0..8)
        .map(|number| json!({"role": "user", "content": number.to_string()}))
        .collect();
    for (truncation, tries, left) in [("auto", 2, Some(4)), ("auto", 9, None), ("disabled", 1, None)] {
        let body = json!({"model": "tiny", "input": input, "truncation": truncation});
        let (made, last) = tokio::join!(stored.post("/v1/responses", &body), async {
            let mut said = 0;
            for _ in 0..tries {
                let (received, request) = stored.router.started().await;
                said = request.messages.len();
                received.refuse(Failure::new(Reason::ContextLengthExceeded, "too long")).await;
                if left.is_none() && (said == 1 || truncation == "disabled") {
                    return said;
                }
            }
            let request = stored.router.say(hello()).await;
            assert_eq!(
                request.messages[0].text,
                (8 - request.messages.len()).to_string(),
                "the oldest are left out"
            );
            request.messages.len().min(said)
        });
        match left {
            Some(left) => assert_eq!((made.status, last), (200, left)),
            None => assert_eq!(
                (made.status, &made.json()["error"]["code"]),
                (400, &"context_length_exceeded".into())
            ),
        }
    }
}

#[tokio::test]
async fn what_was_refused_is_not_kept() {
    let stored = Stored::start().await;
    let body = ask();
    let (refused, request) = tokio::join!(stored.post("/v1/responses", &body), async {
        let (received, request) = stored.router.started().await;
        received.refuse(Failure::new(Reason::QueueFull, "too many wait")).await;
        request
    });
    assert_eq!(refused.status, 503);
    assert_eq!(stored.get(&format!("/v1/responses/resp_{}", request.stream_id)).await.status, 404);
}

#[tokio::test]
async fn without_a_store_a_response_is_answered_and_says_that_it_is_not_stored() {
    let router = Router::start();
    let gateway = Gateway::with(&[&router], &["--gateway-store", "127.0.0.1:1"]).await;
    let post = async |body: Value| {
        client::post(gateway.address, "/v1/responses", &body.to_string())
            .await
            .whole()
            .await
    };
    let (made, request) = tokio::join!(post(ask()), router.say(hello()));
    assert_eq!((made.status, &made.json()["store"], request.keep), (200, &false.into(), false));
    for needs_it in [
        json!({"model": "tiny", "input": "hi", "background": true}),
        json!({"model": "tiny", "input": "hi", "conversation": "conv_1"}),
        json!({"model": "tiny", "input": "hi", "previous_response_id": "resp_1"}),
    ] {
        let refused = tokio::time::timeout(Duration::from_secs(30), post(needs_it)).await.unwrap();
        assert_eq!(
            (refused.status, &refused.json()["error"]["code"]),
            (503, &"store_unavailable".into())
        );
    }
}

#[tokio::test]
async fn the_tokens_of_an_input_are_counted_without_a_response() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let count = async |body: Value| {
        client::post(gateway.address, "/v1/responses/input_tokens", &body.to_string())
            .await
            .whole()
            .await
    };
    let tools = json!([{"type": "function", "name": "f", "parameters": {"type": "object"}}]);
    for body in [
        json!({"input": "hi"}),
        json!({"model": "tiny", "input": [{"role": "user", "content": "hi"}], "instructions": "Be brief.", "tools": tools}),
    ] {
        let counted = count(body).await;
        assert_eq!(
            (counted.status, counted.json()),
            (200, json!({"object": "response.input_tokens", "input_tokens": 7}))
        );
    }
    let asked = router.counted().await;
    assert_eq!((asked[0].model.as_str(), asked[1].model.as_str()), ("", "tiny"));
    let said: Vec<_> = asked[1]
        .messages
        .iter()
        .map(|message| (message.role(), message.text.as_str()))
        .collect();
    assert_eq!(said, [(Role::System, "Be brief."), (Role::User, "hi")]);
    assert_eq!(asked[1].tools[0].name, "f");
    let wrong = count(json!({"model": "tiny"})).await;
    assert_eq!((wrong.status, &wrong.json()["error"]["param"]), (400, &json!("input")));
}

#[tokio::test]
async fn there_is_no_compaction() {
    let gateway = Gateway::before(&[]).await;
    let nothing = client::post(gateway.address, "/v1/responses/compact", r#"{"model":"tiny","input":"hi"}"#)
        .await
        .whole()
        .await;
    assert_eq!((nothing.status, &nothing.json()["error"]["code"]), (404, &json!("not_found")));
    let method = client::request(gateway.address, "PUT", "/v1/responses/resp_x", "").await;
    assert_eq!(method.status, 405, "what is there still says what it takes");
}

#[tokio::test]
async fn a_response_of_no_named_model_bears_the_one_that_answered() {
    let response = unkept(json!({"input": "hi"}), hello()).await;
    assert_eq!((response.status, &response.json()["model"]), (200, &json!(crate::router::MODEL)));
}
