//! `tidalctl plan` and `apply`: what is to be done, written down, looked at, and then done.
//!
//! Knows: what a person is told of a plan. Must not know: which sessions a plan is for, nor how they are
//! changed.

mod file;

use std::path::Path;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::{ApplyArgs, DirArgs, PlanCommand};
use crate::engine::{Applied, Engine, SessionId, SkipReason, Task};
use crate::failure::Failure;
use crate::files;
use crate::print::{self, Lean, Table};
use crate::sessions::wanted;
use crate::time::{format_point, format_span};
use crate::value::{counted, thousands};
use file::{Plan, kind};

/// Sessions of a plan that are shown to a person.
const SHOWN: usize = 20;

/// Carries out `tidalctl plan`.
///
/// # Errors
///
/// When something lies where the plan is to be, a name is unknown, or the database cannot be copied or
/// opened.
pub(crate) fn run(command: &PlanCommand) -> anyhow::Result<()> {
    let (of, out) = command.place();
    files::expect_free(out)?;
    let look = Engine::look_as_opened(&of.dir)?;
    let task = match command {
        PlanCommand::Prune(args) => look.plan_prune(args.older_than)?,
        PlanCommand::Reset(args) => look.plan_reset(args.timeout, &args.by, &args.reason)?,
        PlanCommand::Requeue(args) => look.plan_requeue(&wanted(&look, &args.filter)?)?,
        PlanCommand::Reprocess(args) => {
            look.plan_reprocess(&args.processor, &wanted(&look, &args.filter)?)?
        }
    };
    let plan = Plan { database: look.database(), task };
    let file = plan.to_json(look.time_ns(), |session| describe(&look, session))?;
    files::write_new(out, |out| Ok(writeln!(out, "{file:#}")?))?;
    if !of.json {
        return Ok(print::out(&plan_text(&plan.task, &file, (of, out)))?);
    }
    let mut said =
        json!({ "sessions": plan.task.sessions().len(), "out": out.display().to_string() });
    if let Task::Prune { .. } = plan.task {
        said["records"] = records(&file).into();
    }
    Ok(print::json(&said)?)
}

/// What tells a person which session it is.
fn describe(engine: &Engine, session: SessionId) -> anyhow::Result<Value> {
    let info = engine.session(session.get())?;
    Ok(json!({
        "user": engine.user_name(info.user.get()),
        "ended_at_ns": info.state.end().map(|end| end.at.as_nanos().to_string()),
        "records": info.records,
    }))
}

fn records(file: &Value) -> u64 {
    let items = file["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(|item| item["records"].as_u64()).sum()
}

fn plan_text(task: &Task, file: &Value, (of, out): (&DirArgs, &Path)) -> String {
    let items = file["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let sessions = counted(items.len() as u64, "session");
    let mut said = match task {
        Task::Prune { .. } => {
            format!("It would forget {} of {sessions}.\n", counted(records(file), "record"))
        }
        Task::Reset { .. } => format!("It would give up the processing of {sessions}.\n"),
        Task::Requeue { .. } => {
            format!("It would hand {sessions} anew to those who gave them up.\n")
        }
        Task::Reprocess { processor, .. } => {
            let line = format!("It would hand {sessions} to {processor} once more.");
            print::printable_line(&line)
        }
    };
    if !items.is_empty() {
        said.push_str(&table(task, items).render());
    }
    if items.len() > SHOWN {
        said.push_str(&format!("  and {} more\n", thousands((items.len() - SHOWN) as u64)));
    }
    let (out, dir) = (out.display(), of.dir.display());
    let next = format!("Nothing is done yet: tidalctl apply {out} --dir {dir}");
    said + &print::printable_line(&next)
}

fn table(task: &Task, items: &[Value]) -> Table {
    let is_reset = matches!(task, Task::Reset { .. });
    let mut columns = vec![
        ("session", Lean::Right),
        ("user", Lean::Left),
        ("ended", Lean::Left),
        ("records", Lean::Right),
    ];
    if is_reset {
        columns.push(("age", Lean::Right));
    }
    let mut table = Table::new(&columns);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| text(value).parse().unwrap_or(0);
    for item in items.iter().take(SHOWN) {
        let ended = format_point(number(&item["ended_at_ns"]));
        let cells = [text(&item["session"]), text(&item["user"]), ended];
        let age = is_reset.then(|| format_span(number(&item["age_ns"])));
        table.row(cells.into_iter().chain([item["records"].to_string()]).chain(age));
    }
    table
}

/// Carries out `tidalctl apply`.
///
/// # Errors
///
/// When the plan cannot be read, is of another database or of a kind that is not known here, or the
/// database cannot be opened or written.
pub(crate) fn apply(args: &ApplyArgs) -> anyhow::Result<()> {
    let path = &args.plan;
    let text = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    let plan = Plan::parse(&text).map_err(|wrong| wrong.in_file(path))?;
    // Before it is opened: an open writes.
    let database = Engine::identity(&args.of.dir)?;
    if plan.database != database {
        let (dir, kind) = (args.of.dir.display(), kind(&plan.task));
        return Err(Failure::failed(format!(
            "{} is a plan for database {}, and {dir} is database {database}",
            path.display(),
            plan.database
        ))
        .hint(format!(
            "name the --dir that it was made for, or make one with tidalctl plan {kind} --dir {dir}"
        ))
        .into());
    }
    let engine = Engine::open(&args.of.dir)?;
    let applied = engine.apply(plan.task)?;
    engine.close()?;
    if args.of.json {
        return Ok(print::json(&applied_json(&applied))?);
    }
    Ok(print::out(&applied_text(&applied))?)
}

fn applied_json(applied: &Applied) -> Value {
    let done: Vec<String> = applied.done.iter().map(SessionId::to_string).collect();
    let skipped = applied.skipped.iter().map(|(id, reason)| {
        let (name, _) = reason_words(*reason);
        json!({ "session": id.to_string(), "reason": name })
    });
    json!({ "done": done, "skipped": skipped.collect::<Vec<Value>>() })
}

fn applied_text(applied: &Applied) -> String {
    let (done, skipped) = (applied.done.len() as u64, applied.skipped.len() as u64);
    let mut text = format!("{} done, {} skipped\n", thousands(done), thousands(skipped));
    for (id, reason) in &applied.skipped {
        let (_, sentence) = reason_words(*reason);
        text.push_str(&format!("  session {id}: {sentence}\n"));
    }
    text
}

/// A reason for programs, and for people.
const fn reason_words(reason: SkipReason) -> (&'static str, &'static str) {
    match reason {
        SkipReason::Gone => ("gone", "there is no such session"),
        SkipReason::StateMoved => {
            ("state_moved", "it is not as it was planned: perhaps that was done already")
        }
        SkipReason::ContentMoved => ("content_moved", "its content is not what it was"),
        SkipReason::TooYoung => ("too_young", "its end is not so long ago, by the clock of now"),
        SkipReason::Awaited => ("awaited", "a cursor has yet to acknowledge an event of it"),
        _ => ("other", "the database says no"),
    }
}
