//! How a gateway is set up: flags and `UNBROKEN_…` variables.

use std::time::Duration;

use chassis::setting;
use clap::Args;

/// The settings of a gateway.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Gateway")]
#[group(skip)]
pub struct Settings {
    /// Where to serve HTTP
    #[arg(long, env = "UNBROKEN_HTTP", default_value = "127.0.0.1:8080", value_name = "HOST:PORT")]
    pub http: String,
    /// The routers, separated by commas: host:port, or dns:///name:port for all addresses of a name
    #[arg(
        long,
        env = "UNBROKEN_ROUTERS",
        default_value = "127.0.0.1:50051",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub routers: Vec<String>,
    /// The conversation store, for /conversations
    #[arg(long, env = "UNBROKEN_STORE", default_value = "127.0.0.1:50071", value_name = "HOST:PORT")]
    pub gateway_store: String,
    /// Exchanges with each router; more than one where one core cannot carry all answers
    #[arg(long, env = "UNBROKEN_GATEWAY_EXCHANGES", default_value_t = 1, value_parser = exchanges, value_name = "N")]
    pub gateway_exchanges: usize,
    /// How often a dns:/// name is resolved again
    #[arg(long, env = "UNBROKEN_GATEWAY_DNS_INTERVAL", default_value = "5s", value_parser = setting::duration, value_name = "TIME")]
    pub gateway_dns_interval: Duration,
    /// How long a running answer is looked for at the other routers when its own is lost
    #[arg(long, env = "UNBROKEN_GATEWAY_PATIENCE", default_value = "15s", value_parser = setting::duration, value_name = "TIME")]
    pub gateway_patience: Duration,
    /// The largest body of a request, in bytes
    #[arg(long, env = "UNBROKEN_BODY_LIMIT", default_value_t = 1024 * 1024, value_name = "BYTES")]
    pub body_limit: usize,
    /// How long a request's head may take, and how long a connection may stand idle
    #[arg(long, env = "UNBROKEN_HEAD_TIMEOUT", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub head_timeout: Duration,
    /// How long a request's body may take
    #[arg(long, env = "UNBROKEN_BODY_TIMEOUT", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub body_timeout: Duration,
    /// How long a client may stop reading
    #[arg(long, env = "UNBROKEN_WRITE_STALL", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub write_stall: Duration,
    /// The most connections at once
    #[arg(long, env = "UNBROKEN_CONNECTIONS", default_value_t = 16 * 1024, value_name = "N")]
    pub connections: usize,
    /// After how much silence a stream says that it is still there
    #[arg(long, env = "UNBROKEN_SSE_KEEPALIVE", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub sse_keepalive: Duration,
    /// How soon a client of an event stream with ids comes back when its connection breaks
    #[arg(long, env = "UNBROKEN_SSE_RETRY", default_value = "500ms", value_parser = setting::duration, value_name = "TIME")]
    pub sse_retry: Duration,
    /// After SIGTERM, how long new connections are still taken, while /ready says 503 and load balancers notice (1s, if not said
    /// otherwise; not at all in `unbroken`)
    #[arg(long, env = "UNBROKEN_GATEWAY_SETTLE", value_parser = setting::duration, value_name = "TIME")]
    pub gateway_settle: Option<Duration>,
    /// After SIGTERM, over how long clients that can resume elsewhere are sent away; 0s finishes their answers here, as for all others
    /// (5s, if not said otherwise; 0s in `unbroken`, where there is no other gateway)
    #[arg(long, env = "UNBROKEN_GATEWAY_HANDOVER", value_parser = setting::duration, value_name = "TIME")]
    pub gateway_handover: Option<Duration>,
    /// How often a WebSocket is asked whether it still lives; silent for twice as long, it is closed
    #[arg(long, env = "UNBROKEN_WS_PING", default_value = "15s", value_parser = setting::duration, value_name = "TIME")]
    pub ws_ping: Duration,
    /// Web pages that may call from elsewhere, separated by commas, as https://chat.example.com; * is any. Empty: none
    #[arg(
        long,
        env = "UNBROKEN_CORS_ORIGINS",
        default_value = "",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub cors_origins: Vec<String>,
    /// Not ready once a router's queue is this full, in percent
    #[arg(long, env = "UNBROKEN_READY_QUEUE_PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "PERCENT")]
    pub ready_queue_percent: u32,
}

/// Where there are other gateways: two periods of a common readiness probe would be more, but who drains by one removes the
/// address first.
const SETTLE: Duration = Duration::from_secs(1);
/// Long enough for thousands of clients, short beside any grace time.
const HANDOVER: Duration = Duration::from_secs(5);

impl Settings {
    /// Those of the only gateway: where nothing else was said, it is left at once, and every answer is finished in it.
    #[must_use]
    pub fn or_alone(mut self) -> Self {
        self.gateway_settle.get_or_insert(Duration::ZERO);
        self.gateway_handover.get_or_insert(Duration::ZERO);
        self
    }

    pub(crate) fn settle(&self) -> Duration {
        self.gateway_settle.unwrap_or(SETTLE)
    }

    pub(crate) fn handover(&self) -> Duration {
        self.gateway_handover.unwrap_or(HANDOVER)
    }
}

fn exchanges(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(count @ 1..=64) => Ok(count),
        _ => Err("expected a number from 1 to 64".to_owned()),
    }
}
