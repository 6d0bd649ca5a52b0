//! Which command does what.
//!
//! Knows: the commands. Must not know: their work.

use std::process::ExitCode;

use clap::Parser as _;

use crate::cli::{Cli, Command};
use crate::{
    backup, completions, demo, evaluate, export, failure, health, ingest, inspect, jobs, plan,
    print, recommend, serve, sessions, top,
};

/// The whole program.
pub fn run() -> ExitCode {
    match carry_out(&Cli::parse().command) {
        Ok(exit_code) => exit_code,
        Err(error) => match failure::describe(&error) {
            Some((text, exit_code)) => {
                print::note(&format!("{text}\n"));
                ExitCode::from(exit_code)
            }
            None => ExitCode::SUCCESS,
        },
    }
}

fn carry_out(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        // The only one that has succeeded and yet has no good news.
        Command::Health(args) => return health::run(args),
        Command::Serve(args) => serve::run(args),
        Command::Demo(args) => demo::run(args),
        Command::DemoWriter(args) => demo::run_writer(args),
        Command::Ingest(args) => ingest::run(args),
        Command::Top(args) => top::run(args),
        Command::Recommend(args) => recommend::run(args),
        Command::Evaluate(args) => evaluate::run(args),
        Command::Status(args) => inspect::status(args),
        Command::Verify(args) => inspect::verify(args),
        Command::Inspect(args) => inspect::inspect(args),
        Command::Jobs(args) => jobs::run(args),
        Command::Sessions(command) => sessions::run(command),
        Command::Plan(command) => plan::run(command),
        Command::Apply(args) => plan::apply(args),
        Command::Export(args) => export::run(args),
        Command::Backup(args) => backup::backup(args),
        Command::Restore(args) => backup::restore(args),
        Command::Completions(args) => completions::run(args),
        Command::Salvage(args) => inspect::salvage(args),
    }?;
    Ok(ExitCode::SUCCESS)
}
