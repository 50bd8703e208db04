//! What came before a response, and what was its input.

use super::*;

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
    let error = &refused.json()["error"];
    assert_eq!(
        (refused.status, &error["param"], &error["code"]),
        (400, &"previous_response_id".into(), &"previous_response_not_found".into())
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
