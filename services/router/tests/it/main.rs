//! What the router promises, shown against a worker and a store that do what the test says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // helpers of tests are tests too

mod fake_store;
mod fake_worker;
mod mesh;

mod admission;
mod adopting;
mod ending;
mod exchange;
mod failing;
mod handing;
mod saving;
mod storing;
mod streaming;
