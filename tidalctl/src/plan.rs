//! `tidalctl plan` and `apply`: what is to be done, written down, looked at, and then done.
//!
//! Knows: plan files. Must not know: what makes a session old enough, nor how it is changed.
//!
//! A plan file is one JSON object. `format`, `version` and `kind` say what it is, `database` of which
//! database it is; the rest belongs to its kind. Numbers that may be beyond 2^53 are texts.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cli::{ApplyArgs, PlanCommand, PlanPruneArgs};
use crate::engine::{Applied, Engine, PlannedPrune, SessionId, SkipReason, hex};
use crate::failure::Failure;
use crate::files;
use crate::print::{self, Lean, Table};
use crate::time::format_point;
use crate::value::thousands;

const FORMAT: &str = "tidal plan";
const VERSION: u64 = 1;
const PRUNE: &str = "prune";

/// Sessions of a plan that are shown to a person.
const SHOWN: usize = 20;

/// Carries out `tidalctl plan`.
///
/// # Errors
///
/// When something lies where the plan is to be, or the database cannot be copied or opened.
pub(crate) fn run(command: &PlanCommand) -> anyhow::Result<()> {
    match command {
        PlanCommand::Prune(args) => plan_prune(args),
    }
}

fn plan_prune(args: &PlanPruneArgs) -> anyhow::Result<()> {
    files::expect_free(&args.out)?;
    let look = Engine::look_as_opened(&args.of.dir)?;
    let plan = look.plan_prune(args.older_than)?;
    let items = plan.items().iter().map(|item| describe(&look, item)).collect::<Result<_, _>>()?;
    let file = json!({
        "format": FORMAT,
        "version": VERSION,
        "kind": PRUNE,
        "database": look.database(),
        "made_at_ns": look.time_ns().to_string(),
        "older_than_ns": nanos(args.older_than).to_string(),
        "items": Value::Array(items),
    });
    files::write_new(&args.out, |out| Ok(writeln!(out, "{file:#}")?))?;
    if args.of.json {
        return Ok(print::json(&json!({
            "sessions": plan.items().len(),
            "records": plan.records(),
            "out": args.out.display().to_string(),
        }))?);
    }
    Ok(print::out(&plan_text(&file, args))?)
}

/// An item of the file: what `apply` checks, and what tells a person which session it is.
fn describe(engine: &Engine, item: &PlannedPrune) -> anyhow::Result<Value> {
    let info = engine.session(item.session.get())?;
    Ok(json!({
        "session": item.session.to_string(),
        "user": engine.user_name(info.user.get()),
        "ended_at_ns": info.state.end().map(|end| end.at.as_nanos().to_string()),
        "records": item.records,
        "content_hash": hex(&item.content_hash),
    }))
}

fn plan_text(file: &Value, args: &PlanPruneArgs) -> String {
    let items = file["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let records = items.iter().filter_map(|item| item["records"].as_u64()).sum();
    let mut table = Table::new(&[
        ("session", Lean::Right),
        ("user", Lean::Left),
        ("ended", Lean::Left),
        ("records", Lean::Right),
    ]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for item in items.iter().take(SHOWN) {
        let ended_ns = text(&item["ended_at_ns"]).parse().unwrap_or(0);
        let cells = [text(&item["session"]), text(&item["user"]), format_point(ended_ns)];
        table.row(cells.into_iter().chain([item["records"].to_string()]));
    }
    let sessions = thousands(items.len() as u64);
    let mut said =
        format!("It would forget {} records of {sessions} sessions.\n", thousands(records));
    if !items.is_empty() {
        said.push_str(&table.render());
    }
    if items.len() > SHOWN {
        said.push_str(&format!("  and {} more\n", thousands((items.len() - SHOWN) as u64)));
    }
    let (out, dir) = (args.out.display(), args.of.dir.display());
    let next = format!("Nothing is done yet: tidalctl apply {out} --dir {dir}");
    said + &print::printable_line(&next)
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
        let dir = args.of.dir.display();
        return Err(Failure::failed(format!(
            "{} is a plan for database {}, and {dir} is database {database}",
            path.display(),
            plan.database
        ))
        .hint(format!("name the --dir that it was made for, or make one with tidalctl plan {PRUNE} --dir {dir}"))
        .into());
    }
    let engine = Engine::open(&args.of.dir)?;
    let applied = engine.prune(plan.older_than, plan.items)?;
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
        SkipReason::StateMoved => ("state_moved", "it was pruned already"),
        SkipReason::ContentMoved => ("content_moved", "its content is not what it was"),
        SkipReason::TooYoung => ("too_young", "its end is not so long ago, by the clock of now"),
        SkipReason::Awaited => ("awaited", "a cursor has yet to acknowledge an event of it"),
        _ => ("other", "the database says no"),
    }
}

