//! `tidalctl status`, `verify`, `inspect` and `salvage`: what a database says about itself.
//!
//! Knows: which facts are shown, and how they are laid out. Must not know: how the engine finds them.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::{DirArgs, InspectArgs, OnOpen, SalvageArgs};
use crate::engine::{Engine, Inspection, OpenReport, Status, hex};
use crate::failure::Failure;
use crate::print::{self, Lean, Table};
use crate::sessions::end_json;
use crate::time::format_point;
use crate::value::{counted, size, thousands};

/// Carries out `tidalctl status`.
///
/// # Errors
///
/// When the database cannot be opened or closed.
pub(crate) fn status(args: &DirArgs) -> anyhow::Result<()> {
    let engine = Engine::open(&args.dir)?;
    let account = Account {
        status: engine.status(),
        signals: engine.signal_names(),
        cohorts: engine.cohort_names(),
        digest: engine.digest()?,
    };
    if args.json {
        print::json(&account.json(engine.open_report()))?;
    } else {
        print::out(&account.text(&args.dir, engine.open_report()))?;
    }
    engine.close()
}

struct Account {
    status: Status,
    signals: Vec<String>,
    cohorts: Vec<String>,
    digest: String,
}

impl Account {
    fn text(&self, dir: &Path, opened: &OpenReport) -> String {
        let status = &self.status;
        let clock = if status.event_time { "the newest event" } else { "the system's clock" };
        let facts = [
            ("database", status.database.clone()),
            ("directory", dir.display().to_string()),
            ("signals", or_none(&self.signals)),
            ("cohorts", or_none(&self.cohorts)),
            ("engine time", format!("{} ({clock})", format_point(status.engine_time.as_nanos()))),
            ("opened", counted(status.incarnation, "time")),
            ("this time", opened.to_string()),
            ("log", size(status.log_size_bytes)),
            ("digest", self.digest.clone()),
        ];
        let mut text = String::new();
        for (name, value) in facts {
            text.push_str(&format!("  {name:<12}  {}\n", print::printable(&value)));
        }
        format!("{text}\n{}\n{}", self.positions(), self.memory())
    }

    /// How far each part has come, in frames of the log.
    fn positions(&self) -> String {
        let status = &self.status;
        let mut table = Table::new(&[
            ("position", Lean::Left),
            ("frame", Lean::Right),
            ("what it means", Lean::Left),
        ]);
        let operations = format!("reads see it; {}", counted(status.operations, "operation"));
        let mut row = |name: String, seq: u64, meaning: String| {
            table.row([name, thousands(seq), meaning]);
        };
        row("appended".into(), status.appended.get(), "last frame of the log".into());
        row("durable".into(), status.durable.get(), "survives a power cut".into());
        row("applied".into(), status.applied.get(), operations);
        for store in &status.stores {
            let meaning = match (&store.failure, store.seq.get()) {
                (Some(failure), _) => format!("OUT OF USE: {failure}"),
                (None, 0) => "no checkpoint yet".to_owned(),
                (None, _) => "its checkpoint".to_owned(),
            };
            row(format!("store {}", store.name), store.seq.get(), meaning);
        }
        table.render()
    }

