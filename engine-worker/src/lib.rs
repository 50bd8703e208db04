//! The worker: runs the model, and keeps the journal of each answer that it is making.

pub mod answer;
pub mod engine;
#[cfg(feature = "llama")]
pub mod llama;
pub mod model;
