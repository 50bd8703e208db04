//! What a client shows to a gateway that asks who calls: keys, tokens, tickets, cursors.
#![no_main]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "that is how a finding is told")]

#[path = "../../../../gateway/tests/it/fuzzed.rs"]
mod fuzzed;
#[path = "../../../../gateway/tests/it/guarded.rs"]
mod guarded;

thread_local! {
    static GUARDED: guarded::Guarded = guarded::Guarded::open();
}

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    GUARDED.with(|guarded| {
        guarded.check(input);
    });
});
