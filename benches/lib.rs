//! The harness that the benches share.
//!
//! Knows: the workload of `docs`' figures, how to fill a database with it, and how to measure what
//! criterion does not. Must not know: what a bench is about.
//!
//! Run all of them with `cargo bench -p tidal-benches`, one with `--bench NAME`. Sizes are small
//! unless `TIDAL_BENCH_FULL=1` is set; figures for the docs are taken with it. Databases lie in the
//! directory for temporary files: point `TMPDIR` at the disk that is to be measured.

#[path = "harness/database.rs"]
mod database;
#[path = "harness/measure.rs"]
mod measure;
#[path = "harness/workload.rs"]
mod workload;

pub use database::{
    Database, NEVER, USERS, fill, fill_to_cells, log_size_bytes, schema, without_checkpoints,
    write_in_flight, write_users,
};
pub use measure::{
    Latencies, criterion, device_bytes_written, full, is_measured, process_bytes_written, sized,
};
pub use workload::{COHORTS, SIGNALS, Workload, cohort};
