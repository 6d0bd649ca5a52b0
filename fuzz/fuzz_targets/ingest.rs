//! The fuzzer's way in; see `tidalctl::fuzzing::ingest`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidalctl::fuzzing::ingest(bytes);
});
