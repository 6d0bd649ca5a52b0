//! `tidalctl sessions`: what is known of sessions.
//!
//! Knows: questions, and how answers are laid out. Must not know: when a session ends.

use std::io::{self, Write};
use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::cli::{
    SessionFilterArgs, SessionsCommand, SessionsExportArgs, SessionsListArgs, SessionsOverdueArgs,
    SessionsShowArgs,
};
use crate::engine::{
    End, EndCause, EndEvidence, Engine, FailCause, ProcessorRow, ProcessorStatus, SessionId,
    SessionInfo, SessionState, Timestamp, Wanted, hex,
};
use crate::files;
use crate::print::{self, Lean, Table};
use crate::time::format_point;
use crate::value::counted;

/// Twice what the sweeper sleeps at the longest, unless it is told otherwise.
const PATIENCE: Duration = Duration::from_secs(60);

/// Carries out `tidalctl sessions`.
///
/// # Errors
///
/// When a session or user is unknown, or the database cannot be copied or opened.
pub(crate) fn run(command: &SessionsCommand) -> anyhow::Result<()> {
    match command {
        SessionsCommand::List(args) => list(args),
        SessionsCommand::Show(args) => show(args),
        SessionsCommand::Overdue(args) => overdue(args),
        SessionsCommand::Export(args) => export(args),
    }
}

fn list(args: &SessionsListArgs) -> anyhow::Result<()> {
    let look = Engine::look_as_left(&args.of.dir, PATIENCE)?;
    let mut wanted = wanted(&look, &args.filter)?;
    wanted.after = args.after.map(SessionId::new);
    let limit = args.limit as usize;
    let found = look.sessions(&wanted, limit)?;
    // A page that is not full is the last one.
    let next = found.last().filter(|_| found.len() == limit).map(|info| info.id.get());
    if args.of.json {
        let rows: Vec<Value> = found.iter().map(session_json).collect();
        let next = next.map(|id| id.to_string());
        return Ok(print::json(&json!({ "sessions": rows, "next_after": next }))?);
    }
    if found.is_empty() {
        return Ok(print::out("no session matches\n")?);
    }
    print::out(&table(&look, &found))?;
    if let Some(last) = next {
        print::note(&format!("note: there may be more: --after {last}\n"));
    }
    Ok(())
}

/// The sessions that a command line asks for.
///
/// # Errors
///
/// When the user is unknown.
pub(crate) fn wanted(engine: &Engine, args: &SessionFilterArgs) -> anyhow::Result<Wanted> {
    let user = args.user.as_deref().map(|user| engine.user_of(user)).transpose()?;
    Ok(Wanted { user, states: args.state.clone(), older_than: args.older_than, after: None })
}

fn overdue(args: &SessionsOverdueArgs) -> anyhow::Result<()> {
    let look = Engine::look_as_left(&args.of.dir, args.patience)?;
    let found = look.overdue_sessions(args.patience)?;
    if args.of.json {
        let rows: Vec<Value> = found.iter().map(session_json).collect();
        return Ok(print::json(&json!({ "overdue": rows }))?);
    }
    if found.is_empty() {
        return Ok(print::out("no end is overdue\n")?);
    }
    let hint = "The next open of the database writes these ends down, and so does sweep().\n";
    Ok(print::out(&format!("{}\n{hint}", table(&look, &found)))?)
}

fn show(args: &SessionsShowArgs) -> anyhow::Result<()> {
    let look = Engine::look_as_left(&args.of.dir, PATIENCE)?;
    let info = look.session(args.id)?;
    let mut lines = Vec::new();
    look.export_session(args.id, &mut lines)?;
    // The first line is the session itself.
    let records = serde_json::Deserializer::from_slice(&lines).into_iter::<Value>().skip(1);
    let records = records.collect::<Result<Vec<_>, _>>()?;
    let processing = look.processing(info.id)?;
    if args.of.json {
        return Ok(print::json(&json!({
            "session": session_json(&info),
            "processing": processing.iter().map(processing_json).collect::<Vec<Value>>(),
            "records": records,
        }))?);
    }
    let facts = facts(&look, &info);
    let processing = processing_table(&processing);
    let records = records_table(&look, &records);
    Ok(print::out(&format!("{facts}\n{processing}{records}"))?)
}

