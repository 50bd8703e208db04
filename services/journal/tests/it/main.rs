//! What journals promise, held against a model that fits on a page.
#![allow(clippy::unwrap_used, clippy::cast_possible_truncation, missing_docs)]

mod model;
mod wake;
