//! The command line of tidal, as a library: so that what reads files can be given hostile ones.
//!
//! Knows: its rooms. Must not know: any command's work.

mod cli;
mod demo;
mod engine;
mod evaluate;
mod failure;
pub mod fuzzing;
mod ingest;
mod inspect;
mod print;
mod recommend;
mod run;
mod time;
mod top;
mod value;

pub use run::run;
