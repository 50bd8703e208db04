//! How a process of the mesh serves. It knows nothing of chat.
//!
//! - [`process`]: a thin `main`: settings, telemetry, signals, the exit code.
//! - [`drain`]: from "not ready" to "gone", in one place.
//! - [`listen`]: a listening socket, or a clear reason why not.
//! - [`grpc`]: serving gRPC, with health and reflection. [`channel`]: calling it.
//! - [`http`]: serving HTTP/1.1 to strangers, with every wait bounded.
//! - [`notice`]: waiting for what happens once, beside much else. [`pace`]: sending many small things together, once there are many.
//! - [`telemetry`]: logs and traces, with what must not stand in them masked ([`mask`]); [`trace`] carries a trace's context from process to process.
//! - [`setting`]: how settings are written.

pub mod channel;
pub mod drain;
pub mod grpc;
pub mod http;
pub mod listen;
pub mod mask;
pub mod notice;
pub mod pace;
pub mod process;
pub mod setting;
mod stall;
pub mod telemetry;
pub mod trace;
