//! The log that is learnt from and the sessions that are foretold.
//!
//! Knows: sessions, times, which part a line belongs to. Must not know: the engine.

use std::collections::HashMap;
use std::path::Path;

use anyhow::Context as _;

use crate::failure::Failure;
use crate::ingest::columns::{Columns, Row, Wanted};
use crate::ingest::records::Records;
use crate::ingest::source::{self, Format};
use crate::ingest::{find_columns, plan};

/// A step of a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Click {
    pub(crate) at_ns: u64,
    pub(crate) session: u64,
    pub(crate) item: u64,
    pub(crate) signal: String,
    pub(crate) cohort: Option<String>,
}

/// Clicks in order of time; those of one moment in the order of their lines.
#[derive(Debug, Default)]
pub(crate) struct Log {
    pub(crate) train: Vec<Click>,
    pub(crate) test: Vec<Click>,
    /// Lines that are of another signal, have no session, or tell of no event.
    pub(crate) passed_over: u64,
}

/// Which lines are foretold.
#[derive(Debug)]
pub(crate) enum Test<'a> {
    /// Those of another file.
    File(&'a Path),
    /// The sessions of the log that begin at this time or later, in nanoseconds since the epoch.
    From(u64),
}

/// Reads both parts.
///
/// # Errors
///
/// When a file cannot be read, has none of the columns, or nothing is left to learn from or to foretell.
pub(crate) fn read(
    train: &Path,
    test: &Test<'_>,
    format: Option<Format>,
    wanted: &Wanted,
    signals: &[String],
) -> anyhow::Result<Log> {
    let mut log = Log::default();
    let mut rows = read_rows(train, format, wanted, signals, &mut log.passed_over)?;
    let of_train = rows.len();
    if let Test::File(file) = test {
        rows.extend(read_rows(file, format, wanted, signals, &mut log.passed_over)?);
    }
    let clicks = number(rows);
    let begins = begins(&clicks);
    for (at, click) in clicks.into_iter().enumerate() {
        let is_test = match test {
            Test::File(_) => at >= of_train,
            Test::From(time_ns) => begins[&click.session] >= *time_ns,
        };
        if is_test { &mut log.test } else { &mut log.train }.push(click);
    }
    log.train.sort_by_key(|click| click.at_ns);
    log.test.sort_by_key(|click| click.at_ns);
    match (log.train.is_empty(), log.test.is_empty()) {
        (false, false) => Ok(log),
        (true, _) => Err(Failure::failed("there is nothing to learn from")
            .hint(
                "check the columns and --signals; with --test-from, that sessions begin before it",
            )
            .into()),
        (_, true) => Err(Failure::failed("there is nothing to foretell")
            .hint("check the columns and --signals; with --test-from, that sessions begin after it")
            .into()),
    }
}

fn read_rows(
    file: &Path,
    format: Option<Format>,
    wanted: &Wanted,
    signals: &[String],
    passed_over: &mut u64,
) -> anyhow::Result<Vec<Row>> {
    let format = plan::format(file, format)?;
    let mut records = Records::new(source::open(file)?.reader, format);
    let columns: Columns = find_columns(wanted, format, false, file, &mut records)?;
    let mut rows = Vec::new();
    while let Some(record) = records.next().with_context(|| file.display().to_string())? {
        match columns.row(&record) {
            Ok(row) if row.user.is_some() && signals.contains(&row.signal) => rows.push(row),
            _ => *passed_over += 1,
        }
    }
    Ok(rows)
}

/// Gives items and sessions numbers, items in their order: as numbers, where all of them are some.
fn number(rows: Vec<Row>) -> Vec<Click> {
    let mut items: Vec<&str> = rows.iter().map(|row| row.item.as_str()).collect();
    items.sort_unstable();
    items.dedup();
    if items.iter().all(|item| item.parse::<u64>().is_ok()) {
        items.sort_by_key(|item| item.parse::<u64>().ok());
    }
    let items: HashMap<String, u64> =
        (1..).zip(items).map(|(n, item)| (item.to_owned(), n)).collect();
    let mut sessions: HashMap<String, u64> = HashMap::new();
    let mut click = |row: Row| {
        let next = sessions.len() as u64 + 1;
        let session = *sessions.entry(row.user.unwrap_or_default()).or_insert(next);
        let item = items[&row.item];
        Click { at_ns: row.at_ns, session, item, signal: row.signal, cohort: row.cohort }
    };
    rows.into_iter().map(&mut click).collect()
}

/// When each session begins.
fn begins(clicks: &[Click]) -> HashMap<u64, u64> {
    let mut begins: HashMap<u64, u64> = HashMap::new();
    for click in clicks {
        let begin = begins.entry(click.session).or_insert(u64::MAX);
        *begin = click.at_ns.min(*begin);
    }
    begins
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::columns::SignalFrom;
    use crate::time::TimeUnit;

    fn wanted() -> Wanted {
        Wanted {
            item: "i".to_owned(),
            time: "t".to_owned(),
            time_unit: TimeUnit::S,
            signal: SignalFrom::Column("s".to_owned()),
            user: Some("u".to_owned()),
            cohort: None,
            weight: None,
            event_id: None,
        }
    }

    fn read_from(text: &str, from_ns: u64) -> anyhow::Result<Log> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let file = dir.path().join("log.csv");
        std::fs::write(&file, text).expect("written");
        read(&file, &Test::From(from_ns), None, &wanted(), &["view".to_owned()])
    }

    const LOG: &str =
        "u,i,t,s\na,10,5,view\nb,9,4,view\na,9,2,view\nb,10,9,buy\n,9,9,view\nb,9,x,view\n";

    #[test]
    fn sessions_are_parted_by_when_they_begin_and_clicks_are_in_order_of_time() {
        let log = read_from(LOG, 4_000_000_000).expect("read");
        let of = |clicks: &[Click]| -> Vec<(u64, u64)> {
            clicks.iter().map(|click| (click.session, click.item)).collect()
        };
        assert_eq!(of(&log.train), [(1, 1), (1, 2)], "items are numbered as numbers");
        assert_eq!(of(&log.test), [(2, 1)]);
        assert_eq!(log.passed_over, 3, "another signal, no session, no time");
    }

    #[test]
    fn nothing_to_learn_from_and_nothing_to_foretell_are_refused() {
        assert!(read_from(LOG, 0).expect_err("all is test").to_string().contains("learn"));
        assert!(
            read_from(LOG, u64::MAX).expect_err("all is train").to_string().contains("foretell")
        );
    }
}
