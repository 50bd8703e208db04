//! What a server behind a worker streams, in each dialect.
#![no_main]

#[path = "../../../../engine-worker/tests/it/fuzzed.rs"]
mod fuzzed;

libfuzzer_sys::fuzz_target!(|input: &[u8]| fuzzed::check(input));