    fn memory(&self) -> String {
        let status = &self.status;
        let mut table = Table::new(&[
            ("memory", Lean::Left),
            ("entries", Lean::Right),
            ("size", Lean::Right),
            ("bytes each", Lean::Right),
        ]);
        let each = |size_bytes: f64| format!("{size_bytes:.1}");
        let mean = |entries: u64, size_bytes: u64| match entries {
            0 => String::new(),
            entries => each(size_bytes as f64 / entries as f64),
        };
        let users = (status.users, status.users_size_bytes);
        let texts = (status.texts, status.texts_size_bytes);
        let lists = (status.collections, status.collections_size_bytes);
        let rows = [
            (
                "cells",
                thousands(status.cells),
                status.cells_size_bytes,
                status.cell_size_bytes().map(each).unwrap_or_default(),
            ),
            ("users and cohorts", thousands(users.0), users.1, mean(users.0, users.1)),
            ("texts", thousands(texts.0), texts.1, mean(texts.0, texts.1)),
            ("collections", thousands(lists.0), lists.1, mean(lists.0, lists.1)),
            (
                "sessions",
                format!("{} open", thousands(status.sessions_open)),
                status.sessions_size_bytes,
                String::new(),
            ),
            (
                "co-engagement, sources, event ids, hidden",
                String::new(),
                status.other_size_bytes,
                String::new(),
            ),
            ("rows to checkpoint", String::new(), status.cold_pending_size_bytes, String::new()),
        ];
        let total: u64 = rows.iter().map(|row| row.2).sum();
        for (name, entries, size_bytes, each) in rows {
            table.row([name.to_owned(), entries, size(size_bytes), each]);
        }
        table.row(["together".to_owned(), String::new(), size(total), String::new()]);
        table.render()
    }

    fn json(&self, opened: &OpenReport) -> Value {
        let status = &self.status;
        let stores: Vec<Value> = status
            .stores
            .iter()
            .map(|store| {
                json!({ "name": store.name, "seq": store.seq.get(), "failure": store.failure })
            })
            .collect();
        json!({
            "database": status.database,
            "incarnation": status.incarnation,
            "opened": opened_json(opened),
            "signals": self.signals,
            "cohorts": self.cohorts,
            "engine_time_ns": status.engine_time.as_nanos(),
            "event_time": status.event_time,
            "appended": status.appended.get(),
            "durable": status.durable.get(),
            "applied": status.applied.get(),
            "operations": status.operations,
            "log_size_bytes": status.log_size_bytes,
            "stores": stores,
            "cells": status.cells,
            "cells_size_bytes": status.cells_size_bytes,
            "cell_size_bytes": status.cell_size_bytes(),
            "users": status.users,
            "users_size_bytes": status.users_size_bytes,
            "texts": status.texts,
            "texts_size_bytes": status.texts_size_bytes,
            "collections": status.collections,
            "collections_size_bytes": status.collections_size_bytes,
            "sessions_open": status.sessions_open,
            "sessions_size_bytes": status.sessions_size_bytes,
            "other_size_bytes": status.other_size_bytes,
            "cold_pending_size_bytes": status.cold_pending_size_bytes,
            "digest": self.digest,
        })
    }
}

fn opened_json(opened: &OpenReport) -> Value {
    json!({
        "checkpoint_store": opened.checkpoint_store,
        "checkpoint_seq": opened.checkpoint_seq.get(),
        "replayed": opened.replayed,
        "rewritten": opened.rewritten,
        "repairs": opened.repairs,
    })
}

