//! The fuzzer's way in; see `tidaldb::fuzzing::apply`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidaldb::fuzzing::apply(bytes);
});
