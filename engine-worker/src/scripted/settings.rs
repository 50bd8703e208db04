//! The settings of the scripted engine.

use std::time::Duration;

use chassis::setting;
use clap::Args;

/// The settings of the scripted engine.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine: scripted")]
#[group(skip)]
pub struct Settings {
    /// The name under which the script answers
    #[arg(long, env = "UNBROKEN_SCRIPT_MODEL", default_value = "scripted", value_name = "NAME")]
    pub script_model: String,
    /// Answers that it makes at once
    #[arg(long, env = "UNBROKEN_SCRIPT_SEATS", default_value_t = 256, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub script_seats: u32,
    /// Time between two tokens of an answer whose directive does not say
    #[arg(long, env = "UNBROKEN_SCRIPT_GAP", default_value = "20ms", value_parser = setting::duration, value_name = "TIME")]
    pub script_gap: Duration,
    /// Tokens of an answer whose directive does not say
    #[arg(long, env = "UNBROKEN_SCRIPT_TOKENS", default_value_t = 64, value_name = "N")]
    pub script_tokens: u32,
    /// Time before the first token for each word of the prompt
    #[arg(long, env = "UNBROKEN_SCRIPT_PREFILL", default_value = "0s", value_parser = setting::duration, value_name = "TIME")]
    pub script_prefill: Duration,
    /// Tokens that prompt and answer may take together
    #[arg(long, env = "UNBROKEN_SCRIPT_CONTEXT", default_value_t = 131_072, value_name = "N")]
    pub script_context: u32,
    /// Let directives ask for faults: anybody who can chat can then end this process
    #[arg(long, env = "UNBROKEN_SCRIPT_FAULTS")]
    pub script_faults: bool,
    /// Fault: the process dies, as if killed, before it makes the token at this place
    #[arg(long, env = "UNBROKEN_SCRIPT_DIE_AT", value_name = "TOKEN")]
    pub script_die_at: Option<u32>,
    /// Fault: an answer makes no token any more from this place on
    #[arg(long, env = "UNBROKEN_SCRIPT_STALL_AT", value_name = "TOKEN")]
    pub script_stall_at: Option<u32>,
    /// Fault: an answer breaks off before the token at this place
    #[arg(long, env = "UNBROKEN_SCRIPT_FAIL_AT", value_name = "TOKEN")]
    pub script_fail_at: Option<u32>,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            script_model: "scripted".to_owned(),
            script_seats: 256,
            script_gap: Duration::from_millis(20),
            script_tokens: 64,
            script_prefill: Duration::ZERO,
            script_context: 131_072,
            script_faults: false,
            script_die_at: None,
            script_stall_at: None,
            script_fail_at: None,
        }
    }
}