/// What a plan file says.
#[derive(Debug, PartialEq, Eq)]
struct Plan {
    database: String,
    older_than: Duration,
    items: Vec<PlannedPrune>,
}

/// Why a file is no plan that can be carried out.
#[derive(Debug, PartialEq, Eq)]
enum Wrong {
    /// It is something else.
    Foreign,
    /// It is a plan, and this program is too old for it.
    Newer(String),
    /// It was a plan, and something in it cannot be read.
    Damaged(String),
}

impl Wrong {
    fn in_file(self, path: &Path) -> Failure {
        let path = path.display();
        let again = "make it again with tidalctl plan";
        match self {
            Self::Foreign => Failure::failed(format!("{path} is not a plan")).hint(again),
            Self::Newer(what) => Failure::failed(format!("{path} is a plan of {what}")).hint(
                "use the tidalctl that made it, or make it again with this one's tidalctl plan",
            ),
            Self::Damaged(what) => {
                Failure::failed(format!("{path} cannot be read: {what}")).hint(again)
            }
        }
    }
}

impl Plan {
    fn parse(text: &[u8]) -> Result<Self, Wrong> {
        let file: Value = serde_json::from_slice(text).map_err(|_| Wrong::Foreign)?;
        if file["format"] != FORMAT {
            return Err(Wrong::Foreign);
        }
        if file["version"] != VERSION {
            return Err(Wrong::Newer(format!(
                "version {}; this program knows {VERSION}",
                file["version"]
            )));
        }
        if file["kind"] != PRUNE {
            return Err(Wrong::Newer(format!(
                "kind {}; this program knows \"{PRUNE}\"",
                file["kind"]
            )));
        }
        let missing = |name: &str| Wrong::Damaged(format!("its {name} is missing or wrong"));
        let older_than = number(&file["older_than_ns"]).ok_or_else(|| missing("older_than_ns"))?;
        let items = file["items"].as_array().ok_or_else(|| missing("items"))?;
        let item = |(at, value): (usize, &Value)| {
            planned(value).ok_or_else(|| Wrong::Damaged(format!("item {} is wrong", at + 1)))
        };
        Ok(Self {
            database: file["database"].as_str().ok_or_else(|| missing("database"))?.to_owned(),
            older_than: Duration::from_nanos(older_than),
            items: items.iter().enumerate().map(item).collect::<Result<_, _>>()?,
        })
    }
}

fn planned(item: &Value) -> Option<PlannedPrune> {
    Some(PlannedPrune {
        session: SessionId::new(number(&item["session"])?),
        content_hash: hash(item["content_hash"].as_str()?)?,
        records: item["records"].as_u64()?,
    })
}

fn number(value: &Value) -> Option<u64> {
    value.as_str()?.parse().ok()
}

fn hash(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut hash = [0; 32];
    for (at, byte) in hash.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[2 * at..2 * at + 2], 16).ok()?;
    }
    Some(hash)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file() -> Value {
        json!({
            "format": FORMAT, "version": 1, "kind": "prune", "database": "ab", "older_than_ns": "7",
            "items": [{ "session": "18446744073709551615", "records": 3, "content_hash": "0f".repeat(32) }],
        })
    }

    fn parse(file: &Value) -> Result<Plan, Wrong> {
        Plan::parse(file.to_string().as_bytes())
    }

    #[test]
    fn what_was_written_down_is_read_back() {
        let plan = parse(&file()).expect("good");
        let session = SessionId::new(u64::MAX);
        let items = vec![PlannedPrune { session, content_hash: [15; 32], records: 3 }];
        let older_than = Duration::from_nanos(7);
        assert_eq!(plan, Plan { database: "ab".to_owned(), older_than, items });
    }

    #[test]
    fn a_file_of_something_else_of_a_later_program_or_with_a_fault_is_told_apart() {
        let with = |name: &str, value: Value| {
            let mut file = file();
            file[name] = value;
            parse(&file).expect_err(name)
        };
        assert_eq!(Plan::parse(b"{"), Err(Wrong::Foreign));
        assert_eq!(Plan::parse(b"[]"), Err(Wrong::Foreign));
        assert_eq!(with("format", json!("tar")), Wrong::Foreign);
        assert!(matches!(with("version", json!(2)), Wrong::Newer(_)));
        assert!(matches!(with("kind", json!("requeue")), Wrong::Newer(_)));
        for (name, value) in [
            ("database", json!(7)),
            ("older_than_ns", json!("-1")),
            ("items", json!(null)),
            ("items", json!([{ "session": "1", "records": 3, "content_hash": "0f" }])),
            ("items", json!([{ "session": "1", "records": 3, "content_hash": "+f".repeat(32) }])),
            ("items", json!([{ "session": 1, "records": 3, "content_hash": "0f".repeat(32) }])),
        ] {
            assert!(matches!(with(name, value), Wrong::Damaged(_)), "{name}");
        }
    }
}
