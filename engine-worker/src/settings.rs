//! The settings of a worker: flags, `UNBROKEN_…` variables and their defaults.
//!
//! Each engine brings its own, which stand beside these; only those of the chosen engine are looked at.

use std::time::Duration;

use chassis::setting;
use clap::{Args, ValueEnum};

#[cfg(feature = "llama")]
use crate::llama;
use crate::{openai, scripted};

/// What runs the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// llama.cpp, in this process
    #[cfg(feature = "llama")]
    Llama,
    /// Another server: vLLM, SGLang, llama-server, Ollama, …, or one of the big APIs (UNBROKEN_UPSTREAM_DIALECT)
    Openai,
    /// A script, for tests and load
    Scripted,
}

/// The settings of a worker.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Worker")]
#[group(skip)]
pub struct Settings {
    /// Where the worker listens for routers
    #[arg(long, env = "UNBROKEN_WORKER_LISTEN", default_value = "127.0.0.1:50061", value_name = "HOST:PORT")]
    pub worker_listen: String,
    /// What runs the model
    #[arg(long = "engine", id = "worker_engine", env = "UNBROKEN_ENGINE", value_enum, default_value_t = DEFAULT_KIND, value_name = "ENGINE")]
    pub engine: Kind,
    /// Answers that may wait for a seat; past that the worker refuses. Default: half as many as there are seats, at least 4
    #[arg(long, env = "UNBROKEN_WORKER_QUEUE", value_name = "N")]
    pub worker_queue: Option<u32>,
    /// How long an answer goes on that no router reads: the time to attach again
    #[arg(long, env = "UNBROKEN_UNATTENDED_GRACE", default_value = "30s", value_parser = setting::duration, value_name = "TIME")]
    pub unattended_grace: Duration,
    /// How long an ended answer can be read again
    #[arg(long, env = "UNBROKEN_WORKER_RETENTION", default_value = "15m", value_parser = setting::duration, value_name = "TIME")]
    pub worker_retention: Duration,
    /// Settings of the llama engine
    #[cfg(feature = "llama")]
    #[command(flatten)]
    pub llama: llama::Settings,
    /// Settings of the engine that speaks to an OpenAI-compatible server
    #[command(flatten)]
    pub openai: openai::Settings,
    /// Settings of the scripted engine
    #[command(flatten)]
    pub scripted: scripted::Settings,
}

#[cfg(feature = "llama")]
const DEFAULT_KIND: Kind = Kind::Llama;
#[cfg(not(feature = "llama"))]
const DEFAULT_KIND: Kind = Kind::Openai;

/// The queue where no setting says: long enough for a burst, short enough that who waits is still there.
pub(crate) fn default_queue(seats: u32) -> u32 {
    (seats / 2).max(4)
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        process: chassis::process::Process,
        #[command(flatten)]
        worker: Settings,
    }

    #[test]
    fn the_settings_stand_beside_those_of_the_process() {
        Command::command().debug_assert();
        let command = Command::parse_from(["worker", "--engine", "scripted", "--script-seats", "3"]);
        assert_eq!((command.worker.engine, command.worker.scripted.script_seats), (Kind::Scripted, 3));
        assert_eq!(command.process.log, "info");
    }

    #[test]
    fn the_defaults_of_an_engines_settings_are_those_of_its_flags() {
        let worker = Command::parse_from(["worker"]).worker;
        assert_eq!(format!("{:?}", worker.scripted), format!("{:?}", scripted::Settings::default()));
        assert_eq!(format!("{:?}", worker.openai), format!("{:?}", openai::Settings::default()));
    }
}
