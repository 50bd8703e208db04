//! How a gateway is set up: flags and `UNBROKEN_…` variables.

use std::{fmt, str::FromStr, time::Duration};

use chassis::setting;
use clap::Args;

use crate::{
    front::Range,
    identity,
    limits::{Mode, Tiers},
    origin::Host,
};

/// The settings of a gateway.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Gateway")]
#[group(skip)]
pub struct Settings {
    /// Whom to let in.
    #[command(flatten)]
    pub identity: identity::Settings,
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
    /// The largest body of a request, and the largest message on a WebSocket, in bytes
    #[arg(long, env = "UNBROKEN_BODY_LIMIT", default_value_t = 1024 * 1024, value_name = "BYTES")]
    pub body_limit: usize,
    /// How long a request's head may take, and how long a connection may stand idle
    #[arg(long, env = "UNBROKEN_HEAD_TIMEOUT", default_value = "5s", value_parser = setting::duration, value_name = "TIME")]
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
    /// Web pages that may call from elsewhere, also by WebSocket, separated by commas, as https://chat.example.com; * is any. Empty: none
    #[arg(
        long,
        env = "UNBROKEN_CORS_ORIGINS",
        default_value = "",
        value_delimiter = ',',
        value_name = "ORIGIN"
    )]
    pub cors_origins: Vec<String>,
    /// Where nobody is asked who they are (UNBROKEN_AUTH=off): the names, beside addresses and localhost, under which this gateway may be
    /// asked, separated by commas, as gateway or chat.example.com; * is any. Any web page could make another name point here
    #[arg(long, env = "UNBROKEN_HOSTS", value_delimiter = ',', value_name = "NAME")]
    pub hosts: Vec<Host>,
    /// Not ready once a router's queue is this full, in percent
    #[arg(long, env = "UNBROKEN_READY_QUEUE_PERCENT", default_value_t = 90, value_parser = clap::value_parser!(u32).range(1..=100), value_name = "PERCENT")]
    pub ready_queue_percent: u32,
    /// Fronts that are believed when they say in X-User-ID and X-User-Tier whom they speak for: addresses or ranges (10.0.0.0/8), separated
    /// by commas. Empty: nobody is
    #[arg(long, env = "UNBROKEN_FRONTS", value_delimiter = ',', value_name = "RANGE")]
    pub fronts: Vec<Range>,
    /// Whom limits hold for: `auto`: callers that have said who they are; `on`: also all others, who are one caller of the tier `free`
    /// together; `off`: nobody
    #[arg(long, env = "UNBROKEN_LIMITS", default_value = "auto", value_name = "MODE")]
    pub limits: Mode,
    /// The tiers, as name=requests per minute/tokens per day (UTC)/answers at once; 0 is no limit. Callers of no known tier are `free`
    #[arg(long, env = "UNBROKEN_TIERS", default_value = crate::limits::DEFAULT, value_name = "TIERS")]
    pub tiers: Tiers,
    /// The Redis through which several gateways share limits, as redis://user:password@host:port/database. Empty: each gateway has its own
    #[arg(long, env = "UNBROKEN_REDIS", value_name = "URL", hide_env_values = true)]
    pub redis: Option<Secret>,
    /// How long a request may wait for Redis before this gateway grants its own share of each limit instead
    #[arg(long, env = "UNBROKEN_REDIS_TIMEOUT", default_value = "100ms", value_parser = setting::duration, value_name = "TIME")]
    pub redis_timeout: Duration,
    /// How many gateways share the limits: while Redis is away, each grants that part of them
    #[arg(long, env = "UNBROKEN_GATEWAYS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..), value_name = "N")]
    pub gateways: u32,
    /// Tokens that an answer may have where limits hold and the request says nothing; they are reserved until it has ended
    #[arg(long, env = "UNBROKEN_LIMITS_OUTPUT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(1..), value_name = "TOKENS")]
    pub limits_output: u32,
    /// How long an answer that was paid for may be asked for again with its Idempotency-Key: as long as routers keep it
    #[arg(long, env = "UNBROKEN_RETENTION", default_value = "15m", value_parser = setting::duration, value_name = "TIME")]
    pub limits_retention: Duration,
}

/// A text that may hold a password, so it is never printed: not by `Debug`, nor by clap, which takes any text here.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// It, unless it is empty.
    pub(crate) fn get(&self) -> Option<&str> {
        Some(self.0.as_str()).filter(|text| !text.is_empty())
    }
}

impl FromStr for Secret {
    type Err = std::convert::Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(Self(text.to_owned()))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(…)")
    }
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