fn or_none(names: &[String]) -> String {
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// Carries out `tidalctl verify`, on a copy: opening a database repairs it, and writes.
///
/// # Errors
///
/// When the database cannot be copied or opened, or something in it is damaged.
pub(crate) fn verify(args: &DirArgs) -> anyhow::Result<()> {
    let found = Engine::inspect(&args.dir, OnOpen::RestoreThenExpire)?;
    let report = &found.verified;
    if args.json {
        print::json(&json!({
            "sound": report.is_sound(),
            "checks_sound": report.sound,
            "checks_broken": report.broken,
            "repairs": found.opened.repairs,
            "applied": found.opened.seq.get(),
            "digest": found.digest.map(|digest| hex(&digest)),
        }))?;
    } else {
        print::out(&verify_text(&found))?;
    }
    if report.is_sound() {
        return Ok(());
    }
    let (broken, all) = (report.broken.len(), report.broken.len() + report.sound.len());
    Err(Failure::failed(format!("{broken} of {all} checks found damage"))
        .hint("keep a copy of the directory before anything else opens it")
        .into())
}

/// Carries out `tidalctl salvage`.
///
/// # Errors
///
/// When nothing can be saved, or what was saved does not verify.
pub(crate) fn salvage(args: &SalvageArgs) -> anyhow::Result<()> {
    let salvage = Engine::salvage(&args.from.dir, &args.to)?;
    if args.from.json {
        print::json(&json!({
            "saved": salvage.saved.get(),
            "proven": salvage.proven.get(),
            "repairs": salvage.opened.repairs,
            "sound": salvage.verified.is_sound(),
        }))?;
    } else {
        salvage
            .to_string()
            .lines()
            .try_for_each(|line| print::out(&print::printable_line(line)))?;
    }
    if salvage.verified.is_sound() {
        return Ok(());
    }
    Err(Failure::failed("what was saved does not verify").hint("restore a backup").into())
}

/// Sessions that are shown to a person, of those that an open would restore, and of those it would end.
const SESSIONS_SHOWN: usize = 20;

/// Carries out `tidalctl inspect`, on a copy.
///
/// # Errors
///
/// When the database cannot be copied, an open would fail, or what it opened does not verify.
pub(crate) fn inspect(args: &InspectArgs) -> anyhow::Result<()> {
    let found = Engine::inspect(&args.of.dir, args.on_open)?;
    if args.of.json {
        print::json(&inspection_json(&found))?;
    } else {
        print::out(&inspection_text(&found))?;
    }
    if found.verified.is_sound() {
        return Ok(());
    }
    Err(Failure::failed("what an open would find does not verify")
        .hint("tidalctl verify says what is broken; keep a copy of the directory")
        .into())
}

fn inspection_json(found: &Inspection) -> Value {
    let Inspection { opened, verified, digest, .. } = found;
    let ended = opened.sessions_ended.iter();
    let ended = ended.map(|(id, end)| json!({ "id": id.to_string(), "end": end_json(end) }));
    let restored = opened.sessions_restored.iter().map(|id| id.to_string());
    json!({
        "opened": {
            "incarnation": opened.incarnation,
            "seq": opened.seq.get(),
            "checkpoint_store": opened.checkpoint_store,
            "checkpoint_seq": opened.checkpoint_seq.get(),
            "replayed": opened.replayed,
            "proven": opened.proven.get(),
            "rewritten": opened.rewritten,
            "clean": opened.clean,
            "repairs": opened.repairs,
            "sessions_restored": restored.collect::<Vec<String>>(),
            "sessions_ended": ended.collect::<Vec<Value>>(),
        },
        "sound": verified.is_sound(),
        "checks_broken": verified.broken,
        "digest": digest.map(|digest| hex(&digest)),
    })
}

fn inspection_text(found: &Inspection) -> String {
    let Inspection { opened, verified, .. } = found;
    let checkpoint = match opened.checkpoint_store {
        Some(store) => {
            format!("of store {store}, at frame {}", thousands(opened.checkpoint_seq.get()))
        }
        None => "none: it begins with an empty state".to_owned(),
    };
    let rest = if opened.clean { "at rest" } else { "in the middle of its work" };
    let (restored, ended) = (&opened.sessions_restored, &opened.sessions_ended);
    let facts = [
        ("left", rest.to_owned()),
        ("checkpoint", checkpoint),
        ("replayed", format!("{} of the log", counted(opened.replayed, "frame"))),
        ("proven", format!("through frame {}", thousands(opened.proven.get()))),
        (
            "written anew",
            format!("{}, not proven to be synced", counted(opened.rewritten, "frame")),
        ),
        ("last frame", format!("{}, those of the open included", thousands(opened.seq.get()))),
        ("repairs", if opened.repairs.is_empty() { "none" } else { "see below" }.to_owned()),
        ("sessions", format!("{} restored, {} ended", restored.len(), ended.len())),
        ("verifies", if verified.is_sound() { "yes" } else { "NO" }.to_owned()),
    ];
    let mut text = "An open of now would find, and do:\n".to_owned();
    for (name, value) in facts {
        text.push_str(&format!("  {name:<14}{value}\n"));
    }
    let repairs = opened.repairs.iter().map(|repair| format!("repair    {repair}"));
    let broken = verified.broken.iter().map(|line| format!("BROKEN    {line}"));
    for line in repairs.chain(broken) {
        text.push_str(&print::printable_line(&line));
    }
    for id in restored.iter().take(SESSIONS_SHOWN) {
        text.push_str(&format!("restored  session {id}\n"));
    }
    for (id, end) in ended.iter().take(SESSIONS_SHOWN) {
        let at = format_point(end.at.as_nanos());
        text.push_str(&print::printable_line(&format!(
            "ended     session {id} at {at}, {}",
            end.cause
        )));
    }
    let left_out =
        restored.len().saturating_sub(SESSIONS_SHOWN) + ended.len().saturating_sub(SESSIONS_SHOWN);
    if left_out > 0 {
        text.push_str(&format!(
            "and {}: --json has them all\n",
            counted(left_out as u64, "more session")
        ));
    }
    text
}

fn verify_text(found: &Inspection) -> String {
    let Inspection { opened, verified: report, .. } = found;
    let mut text = String::new();
    for repair in &opened.repairs {
        text.push_str(&print::printable_line(&format!("on open   {repair}")));
    }
    for line in &report.sound {
        text.push_str(&print::printable_line(&format!("sound     {line}")));
    }
    for line in &report.broken {
        text.push_str(&print::printable_line(&format!("BROKEN    {line}")));
    }
    if let Some(digest) = found.digest {
        let (applied, digest) = (thousands(opened.seq.get()), hex(&digest));
        text.push_str(&format!(
            "\nEverything verifies through frame {applied}.\ndigest {digest}\n"
        ));
    }
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::ingest::plan::{Layout, SchemaPlan};
    use crate::value::Span;

    fn empty_database(dir: &Path) -> Engine {
        let layout = Layout {
            signals: vec!["view".into()],
            engaging: Vec::new(),
            half_lives: vec![Duration::from_secs(3_600)],
            windows: vec![Span::Hour],
            families: vec![("country".into(), 8)],
        };
        Engine::open_or_create(dir, &SchemaPlan::Declared(layout), None).expect("a new directory")
    }

    #[test]
    fn the_status_of_an_empty_database_divides_nothing_by_zero() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let engine = empty_database(dir.path());
        let account = Account {
            status: engine.status(),
            signals: engine.signal_names(),
            cohorts: engine.cohort_names(),
            digest: "ab".into(),
        };
        let text = account.text(dir.path(), engine.open_report());
        for line in [
            "  signals       view\n",
            "  cohorts       country\n",
            "  store b",
            "  sessions",
            "  together",
        ] {
            assert!(text.contains(line), "{line:?} is missing from:\n{text}");
        }
        assert!(!text.contains("NaN") && !text.contains("inf"), "{text}");
        let json = account.json(engine.open_report());
        assert_eq!((&json["cells"], &json["cell_size_bytes"]), (&json!(0), &Value::Null));
        assert_eq!(json["stores"][1]["name"], "b");
        assert_eq!(json["sessions_open"], 0);
        assert!(json["sessions_size_bytes"].is_u64(), "{json:#}");
    }

    #[test]
    fn what_is_broken_is_told_and_has_no_digest() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        empty_database(dir.path()).close().expect("closes");
        let mut found = Engine::inspect(dir.path(), OnOpen::RestoreThenExpire).expect("readable");
        assert!(found.verified.is_sound(), "{found}");
        let sound = verify_text(&found);
        assert!(sound.contains("\nEverything verifies through frame "), "{sound}");
        found.verified.broken.push("store b: page 7 does not hash".into());
        found.digest = None;
        let broken = verify_text(&found);
        assert!(broken.ends_with("BROKEN    store b: page 7 does not hash\n"), "{broken}");
    }
}
