//! `tidalctl completions`: what a shell completes command lines with.
//!
//! Knows: that the command line describes itself. Must not know: any shell.

use clap::CommandFactory as _;

use crate::cli::{Cli, CompletionsArgs};
use crate::print;

/// Carries out `tidalctl completions`.
///
/// # Errors
///
/// When nobody reads it any more.
pub(crate) fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "tidalctl", &mut script);
    Ok(print::out(&String::from_utf8_lossy(&script))?)
}
