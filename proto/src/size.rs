//! How large one message may be. gRPC's own default (4 MiB in, no limit out) is neither; both are said here, once.

/// The largest message that a process of the mesh accepts, in bytes: a request of 1 MiB with a long history and room to spare.
pub const MAX_DECODED_MESSAGE: usize = 16 * 1024 * 1024;

/// The largest message that a process of the mesh sends, in bytes: what the others accept.
pub const MAX_ENCODED_MESSAGE: usize = MAX_DECODED_MESSAGE;
