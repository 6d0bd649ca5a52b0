//! Faults beneath the engine and the real store: a process killed at an operation on its files, operations
//! that fail, power that is cut, a disk that is full.
//!
//! A child applies operations that follow from a seed, over checkpoints, closes and reopens, and reports
//! what was acknowledged; a shim beneath it meets the n-th operation on its files with a fault. Then the
//! directory, or what a power cut leaves of it, is opened without the shim: what is there must be the first
//! so many operations, with all that was acknowledged.
//!
//! `TIDAL_SEED=… cargo test --test beneath` repeats the operations and the choices (not the threads of the
//! store). `TIDAL_CASES=…` is how many faults each test tries instead of a sample that fits into CI; a
//! number larger than there are operations is all of them. Where the machine cannot do something, the suite
//! says `NOT TESTED HERE`, and fails if `TIDAL_MUST_FAULT` is set.

#[cfg(unix)]
mod failures;
#[cfg(unix)]
mod full_disk;
#[cfg(unix)]
mod kills;
#[cfg(unix)]
mod power_cuts;
#[cfg(unix)]
mod script;

#[cfg(not(unix))]
#[test]
fn faults_beneath_the_process_need_unix() {
    tidal_support::shim::left_out("faults beneath the process", "this is not Unix");
}
