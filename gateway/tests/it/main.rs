//! The gateway against a router that the tests play ([`router`]), seen through the bytes on its sockets ([`client`]).

#![allow(
    clippy::disallowed_methods,
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on panics, and what it spawns ends with its runtime"
)]

mod client;
mod gateway;
mod ledger;
mod redis;
mod router;

mod bad_input;
mod connections;
mod conversations;
mod documented;
mod draining;
mod fuzzed;
mod golden;
mod guarded;
mod idempotency;
mod limits;
mod lost;
mod messages;
mod models;
mod openai_conversations;
mod pages;
mod replay;
mod requests;
mod responses;
mod resume;
mod slow;
mod stored;
mod text;
mod websocket;
