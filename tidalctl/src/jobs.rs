//! `tidalctl jobs`: what a database does again and again, and how that went.
//!
//! Knows: how the answer is laid out. Must not know: when a job is due.

use serde_json::{Value, json};

use crate::cli::JobsArgs;
use crate::engine::{Engine, JobOutcome, JobStatus, Timestamp};
use crate::print::{self, Lean, Table};
use crate::time::{format_point, format_span};

/// Carries out `tidalctl jobs`.
///
/// # Errors
///
/// When the database cannot be copied or opened.
pub(crate) fn run(args: &JobsArgs) -> anyhow::Result<()> {
    let jobs = Engine::look_as_opened(&args.of.dir)?.jobs_of_processors();
    if args.of.json {
        let jobs: Vec<Value> = jobs.iter().map(job_json).collect();
        return Ok(print::json(&json!({ "jobs": jobs }))?);
    }
    if jobs.is_empty() {
        return Ok(print::out("no processor is registered\n")?);
    }
    let mut table = Table::new(&[
        ("job", Lean::Left),
        ("last started", Lean::Left),
        ("took", Lean::Right),
        ("failures", Lean::Right),
        ("ended", Lean::Left),
    ]);
    for job in &jobs {
        let (word, error) = outcome(job.last_outcome.as_ref());
        let took = job.last_started.zip(job.last_finished);
        let took = took.map(|(began, ended)| format_span(ended.as_nanos() - began.as_nanos()));
        table.row([
            job.name.clone(),
            job.last_started.map_or_else(|| "never".to_owned(), |at| format_point(at.as_nanos())),
            took.unwrap_or_default(),
            job.consecutive_failures.to_string(),
            error.map_or_else(|| word.to_owned(), |error| format!("{word}: {error}")),
        ]);
    }
    Ok(print::out(&table.render())?)
}

/// A word for how a run ended, and what went wrong.
fn outcome(outcome: Option<&JobOutcome>) -> (&'static str, Option<&str>) {
    match outcome {
        None => ("", None),
        Some(JobOutcome::Success) => ("success", None),
        Some(JobOutcome::Failed(error)) => ("failed", Some(error)),
        Some(JobOutcome::Panicked(error)) => ("panicked", Some(error)),
        Some(_) => ("other", None),
    }
}

fn job_json(job: &JobStatus) -> Value {
    let at = |at: Option<Timestamp>| at.map(|at| at.as_nanos().to_string());
    let (word, error) = outcome(job.last_outcome.as_ref());
    json!({
        "name": job.name,
        "last_started_ns": at(job.last_started),
        "last_finished_ns": at(job.last_finished),
        "last_outcome": job.last_outcome.as_ref().map(|_| word),
        "last_error": error,
        "consecutive_failures": job.consecutive_failures,
    })
}
