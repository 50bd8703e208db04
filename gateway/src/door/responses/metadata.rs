//! Metadata: whatever a client wants to find again with a response or a conversation.

use std::collections::BTreeMap;

use crate::failure::Refusal;

/// The most pairs of metadata, and the most characters of a key and of a value.
const METADATA: usize = 16;
const METADATA_KEY: usize = 64;
const METADATA_VALUE: usize = 512;

/// Metadata, as clients send it.
pub(crate) type Metadata = BTreeMap<String, String>;

/// Judges metadata.
///
/// # Errors
/// There is too much of it.
pub(crate) fn metadata(param: &str, given: Option<&Metadata>) -> Result<(), Refusal> {
    let Some(given) = given else { return Ok(()) };
    if given.len() > METADATA {
        let message = format!("{param}: expected at most {METADATA} pairs, got {}", given.len());
        return Err(Refusal::invalid(param, message));
    }
    for (key, value) in given {
        let within = (1..=METADATA_KEY).contains(&key.chars().count()) && value.chars().count() <= METADATA_VALUE;
        if !within {
            let message = format!("{param}: expected keys of 1 to {METADATA_KEY} and values of at most {METADATA_VALUE} characters");
            return Err(Refusal::invalid(param, message));
        }
    }
    Ok(())
}
