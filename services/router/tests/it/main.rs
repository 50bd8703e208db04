//! What the router promises, shown against a worker and a store that do what the test says.

mod fake_worker;
mod mesh;

mod admission;
mod ending;
mod exchange;
mod failing;
mod streaming;
