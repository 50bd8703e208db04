//! Deaths and cuts in the middle of an answer, read by clients that are not ours: OpenAI's SDK, and the EventSource of a browser.

use std::{
    io::{BufRead as _, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use serde_json::json;
use trial::{
    fleet::{Fleet, Layout},
    link::Direction,
    proxy::Proxy,
};

use crate::{
    browser::Page,
    doors::tool,
    processes::{AllInOne, folder},
    stream::{oracle, script},
};

#[tokio::test(flavor = "multi_thread")]
async fn the_openai_sdk_notices_nothing_when_the_worker_is_killed() {
    let layout = Layout {
        bin: Some(folder()),
        ..Layout::of(1, 1, 2)
    };
    let mut fleet = Fleet::start(&layout).await.unwrap();
    let mut sdk = Command::new(tool("python3"))
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/openai_sdk_kill.py"))
        .arg(format!("http://{}/v1", fleet.http[0]))
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = BufReader::new(sdk.stdout.take().unwrap()).lines();
    assert_eq!(said.next().unwrap().unwrap(), "now");
    let writer = fleet.writer().await.unwrap();
    fleet.workers[writer].kill().unwrap();
    let rest: Vec<String> = said.map(Result::unwrap).collect();
    assert_eq!(rest, ["60 tokens", "whole"]);
    assert!(sdk.wait().unwrap().success());
}

/// Reads one answer with the browser's own EventSource, which comes back by itself with `Last-Event-ID`.
const LISTEN: &str = "(prompt) => { window.text = ''; window.opened = 0; window.whole = false; \
    const source = new EventSource('/v1/chat/stream?disconnect=detach&q=' + encodeURIComponent(prompt)); \
    source.onopen = () => window.opened += 1; \
    source.addEventListener('delta', event => { window.text += JSON.parse(event.data).text ?? ''; }); \
    source.addEventListener('lifecycle', event => { if (/finished|completed/.test(event.data)) { window.whole = true; source.close(); } }); }";

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_has_each_token_once_though_its_connection_is_cut_again_and_again() {
    let mesh = AllInOne::scripted().await;
    let proxy = Proxy::start(mesh.http.parse().unwrap()).await.unwrap();
    let mut page = Page::open(&format!("http://{}/", proxy.address)).await;
    let prompt = script("e", 600, Duration::from_millis(20));
    page.evaluate(&format!("({LISTEN})({})", json!(prompt))).await;
    // In the middle of an event, each time in another place, and once with nothing of it.
    for (cut, at) in [301, 777, 1000, 0].into_iter().enumerate() {
        let more = format!("window.whole || window.opened > {cut} && window.text.length > (window.before ?? 0)");
        page.until(&more).await;
        page.evaluate("window.before = window.text.length").await;
        proxy.link.cut_after(Direction::Down, at);
    }
    page.until("window.whole").await;
    assert_eq!(page.evaluate("window.text").await, oracle("e", 0..600));
    assert!(
        page.evaluate("window.opened").await.as_u64() >= Some(4),
        "it was cut, and came back"
    );
}
