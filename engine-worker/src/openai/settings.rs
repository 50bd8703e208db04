//! The settings of the engine that asks another server.

use std::{fmt, path::PathBuf, time::Duration};

use chassis::setting;
use clap::{ArgAction, Args};

use super::{Continues, Dialect};

/// The settings of the engine that speaks to an OpenAI-compatible server.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine: openai")]
#[group(skip)]
pub struct Settings {
    /// The server's base address, such as http://127.0.0.1:8000/v1
    #[arg(long, env = "UNBROKEN_UPSTREAM", value_name = "URL")]
    pub upstream: Option<String>,
    /// In which words the server is asked, and answers
    #[arg(long, env = "UNBROKEN_UPSTREAM_DIALECT", value_enum, default_value_t = Dialect::Chat, value_name = "DIALECT")]
    pub upstream_dialect: Dialect,
    /// What is asked for where a request names no max_tokens and the dialect (messages) cannot do without
    #[arg(long, env = "UNBROKEN_UPSTREAM_MAX_TOKENS", default_value_t = 4096, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub upstream_max_tokens: u32,
    /// The key that the server asks for. Better by the variable or a file: a flag is seen by all users of the machine
    #[arg(long, env = "UNBROKEN_UPSTREAM_KEY", hide_env_values = true, value_name = "KEY")]
    pub upstream_key: Option<Secret>,
    /// A file that holds the key and nothing else
    #[arg(long, env = "UNBROKEN_UPSTREAM_KEY_FILE", conflicts_with = "upstream_key", value_name = "FILE")]
    pub upstream_key_file: Option<PathBuf>,
    /// Choices that the server is asked to make at once
    #[arg(long, env = "UNBROKEN_UPSTREAM_SEATS", default_value_t = 64, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub upstream_seats: u32,
    /// How long a connection to the server may take
    #[arg(long, env = "UNBROKEN_UPSTREAM_CONNECT", default_value = "3s", value_parser = setting::duration, value_name = "TIME")]
    pub upstream_connect: Duration,
    /// How long the server may take to the first token
    #[arg(long, env = "UNBROKEN_UPSTREAM_FIRST_TOKEN", default_value = "120s", value_parser = setting::duration, value_name = "TIME")]
    pub upstream_first_token: Duration,
    /// How long the server may be silent between two tokens
    #[arg(long, env = "UNBROKEN_UPSTREAM_IDLE", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub upstream_idle: Duration,
    /// How often the server is asked for its models
    #[arg(long, env = "UNBROKEN_UPSTREAM_REFRESH", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub upstream_refresh: Duration,
    /// Whether an answer whose worker is lost can go on at the server: the text so far is its last message then, to be continued
    #[arg(long, env = "UNBROKEN_UPSTREAM_CONTINUES", value_enum, default_value_t = Continues::Auto, value_name = "HOW")]
    pub upstream_continues: Continues,
    /// Whether the server's models see images: where not, requests that show any are refused. The same at all workers of a model
    #[arg(long, env = "UNBROKEN_UPSTREAM_IMAGES", default_value_t = false, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true", value_name = "BOOL")]
    pub upstream_images: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            upstream: None,
            upstream_dialect: Dialect::Chat,
            upstream_max_tokens: 4096,
            upstream_key: None,
            upstream_key_file: None,
            upstream_seats: 64,
            upstream_connect: Duration::from_secs(3),
            upstream_first_token: Duration::from_mins(2),
            upstream_idle: Duration::from_secs(30),
            upstream_refresh: Duration::from_secs(30),
            upstream_continues: Continues::Auto,
            upstream_images: false,
        }
    }
}

/// A text that is never shown.
#[derive(Clone)]
pub struct Secret(String);

impl Secret {
    /// The text itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}
