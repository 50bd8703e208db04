//! The dialects that a server may speak: one small table of what differs between them. The transport (`upstream`, `events`, `relay`)
//! is the same for all. Pure.

use clap::ValueEnum;
use proto::v1::{ChatRequest, Failure};
use serde_json::Value;

use super::{chat, told::Told};

/// In which words a server is asked, and answers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Dialect {
    /// OpenAI's chat completions
    #[default]
    Chat,
}

/// Understands the events of one stream, one after the other.
pub(super) trait Interpreter: Send {
    /// Takes the data of one event, and tells what it means.
    ///
    /// # Errors
    /// The server says that it failed, or what it says makes no sense.
    fn take(&mut self, data: &[u8], told: &mut Told) -> Result<(), Failure>;
}

impl Dialect {
    /// Where an answer is asked for, under the server's base address, or what follows a raw input.
    pub(super) fn path(self, raw: bool) -> &'static str {
        match self {
            Self::Chat if raw => "completions",
            Self::Chat => "chat/completions",
        }
    }

    /// A request of the mesh, as the body of the server's.
    ///
    /// # Errors
    /// The dialect has no words for something that was asked.
    pub(super) fn body(self, request: &ChatRequest, model: &str) -> Result<Value, Failure> {
        match self {
            Self::Chat => chat::ask::body(request, model),
        }
    }

    /// Somebody to understand one stream.
    pub(super) fn interpreter(self) -> Box<dyn Interpreter> {
        match self {
            Self::Chat => Box::new(chat::chunk::Chunks),
        }
    }
}
