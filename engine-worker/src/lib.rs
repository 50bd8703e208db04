//! The worker: runs the model, and keeps the journal of each answer that it is making.
//!
//! Read it in the order of a request: [`service`] takes it from a router, `admission` finds it seats, an [`engine::Engine`]
//! makes its entries and writes them through an [`answer::Answer`], and the service sends what readers want of the journal.
//!
//! The engines: `llama` runs a model in this process ([`model`] finds its file), [`openai`] asks another server in its own dialect,
//! and [`scripted`] says what it is told.

pub mod admission;
pub mod answer;
pub mod engine;
#[cfg(feature = "llama")]
pub mod llama;
pub mod model;
pub mod openai;
mod request;
mod run;
pub mod scripted;
pub mod service;
mod settings;

pub use run::{Error, run, serve};
pub use settings::{Kind, Settings};
