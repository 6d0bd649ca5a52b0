//! The fuzzer's way in; see `tidaldb::fuzzing::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidaldb::fuzzing::record(bytes);
});
