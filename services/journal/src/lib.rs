//! An answer is a journal, and everything else is a reader of it.
//!
//! - [`Journal`] is the append-only list of what one answer has produced: entries at dense positions 0, 1, 2, …, closed by
//!   exactly one terminal entry. Clones share it.
//! - [`Writer`] appends. It holds an epoch, and a later epoch's writer shuts it out: one answer has one writer at a time.
//! - [`Reader`] is a position and the rule "deliver the entry at `next`, then `next += 1`". Replay and live are the same loop.
//! - [`Readers`] are many readers of many journals read as one, so that all that is ready leaves in one write.
//! - [`Shelf`] keeps journals by name, and lets go of finished ones by age and size.
//!
//! Workers and routers use it. It knows no network, no clock and no runtime, and is generic over the entry.

mod chat;
mod entries;
mod journal;
mod reader;
mod readers;
mod shelf;
mod writer;

pub use entries::Entries;
pub use journal::{Entry, Journal, Limits};
pub use reader::Reader;
pub use readers::{Delivered, Readers};
pub use shelf::{Bounds, Kept, Shelf, ShelfFull};
pub use writer::{Error, Writer};
