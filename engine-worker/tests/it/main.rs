//! The worker over real gRPC: a listener on a free port, clients as a router has them.

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on fails, and so do its harness and its tasks"
)]

mod chaos;
mod ending;
mod epochs;
mod exchange;
mod faults;
mod fuzzed;
mod harness;
mod log;
mod reading;
mod stopping;
mod upstream;
