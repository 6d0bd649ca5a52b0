//! The fuzzer's way in; see `tidaldb::fuzzing::segment`.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tidaldb::fuzzing::segment(bytes);
});
