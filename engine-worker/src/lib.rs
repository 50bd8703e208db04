//! The worker: runs the model, and keeps the journal of each answer that it is making.
//!
//! Read it in the order of a request: [`service`] takes it from a router, `admission` finds it seats, an [`engine::Engine`]
//! makes its entries and writes them through an [`answer::Answer`], and the service sends what readers want of the journal.
//!
//! The engines: [`scripted`] says what it is told, [`openai`] asks a server that speaks OpenAI's API.

pub mod admission;
pub mod answer;
pub mod engine;
pub mod openai;
mod request;
mod run;
pub mod scripted;
pub mod service;
mod settings;

pub use run::{Error, run, serve};
pub use settings::{Kind, Settings};
