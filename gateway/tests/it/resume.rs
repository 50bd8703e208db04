//! A stream that was cut after any event, and read on at any gateway, gives the bytes of one that was not.

use proto::v1::{
    ChatResponse, ChoiceEnd, Entry, Failure, FinishReason, Finished, Reason, ToolCallDelta, Usage, chat_command::Command, entry::Event,
};

use crate::{
    client::{self, Whole},
    gateway::Gateway,
    router::{Router, finished, head, texts},
};

const RETRY: &str = "retry: 500\n";

/// Plays a router whose one answer has these entries, for ever.
async fn play(router: &Router, entries: &[Entry]) {
    loop {
        let received = router.next().await;
        let (stream_id, from) = match &received.command {
            Command::Start(request) => (request.stream_id.clone(), 0),
            Command::Attach(asked) => (asked.stream_id.clone(), asked.position as usize),
            Command::Detach(_) | Command::Cancel(_) => continue,
        };
        if from < entries.len() {
            received.admit(&stream_id).await;
            received.entries(u32::try_from(from).unwrap(), entries[from..].to_vec()).await;
        } else {
            let nothing = ChatResponse {
                head: Some(Box::new(head(&stream_id))),
                done: Some(true),
                ..ChatResponse::default()
            };
            received.send(nothing).await;
        }
    }
}

/// An answer of two choices, with all that an entry can be.
fn everything() -> Vec<Entry> {
    let mut entries = texts(&["Hel", "", "lo \"you\"\n"]);
    entries[1].choice = 1;
    let event = |event| Entry {
        tokens: 1,
        event: Some(event),
        ..Entry::default()
    };
    entries.push(event(Event::Reasoning("hm".to_owned())));
    entries.push(Entry {
        token: "both".into(),
        ..event(Event::Reasoning("at once".to_owned()))
    });
    entries.push(event(Event::ToolCall(Box::new(ToolCallDelta {
        id: "call_1".to_owned(),
        name: "f".to_owned(),
        arguments: "{}".to_owned(),
        ..ToolCallDelta::default()
    }))));
    let ends = (0..2).map(|choice| ChoiceEnd {
        choice,
        reason: FinishReason::Stop.into(),
        ..ChoiceEnd::default()
    });
    entries.push(Entry {
        event: Some(Event::Finished(Box::new(Finished {
            choices: ends.collect(),
            usage: Some(Usage::default()),
            ..Finished::default()
        }))),
        ..Entry::default()
    });
    entries
}

/// A door that streams with ids: how it is asked at first, and how after an event.
struct Door {
    head: &'static str,
    body: &'static str,
    in_query: bool,
}

impl Door {
    async fn ask(&self, gateway: &Gateway, last: Option<&str>) -> Whole {
        let (method, path) = self.head.split_once(' ').unwrap();
        let sign = if path.contains('?') { '&' } else { '?' };
        let (query, header) = match last {
            None => (String::new(), String::new()),
            Some(id) if self.in_query => (format!("{sign}last_event_id={id}"), String::new()),
            Some(id) => (String::new(), format!("last-event-id: {id}\n")),
        };
        let head = format!(
            "{method} {path}{query} HTTP/1.1\n{header}content-type: application/json\ncontent-length: {}",
            self.body.len()
        );
        client::send(gateway.address, &head, self.body.as_bytes()).await.whole().await
    }
}

const COMPLETION: &str = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true,"n":2,
    "stream_options":{"include_usage":true,"resumable":true}}"#;
const DOORS: [Door; 6] = [
    Door {
        head: "POST /v1/chat/completions",
        body: COMPLETION,
        in_query: false,
    },
    Door {
        head: "POST /v1/chat/completions",
        body: COMPLETION,
        in_query: true,
    },
    Door {
        head: "GET /v1/chat/stream?q=hi",
        body: "",
        in_query: false,
    },
    Door {
        head: "GET /stream?prompt=hi&resumable=1",
        body: "",
        in_query: true,
    },
    Door {
        head: "POST /chat?resumable=1",
        body: r#"{"message":"hi","stream":true}"#,
        in_query: false,
    },
    Door {
        head: "POST /v1/completions?resumable=1",
        body: r#"{"prompt":"hi","stream":true,"n":2,"echo":true,"stream_options":{"include_usage":true}}"#,
        in_query: false,
    },
];

fn ids(body: &str) -> Vec<&str> {
    body.lines().filter_map(|line| line.strip_prefix("id: ")).collect()
}

