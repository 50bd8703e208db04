//! What an operator can set of a router. Used by the binaries; the defaults serve one machine.

use std::time::Duration;

use chassis::setting;
use clap::Args;

/// Settings of the router.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Router")]
#[group(skip)]
pub struct Settings {
    /// Where to serve gRPC (ChatService)
    #[arg(long, env = "UNBROKEN_GRPC", default_value = "127.0.0.1:50051", value_name = "HOST:PORT")]
    pub grpc: String,
    /// The workers, separated by commas: `host:port`, or `dns:///name:port` for all addresses of a name
    #[arg(
        long,
        env = "UNBROKEN_WORKERS",
        default_value = "127.0.0.1:50061",
        value_delimiter = ',',
        value_name = "ADDRESS"
    )]
    pub workers: Vec<String>,
    /// The conversation store, or `none`
    #[arg(long, env = "UNBROKEN_STORE", default_value = "127.0.0.1:50071", value_name = "HOST:PORT")]
    pub store: String,
    /// How often a `dns:///` name is resolved again
    #[arg(long, env = "UNBROKEN_DNS_INTERVAL", default_value = "5s", value_parser = setting::duration, value_name = "TIME")]
    pub dns_interval: Duration,
    /// Requests that may wait for a slot, for each slot that the model's workers have
    #[arg(long, env = "UNBROKEN_QUEUE_FACTOR", default_value_t = 3, value_name = "N")]
    pub queue_factor: u32,
    /// Answers that this router carries at once
    #[arg(long, env = "UNBROKEN_MAX_ANSWERS", default_value_t = 16 * 1024, value_name = "N")]
    pub max_answers: usize,
    /// How long a finished answer can still be read again
    #[arg(long, env = "UNBROKEN_RETENTION", default_value = "15m", value_parser = setting::duration, value_name = "TIME")]
    pub retention: Duration,
    /// How long an answer's first token may take once a worker has the request
    #[arg(long, env = "UNBROKEN_FIRST_TOKEN_LIMIT", default_value = "120s", value_parser = setting::duration, value_name = "TIME")]
    pub first_token_limit: Duration,
    /// How long each further token may take
    #[arg(long, env = "UNBROKEN_TOKEN_LIMIT", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub token_limit: Duration,
    /// How long a whole answer may take, waiting included; a request may ask for less
    #[arg(long, env = "UNBROKEN_ANSWER_LIMIT", default_value = "30m", value_parser = setting::duration, value_name = "TIME")]
    pub answer_limit: Duration,
    /// How long a worker may be silent before it counts as dead; it is asked to speak every 400 ms
    #[arg(long, env = "UNBROKEN_WORKER_SILENCE", default_value = "1500ms", value_parser = setting::duration, value_name = "TIME")]
    pub worker_silence: Duration,
    /// How long an answer goes on without a reader whose client asked for `detach`, where it gave no time
    #[arg(long, env = "UNBROKEN_DETACH_GRACE", default_value = "60s", value_parser = setting::duration, value_name = "TIME")]
    pub detach_grace: Duration,
    /// How long an answer goes on after the gateway that read it has gone, for another one to take its place
    #[arg(long, env = "UNBROKEN_GATEWAY_GRACE", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub gateway_grace: Duration,
    /// How long an answer whose worker died waits for one that can go on with it
    #[arg(long, env = "UNBROKEN_FAILOVER_LIMIT", default_value = "10s", value_parser = setting::duration, value_name = "TIME")]
    pub failover_limit: Duration,
    /// Answers that may move to another worker after a crash, in a minute: a request that kills workers must not kill all of them
    #[arg(long, env = "UNBROKEN_MIGRATIONS", default_value_t = 2000, value_name = "N")]
    pub migrations: u32,
    /// Finished turns that wait for a store that is away
    #[arg(long, env = "UNBROKEN_OUTBOX", default_value_t = 10_000, value_name = "N")]
    pub outbox: usize,
    /// How long the store may take for one call
    #[arg(long, env = "UNBROKEN_STORE_LIMIT", default_value = "2s", value_parser = setting::duration, value_name = "TIME")]
    pub store_limit: Duration,
}

impl Settings {
    /// Where the store is, if there is one.
    pub fn store_address(&self) -> Option<&str> {
        (!self.store.is_empty() && self.store != "none").then_some(self.store.as_str())
    }
}
