//! What a client sends to a door: bodies, queries, ids of events, keys.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a finding is told")]

#[path = "../../../../gateway/tests/it/fuzzed.rs"]
mod fuzzed;

thread_local! {
    static DOORS: fuzzed::Doors = fuzzed::Doors::open();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    DOORS.with(|doors| {
        doors.check(input);
    });
});