fn export(args: &SessionsExportArgs) -> anyhow::Result<()> {
    if let Some(path) = &args.out {
        files::expect_free(path)?;
    }
    let look = Engine::look_as_left(&args.of.dir, PATIENCE)?;
    let wanted = wanted(&look, &args.filter)?;
    let write = |out: &mut (dyn Write + Send)| match args.id {
        Some(id) => {
            look.session(id)?;
            look.export_session(id, out).map(|()| 1)
        }
        None => look.each_session(&wanted, |info| look.export_session(info.id.get(), out)),
    };
    let Some(path) = &args.out else {
        let mut out = io::BufWriter::new(io::stdout());
        write(&mut out)?;
        return Ok(out.flush()?);
    };
    let count = files::write_new(path, write)?;
    if args.of.json {
        return Ok(print::json(&json!({ "sessions": count, "out": path.display().to_string() }))?);
    }
    let are = if count == 1 { "is" } else { "are" };
    let line = format!("{} {are} in {}", counted(count, "session"), path.display());
    Ok(print::out(&print::printable_line(&line))?)
}

/// Sessions, a line each.
fn table(engine: &Engine, sessions: &[SessionInfo]) -> String {
    let mut table = Table::new(&[
        ("session", Lean::Right),
        ("user", Lean::Left),
        ("agent", Lean::Left),
        ("state", Lean::Left),
        ("started", Lean::Left),
        ("last activity", Lean::Left),
        ("records", Lean::Right),
        ("ended", Lean::Left),
    ]);
    for info in sessions {
        table.row([
            info.id.to_string(),
            engine.user_name(info.user.get()),
            info.agent.clone(),
            info.state.as_str().to_owned(),
            format_point(info.started_at.as_nanos()),
            format_point(info.last_activity_at.as_nanos()),
            info.records.to_string(),
            info.state.end().map(|end| end.cause.to_string()).unwrap_or_default(),
        ]);
    }
    table.render()
}

fn facts(engine: &Engine, info: &SessionInfo) -> String {
    let point = |at: Timestamp| format_point(at.as_nanos());
    let counts = format!(
        "{} ({}, {}, {} late)",
        info.records,
        counted(info.signals, "signal"),
        counted(info.annotations, "annotation"),
        info.late
    );
    let mut facts = vec![
        ("session", info.id.to_string()),
        ("user", engine.user_name(info.user.get())),
        ("agent", info.agent.clone()),
        ("policy", info.policy.clone()),
        ("state", info.state.as_str().to_owned()),
        ("started", point(info.started_at)),
        ("last activity", point(info.last_activity_at)),
    ];
    if let Some(deadline) = info.deadline {
        facts.push(("open until", point(deadline)));
    }
    if let Some(end) = info.state.end() {
        facts.push(("ended", format!("{}, {}", point(end.at), end.cause)));
    }
    if let SessionState::Failed { at, cause, .. } = &info.state {
        facts.push(("failed", format!("{}, {cause}", point(*at))));
    }
    facts.extend([("records", counts), ("content hash", hex(&info.content_hash))]);
    let line =
        |(name, value): &(&str, String)| print::printable_line(&format!("  {name:<14}{value}"));
    facts.iter().map(line).collect()
}

/// How a processor stands with a session: a word, a moment and what it is the moment of, and an error.
fn standing(row: &ProcessorRow) -> (&'static str, Option<(&'static str, Timestamp)>, Option<&str>) {
    match &row.status {
        ProcessorStatus::Done => {
            let committed_at = row.outcome.as_ref().map(|outcome| outcome.committed_at);
            ("done", committed_at.map(|at| ("committed_at_ns", at)), None)
        }
        ProcessorStatus::Running { since } => ("running", Some(("since_ns", *since)), None),
        ProcessorStatus::Retrying { next, error } => {
            ("retrying", Some(("next_ns", *next)), Some(error))
        }
        ProcessorStatus::Quarantined { at, error } => {
            ("quarantined", Some(("at_ns", *at)), Some(error))
        }
        _ => ("other", None, None),
    }
}

fn processing_json((name, row): &(String, ProcessorRow)) -> Value {
    let (status, moment, error) = standing(row);
    let mut json = json!({ "processor": name, "status": status, "attempts": row.attempts });
    if let Some((name, at)) = moment {
        json[name] = at.as_nanos().to_string().into();
    }
    if let Some(error) = error {
        json["error"] = error.into();
    }
    if let Some(outcome) = &row.outcome {
        json["outcome"] = json!({
            "content_hash": hex(&outcome.content_hash),
            "version": outcome.version,
            "committed_at_ns": outcome.committed_at.as_nanos().to_string(),
            "items": outcome.items,
            "outputs": outcome.outputs.len(),
        });
    }
    json
}

