//! The mesh as its users meet it: real processes, real clients, real deaths.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines, missing_docs)]

mod browser;
mod canary;
mod cancel;
mod clients;
mod cluster;
mod deaths;
mod doors;
mod identity;
mod images;
mod isolation;
#[path = "../../../conversation-store/tests/it/postgres.rs"]
#[allow(dead_code, reason = "the store's own tests use all of it")]
mod postgres;
mod processes;
mod real_model;
mod responses;
mod restart;
mod resume;
mod separate;
mod settings;
mod stream;
mod trace;
mod upstreams;
