//! Why the engine could not start.

use std::path::PathBuf;

use crate::model;

/// Why the engine could not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no model file.
    #[error(transparent)]
    Model(#[from] model::Error),
    /// llama.cpp cannot load it.
    #[error("llama.cpp cannot load the model {path}: {said}")]
    Load {
        /// The model file.
        path: PathBuf,
        /// What llama.cpp said.
        said: String,
    },
    /// The model's chat template is none.
    #[error("the model's chat template cannot be read: {0}")]
    Template(minijinja::Error),
    /// There is no memory for the context, most likely.
    #[error(
        "llama.cpp cannot make a context; fewer or smaller ones take less memory (--llama-seats, --llama-context), and a few models need --exact false: {said}"
    )]
    Context {
        /// What llama.cpp said.
        said: String,
    },
    /// llama.cpp could not be set up.
    #[error("llama.cpp cannot start: {0}")]
    Backend(llama_cpp_2::LlamaCppError),
    /// The processor lacks what the engine was compiled for.
    #[error(
        "this processor has no {0}, which this build of the llama engine needs; use another engine, or a build with the feature `dynamic-backends`"
    )]
    Processor(&'static str),
    /// No thread.
    #[error("the engine's thread cannot be started: {0}")]
    Thread(std::io::Error),
}
