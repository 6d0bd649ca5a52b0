//! The command line of tidal.
//!
//! Knows: its rooms. Must not know: any command's work.

mod cli;
mod demo;
mod engine;
mod failure;
mod ingest;
mod inspect;
mod print;
mod run;
mod time;
mod top;
mod value;

fn main() -> std::process::ExitCode {
    run::run()
}
