//! How settings are written: parsers for clap's `value_parser`.

use std::time::Duration;

/// The exit code for a setting that is wrong: `EX_USAGE` of sysexits.h.
pub const EX_USAGE: u8 = 64;

/// A duration as `500ms`, `10s` or `2m`.
///
/// # Errors
/// Says what was expected.
pub fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| format!("{error}; write it as 500ms, 10s or 2m"))
}
