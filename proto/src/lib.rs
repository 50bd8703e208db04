//! The contract of the mesh: the types and services of `chat.proto`, and what every process must agree on about them.
//!
//! All other crates use this one. It holds no behaviour but the meaning of the messages themselves: which entry is
//! terminal ([`Entry::is_terminal`](v1::Entry::is_terminal)), and how a [`Failure`](v1::Failure) travels as a status.

pub mod codec;
pub mod entry;
mod failure;
mod image;
mod size;

pub use failure::FAILURE_METADATA;
pub use image::{Piece, pieces};
pub use size::{MAX_DECODED_MESSAGE, MAX_ENCODED_MESSAGE};

/// The messages and services of package `chat.v1`.
#[allow(missing_docs, clippy::all, clippy::pedantic, unreachable_pub)]
pub mod v1 {
    tonic::include_proto!("chat.v1");

    pub use crate::entry::{self, Entry};
}

/// The compiled descriptors of `chat.proto`, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/chat.bin"));