/// How far processors are with a session; nothing where none has tried it.
fn processing_table(processing: &[(String, ProcessorRow)]) -> String {
    if processing.is_empty() {
        return String::new();
    }
    let mut table = Table::new(&[
        ("processor", Lean::Left),
        ("status", Lean::Left),
        ("when", Lean::Left),
        ("attempts", Lean::Right),
        ("outputs", Lean::Right),
        ("error", Lean::Left),
    ]);
    for (name, row) in processing {
        let (status, moment, error) = standing(row);
        table.row([
            name.clone(),
            status.to_owned(),
            moment.map(|(_, at)| format_point(at.as_nanos())).unwrap_or_default(),
            row.attempts.to_string(),
            row.outcome.as_ref().map_or(0, |outcome| outcome.outputs.len()).to_string(),
            error.unwrap_or_default().to_owned(),
        ]);
    }
    table.render() + "\n"
}

/// Records, from the lines of an export.
fn records_table(engine: &Engine, records: &[Value]) -> String {
    if records.is_empty() {
        return "  no records\n".to_owned();
    }
    let mut table = Table::new(&[
        ("at", Lean::Left),
        ("item", Lean::Left),
        ("what", Lean::Left),
        ("weight", Lean::Right),
        ("text", Lean::Left),
    ]);
    for record in records {
        let text = |name: &str| record[name].as_str().unwrap_or_default().to_owned();
        let number = |name: &str| record[name].as_str().and_then(|text| text.parse::<u64>().ok());
        let entity = number("entity").unwrap_or_default();
        let what = match record["late"] == true {
            true => format!("{} (late)", text("signal")),
            false if record["type"] == "annotation" => "annotation".to_owned(),
            false => text("signal"),
        };
        table.row([
            format_point(number("at_ns").unwrap_or_default()),
            engine.entity_name(entity).unwrap_or_else(|| entity.to_string()),
            what,
            record["weight"].as_f64().map(print::value).unwrap_or_default(),
            format!("{}{}", text("annotation"), text("text")),
        ]);
    }
    table.render()
}

/// A session with the members that the first line of its export has.
pub(crate) fn session_json(info: &SessionInfo) -> Value {
    let mut members = Map::new();
    let mut put = |name: &str, value: Value| members.insert(name.to_owned(), value);
    put("type", "session".into());
    put("id", info.id.to_string().into());
    put("user", info.user.to_string().into());
    put("agent", info.agent.clone().into());
    put("policy", info.policy.clone().into());
    put("state", info.state.as_str().into());
    put("started_at_ns", info.started_at.as_nanos().to_string().into());
    put("last_activity_at_ns", info.last_activity_at.as_nanos().to_string().into());
    if let Some(deadline) = info.deadline {
        put("deadline_ns", deadline.as_nanos().to_string().into());
    }
    if let Some(end) = info.state.end() {
        put("end", end_json(end));
    }
    if let SessionState::Failed { at, cause, .. } = &info.state {
        put("failed", failed_json(*at, cause));
    }
    put("records", info.records.into());
    put("signals", info.signals.into());
    put("annotations", info.annotations.into());
    put("late", info.late.into());
    put("content_hash", hex(&info.content_hash).into());
    Value::Object(members)
}

/// Why and when the processing of a session was given up, as its export says it.
fn failed_json(at: Timestamp, cause: &FailCause) -> Value {
    let mut failed = json!({ "at_ns": at.as_nanos().to_string() });
    match cause {
        FailCause::TimedOut { after, automatic } => {
            failed["cause"] = "timed_out".into();
            failed["after_ns"] = after.as_nanos().to_string().into();
            failed["automatic"] = (*automatic).into();
        }
        FailCause::Reset { by, reason } => {
            failed["cause"] = "reset".into();
            failed["by"] = by.as_str().into();
            failed["reason"] = reason.as_str().into();
        }
        FailCause::Quarantined { processor } => {
            failed["cause"] = "quarantined".into();
            failed["processor"] = processor.as_str().into();
        }
        _ => failed["cause"] = "other".into(),
    }
    failed
}

/// How a session ended, as its export says it.
pub(crate) fn end_json(end: &End) -> Value {
    let mut object = json!({ "at_ns": end.at.as_nanos().to_string(), "cause": end.cause.as_str() });
    match &end.cause {
        EndCause::Superseded { by } => object["by"] = by.to_string().into(),
        EndCause::Forced { reason } => object["reason"] = reason.as_str().into(),
        _ => {}
    }
    match end.evidence {
        EndEvidence::Explicit => object["evidence"] = "explicit".into(),
        EndEvidence::Record { record } => {
            object["evidence"] = "record".into();
            object["record"] = record.to_string().into();
        }
        EndEvidence::Fallback { clamped } => {
            object["evidence"] = "fallback".into();
            object["clamped"] = clamped.into();
        }
        _ => {}
    }
    object
}
