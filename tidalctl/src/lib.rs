//! The command line of tidal, as a library: so that what reads files can be given hostile ones.
//!
//! Knows: its rooms. Must not know: any command's work.

mod backup;
mod cli;
mod completions;
mod demo;
mod engine;
mod evaluate;
mod export;
mod failure;
mod files;
pub mod fuzzing;
mod health;
mod ingest;
mod inspect;
mod jobs;
mod plan;
mod print;
mod recommend;
mod run;
mod serve;
mod sessions;
mod time;
mod top;
mod value;

pub use run::run;
