//! The fuzzer's way in; see `tidaldb::fuzzing::page`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidaldb::fuzzing::page(bytes);
});
