//! Limits that two gateways share through a Redis, and what holds while that is away.

use std::{
    io::{BufRead as _, BufReader, Lines, Write as _},
    os::unix::net::UnixStream,
    path::PathBuf,
    time::Duration,
};

use proto::v1::chat_command::Command;

use super::{MAY_TAKE, TOKENS, answer, ask, begun, remaining, whole};
use crate::{client, gateway::Gateway, redis::Redis, router::Router};

#[tokio::test]
async fn two_gateways_over_one_redis_never_grant_more_than_the_limit() {
    let redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = [
        "--limits",
        "on",
        "--tiers",
        "free=10/0/0",
        "--redis",
        &address,
        "--redis-timeout",
        "20s",
    ];
    let gateways = [
        Gateway::with(&[&router], &settings).await,
        Gateway::with(&[&router], &settings).await,
    ];
    let asking = async {
        let asks = (0..30).map(|number| ask(&gateways[number % 2]));
        let statuses: Vec<u16> = futures_util::future::join_all(asks)
            .await
            .iter()
            .map(|response| response.status)
            .collect();
        assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 10, "{statuses:?}");
        assert_eq!(statuses.iter().filter(|status| **status == 429).count(), 20, "{statuses:?}");
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

/// What clients ask a Redis, one line for each command; what its scripts do there is not among them.
struct Monitor {
    socket: PathBuf,
    lines: Lines<BufReader<UnixStream>>,
}

impl Monitor {
    fn start(redis: &Redis) -> Self {
        let socket = PathBuf::from(redis.address().strip_prefix("redis+unix://").unwrap());
        let mut stream = UnixStream::connect(&socket).unwrap();
        stream.write_all(b"MONITOR\r\n").unwrap();
        let mut lines = BufReader::new(stream).lines();
        assert_eq!(lines.next().unwrap().unwrap(), "+OK");
        Self { socket, lines }
    }

    /// Since the last time.
    fn asked(&mut self) -> Vec<String> {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.write_all(b"ECHO now\r\n").unwrap();
        let lines = self.lines.by_ref().map(Result::unwrap);
        let lines = lines.take_while(|line| !line.contains("\"ECHO\""));
        lines.filter(|line| !line.contains(" lua] ")).collect()
    }
}

#[tokio::test]
async fn a_request_asks_redis_once_before_its_answer_begins() {
    let redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = ["--limits", "on", "--redis", &address, "--redis-timeout", "20s"];
    let gateway = Gateway::with(&[&router], &settings).await;
    let mut monitor = Monitor::start(&redis);
    let first = async {
        assert_eq!(ask(&gateway).await.status, 200);
        // It is settled after its end: in vain at first, then with the script that Redis lacks.
        let mut settled = 0;
        while settled < 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
            settled += monitor.asked().iter().filter(|line| line.ends_with(r#""-1""#)).count();
        }
    };
    tokio::select! { () = first => {}, () = answer(&router) => {} }
    let mut running = Vec::new();
    for _ in 0..3 {
        let path = "/stream?prompt=hi&max_tokens=100";
        running.push(tokio::join!(client::open(gateway.address, path), begun(&router)));
        let asked = monitor.asked();
        assert_eq!(asked.len(), 1, "{asked:#?}");
    }
}

#[tokio::test]
async fn what_one_gateway_reserved_another_settles() {
    let redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = ["--limits", "on", "--tiers", TOKENS, "--redis", &address, "--redis-timeout", "20s"];
    let one = Gateway::with(&[&router], &settings).await;
    let two = Gateway::with(&[&router], &settings).await;
    let path = "/stream?prompt=hi&max_tokens=100&resumable=1";
    let (response, (_received, request)) = tokio::join!(client::open(one.address, path), begun(&router));
    // The first gateway sends its client away, which goes on at the second.
    one.drain.begin();
    let mut response = response;
    response.rest().await;
    let resume = format!("/stream?last_event_id={}.0", request.stream_id);
    let playing = async {
        loop {
            let received = router.next().await;
            match &received.command {
                Command::Attach(asked) => {
                    received.admit(&asked.stream_id).await;
                    received.entries(1, whole()[1..].to_vec()).await;
                }
                Command::Start(request) => {
                    received.admit(&request.stream_id).await;
                    received.entries(0, whole()).await;
                }
                _ => {}
            }
        }
    };
    let asking = async {
        assert_eq!(client::get(two.address, &resume).await.status, 200);
        // Settling is not waited for.
        loop {
            let left = remaining(&client::get(two.address, "/stream?prompt=hi&max_tokens=100&idempotency_key=k").await);
            if left == 500 - 7 - 125 || left == 500 - 7 - 7 {
                return;
            }
            assert_eq!(left, 500 - 125 - 125);
        }
    };
    tokio::select! { () = asking => {}, () = playing => {} }
}

#[tokio::test]
async fn without_redis_each_gateway_grants_its_share_and_says_so() {
    let mut redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = [
        "--limits",
        "on",
        "--tiers",
        "free=4/0/0",
        "--redis",
        &address,
        "--gateways",
        "2",
        "--redis-timeout",
        "20s",
    ];
    let gateway = Gateway::with(&[&router], &settings).await;
    let asking = async {
        assert_eq!(ask(&gateway).await.header("x-ratelimit-limit-requests"), Some("4"));
        assert_eq!(shared(&gateway).await, 1);
        redis.die();
        let response = ask(&gateway).await;
        assert_eq!((response.status, response.header("x-ratelimit-limit-requests")), (200, Some("2")));
        assert_eq!(shared(&gateway).await, 0);
        assert_eq!(ask(&gateway).await.status, 200);
        assert_eq!(ask(&gateway).await.status, 429);
        redis.come_back();
        while shared(&gateway).await == 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(ask(&gateway).await.header("x-ratelimit-limit-requests"), Some("4"));
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn what_was_used_without_redis_is_owed_there() {
    let mut redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = [
        "--limits",
        "on",
        "--tiers",
        "free=0/1000/0",
        "--redis",
        &address,
        "--redis-timeout",
        "20s",
    ];
    let gateway = Gateway::with(&[&router], &settings).await;
    let asking = async {
        redis.die();
        assert_eq!(remaining(&ask(&gateway).await), 500 - MAY_TAKE);
        redis.come_back();
        while shared(&gateway).await == 0 {
            tokio::task::yield_now().await;
        }
        loop {
            let path = "/stream?prompt=hi&max_tokens=100&idempotency_key=k";
            let left = remaining(&client::get(gateway.address, path).await);
            if left == 1000 - 7 - 125 || left == 1000 - 7 - 7 {
                return;
            }
            assert!(left == 1000 - 125 || left == 1000 - 7, "{left}");
        }
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

#[tokio::test]
async fn a_redis_that_does_not_answer_is_waited_for_once() {
    let redis = Redis::start();
    let router = Router::start();
    let address = redis.address();
    let settings = [
        "--limits",
        "on",
        "--tiers",
        "free=100/0/0",
        "--redis",
        &address,
        "--redis-timeout",
        "300ms",
    ];
    let gateway = Gateway::with(&[&router], &settings).await;
    let asking = async {
        ask(&gateway).await;
        redis.freeze();
        let begun = std::time::Instant::now();
        for _ in 0..20 {
            assert_eq!(ask(&gateway).await.status, 200);
        }
        assert!(begun.elapsed() < Duration::from_millis(300) * 20, "{:?}", begun.elapsed());
        assert_eq!(shared(&gateway).await, 0);
        redis.thaw();
        while shared(&gateway).await == 0 {
            tokio::task::yield_now().await;
        }
    };
    tokio::select! { () = asking => {}, () = answer(&router) => {} }
}

/// Whether the gateway says that its limits are shared.
async fn shared(gateway: &Gateway) -> u32 {
    let metrics = client::get(gateway.address, "/metrics").await.body;
    let line = metrics.lines().find_map(|line| line.strip_prefix("unbroken_limits_shared "));
    line.unwrap().parse().unwrap()
}
