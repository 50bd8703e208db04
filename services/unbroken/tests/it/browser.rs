//! A real browser on the page that the gateway serves: Chromium, spoken to by its DevTools protocol.

use std::{
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::SinkExt as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::net::TcpStream;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

use crate::{
    cluster::Cluster,
    identity::Guarded,
    processes::AllInOne,
    stream::{eventually, message, oracle, script},
};

/// A page in a browser of its own.
pub(crate) struct Page {
    browser: Child,
    socket: WebSocketStream<MaybeTlsStream<TcpStream>>,
    calls: u64,
    _profile: TempDir,
}

impl Page {
    pub(crate) async fn open(url: &str) -> Self {
        let profile = TempDir::new().unwrap();
        let browser = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "--",
                "chromium",
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
            ])
            .args(["--remote-debugging-port=0", "--window-size=1100,800"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is missing: `make test` installs it");
        let file = profile.path().join("DevToolsActivePort");
        let mut port = String::new();
        eventually("the browser says its port", async || {
            let text = std::fs::read_to_string(&file).unwrap_or_default();
            text.lines().next().unwrap_or_default().clone_into(&mut port);
            !port.is_empty()
        })
        .await;
        let mut address = String::new();
        eventually("the browser has a page", async || {
            let Ok(targets) = reqwest::get(format!("http://127.0.0.1:{port}/json/list")).await else {
                return false;
            };
            let targets: Value = targets.json().await.unwrap();
            let page = targets.as_array().unwrap().iter().find(|target| target["type"] == "page");
            page.and_then(|page| page["webSocketDebuggerUrl"].as_str())
                .unwrap_or_default()
                .clone_into(&mut address);
            !address.is_empty()
        })
        .await;
        let (socket, _) = connect_async(address).await.unwrap();
        let mut page = Self {
            browser,
            socket,
            calls: 0,
            _profile: profile,
        };
        page.call("Page.navigate", json!({"url": url})).await;
        page.until("document.readyState === 'complete' && location.href !== 'about:blank'")
            .await;
        page
    }

    async fn call(&mut self, method: &str, params: Value) -> Value {
        self.calls += 1;
        self.socket
            .send(Message::text(
                json!({"id": self.calls, "method": method, "params": params}).to_string(),
            ))
            .await
            .unwrap();
        loop {
            let answer = message(&mut self.socket).await;
            if answer["id"] == self.calls {
                assert!(answer.get("error").is_none(), "{method}: {answer}");
                return answer["result"].clone();
            }
        }
    }

    pub(crate) async fn evaluate(&mut self, script: &str) -> Value {
        let result = self
            .call("Runtime.evaluate", json!({"expression": script, "returnByValue": true}))
            .await;
        assert!(result.get("exceptionDetails").is_none(), "{script}: {result}");
        result["result"]["value"].clone()
    }

    pub(crate) async fn until(&mut self, script: &str) {
        for _ in 0..1500 {
            if self.evaluate(script).await == json!(true) {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("never: {script}; the page says: {}", self.evaluate("document.body.innerText").await);
    }

    /// A picture of the page, for a person to look at, under target/.
    async fn screenshot(&mut self, name: &str) {
        let picture = self.call("Page.captureScreenshot", json!({"format": "png"})).await;
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
        std::fs::write(folder.join(format!("{name}.png.base64")), picture["data"].as_str().unwrap()).unwrap();
    }
}

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.browser.kill();
        let _ = self.browser.wait();
    }
}

/// Types a message and sends it, as a person does.
const SEND: &str = "(text) => { const box = document.querySelector('textarea, input[type=text]'); box.value = text; \
    box.dispatchEvent(new Event('input', {bubbles: true})); box.form.requestSubmit(); }";

#[tokio::test(flavor = "multi_thread")]
async fn a_person_chats_in_a_browser_stops_an_answer_and_sees_its_speed() {
    let mesh = AllInOne::scripted().await;
    let mut page = Page::open(&format!("http://{}/", mesh.http)).await;
    let prompt = script("b", 25, Duration::from_millis(2));
    page.evaluate(&format!("({SEND})({})", json!(prompt))).await;
    page.until(&format!("document.body.innerText.includes({})", json!(oracle("b", 0..25).trim())))
        .await;
    page.until("/tokens\\/s/i.test(document.body.innerText)").await;
    page.screenshot("chat").await;

    page.evaluate(&format!("({SEND})({})", json!(script("stop", 100_000, Duration::from_millis(10)))))
        .await;
    page.until("document.body.innerText.includes('stop.3 ')").await;
    page.evaluate("[...document.querySelectorAll('button')].find(button => /stop/i.test(button.textContent + button.ariaLabel)).click()")
        .await;
    eventually("the engine has stopped", async || {
        let metrics = reqwest::get(format!("http://{}/metrics", mesh.http))
            .await
            .unwrap()
            .text()
            .await
            .unwrap();
        metrics
            .lines()
            .any(|line| line.starts_with("llm_concurrent_streams") && line.ends_with(" 0"))
    })
    .await;
    page.screenshot("stopped").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_on_the_page_is_whole_though_its_gateway_was_killed() {
    let mut cluster = Cluster::start().await;
    let mut page = Page::open(&cluster.url(0, "/")).await;
    let prompt = script("kill", 300, Duration::from_millis(10));
    page.evaluate(&format!("({SEND})({})", json!(prompt))).await;
    page.until("document.body.innerText.includes('kill.20 ')").await;
    cluster.0.gateways[0].kill().unwrap();
    cluster.restart_gateway(0).await;
    let text = "document.querySelector('li:last-child .text').textContent";
    page.until(&format!("{text} === {}", json!(oracle("kill", 0..300)))).await;
    assert_eq!(cluster.answers().await.len(), 1, "it was asked once");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_enters_their_key_where_one_is_needed() {
    let mesh = Guarded::start(&[]).await;
    let key = mesh.key(&["--user", "ann"]);
    let mut page = Page::open(&mesh.url("/")).await;
    page.until("!document.querySelector('#who').hidden").await;
    page.screenshot("needs-a-key").await;
    let enter = "(key) => { const box = document.querySelector('#key'); box.value = key; box.form.requestSubmit(); }";
    page.evaluate(&format!("({enter})('ub_live_wrong')")).await;
    page.until("document.querySelector('#key').validationMessage.includes('not known')")
        .await;
    page.evaluate(&format!(
        "document.querySelector('#key').setCustomValidity(''); ({enter})({})",
        json!(key)
    ))
    .await;
    page.until("document.querySelector('#who').hidden && document.querySelector('#model').options.length > 0")
        .await;
    let prompt = script("key", 25, Duration::from_millis(2));
    page.evaluate(&format!("({SEND})({})", json!(prompt))).await;
    page.until(&format!("document.body.innerText.includes({})", json!(oracle("key", 0..25).trim())))
        .await;
    page.screenshot("with-a-key").await;
    let addresses = page.evaluate("performance.getEntries().map(entry => entry.name).join(' ')").await;
    let addresses = addresses.as_str().unwrap();
    assert!(
        addresses.contains("stream_token=") && !addresses.contains(&key[..20]),
        "{addresses}"
    );

    page.evaluate(&format!("({SEND})({})", json!(script("stop", 100_000, Duration::from_millis(10)))))
        .await;
    page.until("document.body.innerText.includes('stop.3 ')").await;
    page.evaluate("document.querySelector('#go').click()").await;
    page.until("document.body.innerText.includes('stopped')").await;
    page.evaluate("document.querySelector('#forget').click()").await;
    page.until("!document.querySelector('#who').hidden").await;
}
