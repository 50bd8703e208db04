//! The worker over real gRPC: a listener on a free port, clients as a router has them.

mod ending;
mod epochs;
mod exchange;
mod faults;
mod harness;
mod reading;
mod stopping;
mod upstream;
