//! Plan files.
//!
//! Knows: what a plan looks like when it is written down. Must not know: how one is made or carried out.
//!
//! A plan file is one JSON object. `format`, `version` and `kind` say what it is, `database` of which
//! database it is; the rest belongs to its kind. Numbers that may be beyond 2^53 are texts. An item may have
//! members beyond those that are read here: they tell a person which session it is.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use crate::engine::{
    PlannedPrune, PlannedReprocess, PlannedReset, SessionId, Task, Timestamp, hex,
};
use crate::failure::Failure;

const FORMAT: &str = "tidal plan";
const VERSION: u64 = 1;

const PRUNE: &str = "prune";
const RESET: &str = "reset";
const REQUEUE: &str = "requeue";
const REPROCESS: &str = "reprocess";

/// Of which database a plan is, and what it is for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Plan {
    pub(super) database: String,
    pub(super) task: Task,
}

/// Why a file is no plan that can be carried out.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is something else.
    Foreign,
    /// It is a plan, and this program is too old for it.
    Newer(String),
    /// It was a plan, and something in it cannot be read.
    Damaged(String),
}

impl Wrong {
    pub(super) fn in_file(self, path: &Path) -> Failure {
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

fn missing(name: &str) -> Wrong {
    Wrong::Damaged(format!("its {name} is missing or wrong"))
}

/// The word for what a plan is for.
pub(super) const fn kind(task: &Task) -> &'static str {
    match task {
        Task::Prune { .. } => PRUNE,
        Task::Reset { .. } => RESET,
        Task::Requeue { .. } => REQUEUE,
        Task::Reprocess { .. } => REPROCESS,
    }
}

impl Plan {
    /// The file, with what `tell` tells of each session for people.
    ///
    /// # Errors
    ///
    /// Those of `tell`.
    pub(super) fn to_json(
        &self,
        made_at_ns: u64,
        tell: impl Fn(SessionId) -> anyhow::Result<Value>,
    ) -> anyhow::Result<Value> {
        let item = |session: SessionId, own: Value| {
            let mut item = json!({ "session": session.to_string() });
            merge(&mut item, tell(session)?);
            merge(&mut item, own);
            Ok(item)
        };
        let (own, items): (Value, anyhow::Result<Vec<Value>>) = match &self.task {
            Task::Prune { older_than, items } => (
                json!({ "older_than_ns": nanos(*older_than).to_string() }),
                items
                    .iter()
                    .map(|it| {
                        let content_hash = hex(&it.content_hash);
                        let own = json!({ "records": it.records, "content_hash": content_hash });
                        item(it.session, own)
                    })
                    .collect(),
            ),
            Task::Reset { by, reason, items } => (
                json!({ "by": by, "reason": reason }),
                items
                    .iter()
                    .map(|it| {
                        let busy_since = it.busy_since.map(|at| at.as_nanos().to_string());
                        let age_ns = nanos(it.for_so_long).to_string();
                        item(it.session, json!({ "busy_since_ns": busy_since, "age_ns": age_ns }))
                    })
                    .collect(),
            ),
            Task::Requeue { items } => {
                (json!({}), items.iter().map(|id| item(*id, json!({}))).collect())
            }
            Task::Reprocess { processor, items } => (
                json!({ "processor": processor }),
                items
                    .iter()
                    .map(|it| {
                        let done = it.committed_at.map(|at| at.as_nanos().to_string());
                        item(it.session, json!({ "committed_at_ns": done }))
                    })
                    .collect(),
            ),
        };
        let mut file = json!({
            "format": FORMAT,
            "version": VERSION,
            "kind": kind(&self.task),
            "database": self.database,
            "made_at_ns": made_at_ns.to_string(),
        });
        merge(&mut file, own);
        file["items"] = Value::Array(items?);
        Ok(file)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, Wrong> {
        let file: Value = serde_json::from_slice(text).map_err(|_| Wrong::Foreign)?;
        if file["format"] != FORMAT {
            return Err(Wrong::Foreign);
        }
        if file["version"] != VERSION {
            let version = &file["version"];
            return Err(Wrong::Newer(format!("version {version}; this program knows {VERSION}")));
        }
        let task = match file["kind"].as_str() {
            Some(PRUNE) => Task::Prune {
                older_than: Duration::from_nanos(number(&file, "older_than_ns")?),
                items: items(&file, prune)?,
            },
            Some(RESET) => Task::Reset {
                by: text_of(&file, "by")?,
                reason: text_of(&file, "reason")?,
                items: items(&file, reset)?,
            },
            Some(REQUEUE) => Task::Requeue { items: items(&file, session)? },
            Some(REPROCESS) => Task::Reprocess {
                processor: text_of(&file, "processor")?,
                items: items(&file, reprocess)?,
            },
            _ => {
                let known = [PRUNE, RESET, REQUEUE, REPROCESS].join(", ");
                let kind = &file["kind"];
                return Err(Wrong::Newer(format!("kind {kind}; this program knows {known}")));
            }
        };
        Ok(Self { database: text_of(&file, "database")?, task })
    }
}

fn merge(into: &mut Value, more: Value) {
    let (Value::Object(into), Value::Object(more)) = (into, more) else {
        unreachable!("members are merged into members");
    };
    into.extend(more);
}

fn items<T>(file: &Value, read: impl Fn(&Value) -> Result<T, Wrong>) -> Result<Vec<T>, Wrong> {
    let items = file["items"].as_array().ok_or_else(|| missing("items"))?;
    let item = |(at, value): (usize, &Value)| {
        read(value).map_err(|_| Wrong::Damaged(format!("item {} is wrong", at + 1)))
    };
    items.iter().enumerate().map(item).collect()
}

fn session(item: &Value) -> Result<SessionId, Wrong> {
    number(item, "session").map(SessionId::new)
}

fn prune(item: &Value) -> Result<PlannedPrune, Wrong> {
    Ok(PlannedPrune {
        session: session(item)?,
        content_hash: hash(&text_of(item, "content_hash")?).ok_or_else(|| missing("hash"))?,
        records: item["records"].as_u64().ok_or_else(|| missing("records"))?,
    })
}

fn reprocess(item: &Value) -> Result<PlannedReprocess, Wrong> {
    let committed_at = moment(item, "committed_at_ns")?;
    Ok(PlannedReprocess { session: session(item)?, committed_at })
}

/// A moment that there may not be.
fn moment(item: &Value, name: &str) -> Result<Option<Timestamp>, Wrong> {
    match &item[name] {
        Value::Null => Ok(None),
        _ => number(item, name).map(Timestamp::from_nanos).map(Some),
    }
}

fn reset(item: &Value) -> Result<PlannedReset, Wrong> {
    let busy_since = moment(item, "busy_since_ns")?;
    let for_so_long = Duration::from_nanos(number(item, "age_ns")?);
    Ok(PlannedReset { session: session(item)?, busy_since, for_so_long })
}

fn text_of(value: &Value, name: &str) -> Result<String, Wrong> {
    value[name].as_str().map(str::to_owned).ok_or_else(|| missing(name))
}

fn number(value: &Value, name: &str) -> Result<u64, Wrong> {
    value[name].as_str().and_then(|text| text.parse().ok()).ok_or_else(|| missing(name))
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

    const IDS: [SessionId; 2] = [SessionId::new(1), SessionId::new(u64::MAX)];

    fn tasks() -> [Task; 4] {
        let prune = |session| PlannedPrune { session, content_hash: [15; 32], records: 3 };
        let since = Timestamp::from_nanos(u64::MAX);
        let reset = |(session, busy_since)| {
            let for_so_long = Duration::from_nanos(1 << 60);
            PlannedReset { session, busy_since, for_so_long }
        };
        let (by, reason, processor) = ("me".to_owned(), String::new(), "usage".to_owned());
        let resets = [(IDS[0], None), (IDS[1], Some(since))].map(reset).to_vec();
        let reprocess = |(session, committed_at)| PlannedReprocess { session, committed_at };
        let reprocesses = [(IDS[0], None), (IDS[1], Some(since))].map(reprocess).to_vec();
        [
            Task::Prune { older_than: Duration::from_nanos(7), items: IDS.map(prune).to_vec() },
            Task::Reset { by, reason, items: resets },
            Task::Requeue { items: IDS.to_vec() },
            Task::Reprocess { processor, items: reprocesses },
        ]
    }

    fn file(task: Task) -> Value {
        let plan = Plan { database: "ab".to_owned(), task };
        plan.to_json(9, |session| Ok(json!({ "user": format!("of {session}") }))).expect("told")
    }

    fn parse(file: &Value) -> Result<Plan, Wrong> {
        Plan::parse(file.to_string().as_bytes())
    }

    #[test]
    fn what_was_written_down_is_read_back() {
        for task in tasks() {
            let file = file(task.clone());
            assert_eq!(file["items"][0]["user"], "of 1");
            assert_eq!(parse(&file), Ok(Plan { database: "ab".to_owned(), task }));
        }
    }

    #[test]
    fn a_file_of_something_else_of_a_later_program_or_with_a_fault_is_told_apart() {
        let with = |at: usize, name: &str, value: Value| {
            let mut file = file(tasks()[at].clone());
            file[name] = value;
            parse(&file).expect_err(name)
        };
        assert_eq!(Plan::parse(b"{"), Err(Wrong::Foreign));
        assert_eq!(Plan::parse(b"[]"), Err(Wrong::Foreign));
        assert_eq!(with(0, "format", json!("tar")), Wrong::Foreign);
        assert!(matches!(with(0, "version", json!(2)), Wrong::Newer(_)));
        assert!(matches!(with(0, "kind", json!("polish")), Wrong::Newer(_)));
        for (at, name, value) in [
            (0, "database", json!(7)),
            (0, "older_than_ns", json!("-1")),
            (0, "items", json!(null)),
            (0, "items", json!([{ "session": "1", "records": 3, "content_hash": "0f" }])),
            (
                0,
                "items",
                json!([{ "session": "1", "records": 3, "content_hash": "+f".repeat(32) }]),
            ),
            (0, "items", json!([{ "session": 1, "records": 3, "content_hash": "0f".repeat(32) }])),
            (1, "by", json!(null)),
            (1, "items", json!([{ "session": "1", "busy_since_ns": 5, "age_ns": "1" }])),
            (2, "items", json!([{ "session": "one" }])),
            (3, "processor", json!(null)),
            (3, "items", json!([{ "session": "1", "committed_at_ns": true }])),
        ] {
            assert!(matches!(with(at, name, value), Wrong::Damaged(_)), "{name}");
        }
    }
}