#[tokio::test]
async fn cut_after_any_event_and_read_on_at_another_gateway_the_bytes_are_the_same() {
    let router = Router::start();
    let gateways = [Gateway::before(&[&router]).await, Gateway::before(&[&router]).await];
    let entries = everything();
    let test = async {
        for door in DOORS {
            let whole = door.ask(&gateways[0], None).await.body;
            let events = whole.strip_prefix(RETRY).expect("it begins with the time to come back");
            assert_eq!(
                ids(events).len(),
                events.matches("\n\n").count(),
                "{}: each event has an id: {events}",
                door.head
            );
            let mut cut = 0;
            for (number, event) in events.split_inclusive("\n\n").enumerate() {
                cut += event.len();
                let rest = door.ask(&gateways[number % 2], Some(ids(event)[0])).await;
                if cut == events.len() {
                    assert_eq!(
                        (rest.status, rest.body.as_str()),
                        (204, ""),
                        "after the last event there is nothing"
                    );
                } else {
                    assert_eq!(rest.body, format!("{RETRY}{}", &events[cut..]), "{} after {event}", door.head);
                }
            }
        }
    };
    tokio::select! {
        () = test => {}
        () = play(&router, &entries) => {}
    }
}

#[tokio::test]
async fn a_resumable_completion_is_openais_with_ids() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let mut entries = texts(&["Hel", "lo"]);
    entries.push(finished(FinishReason::Stop, 2));
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let head = format!(
        "POST /v1/chat/completions HTTP/1.1\nx-unbroken-resume: 1\ncontent-type: application/json\ncontent-length: {}",
        body.len()
    );
    let post = async { client::send(gateway.address, &head, body.as_bytes()).await.whole().await };
    let (response, request) = tokio::join!(post, router.say(entries));
    assert_eq!(
        request.disconnect(),
        proto::v1::DisconnectPolicy::Detach,
        "it goes on while its client is away"
    );
    insta::assert_snapshot!(response.body.replace(&request.stream_id, "ID"));
}

#[tokio::test]
async fn without_opting_in_there_are_no_ids_and_an_answer_ends_with_its_client() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let body = r#"{"messages":[{"role":"user","content":"hi"}],"stream":true}"#;
    let post = async { client::post(gateway.address, "/v1/chat/completions", body).await.whole().await };
    let (response, request) = tokio::join!(post, router.say(vec![finished(FinishReason::Stop, 0)]));
    assert!(
        ids(&response.body).is_empty() && !response.body.contains("retry:"),
        "{}",
        response.body
    );
    assert_eq!(request.disconnect(), proto::v1::DisconnectPolicy::Cancel);
}

#[tokio::test]
async fn a_header_wins_over_the_query_and_what_cannot_be_resumed_is_said() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let both = "GET /v1/chat/stream?last_event_id=query.3 HTTP/1.1\nlast-event-id: header.7";
    let play = async {
        let (received, asked) = router.attached().await;
        assert_eq!((asked.stream_id.as_str(), asked.position), ("header", 8));
        received.refuse(Failure::new(Reason::NotFound, "there is no such answer")).await;
    };
    let (response, ()) = tokio::join!(client::send(gateway.address, both, b""), play);
    let response = response.whole().await;
    assert_eq!((response.status, &response.json()["error"]["code"]), (404, &"not_found".into()));

    let play = async {
        let (received, _) = router.attached().await;
        received.refuse(Failure::new(Reason::Expired, "it is not kept any more")).await;
    };
    let (response, ()) = tokio::join!(client::get(gateway.address, "/v1/chat/stream?last_event_id=old.1"), play);
    assert_eq!((response.status, &response.json()["error"]["code"]), (410, &"expired".into()));

    for bad in ["nothing", "a.b", "a.1.0", "a.4294967295", "%20.1"] {
        let response = client::get(gateway.address, &format!("/v1/chat/stream?last_event_id={bad}")).await;
        assert_eq!(
            (response.status, &response.json()["error"]["param"]),
            (400, &"last_event_id".into()),
            "{bad}"
        );
    }
    let whole = r#"{"messages":[{"role":"user","content":"hi"}]}"#;
    let response = client::post(gateway.address, "/v1/chat/completions?last_event_id=a.1", whole)
        .await
        .whole()
        .await;
    assert_eq!(
        (response.status, &response.json()["error"]["param"]),
        (400, &"last_event_id".into())
    );
}

#[tokio::test]
async fn an_end_that_is_the_gateways_own_has_no_id() {
    let router = Router::start();
    let gateway = Gateway::before(&[&router]).await;
    let play = async {
        let (received, request) = router.started().await;
        received.admit(&request.stream_id).await;
        received.entries(0, texts(&["a"])).await;
        received.break_exchange().await;
        loop {
            let (again, _) = router.attached().await;
            again.refuse(Failure::new(Reason::NotFound, "no such answer")).await;
        }
    };
    let response = tokio::select! {
        response = client::get(gateway.address, "/v1/chat/stream?q=hi") => response,
        () = play => unreachable!(),
    };
    let last = response.body.trim_end().rsplit("\n\n").next().unwrap();
    assert!(last.starts_with("event: error\n"), "{last}");
    assert_eq!(
        ids(&response.body).len(),
        2,
        "who comes back goes on after the last entry: {}",
        response.body
    );
}
