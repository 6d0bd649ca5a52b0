//! Rows into the engine: batches, ids, and which row spoilt one.
//!
//! Knows: batches and their order. Must not know: how a row was read.
//!
//! A batch is one atomic frame with its position in the source, so a refused batch wrote nothing,
//! and its rows are offered again one by one: that finds the bad ones and keeps the others. For the
//! positions to stay in order the next batch is submitted only after the one before is settled;
//! while a batch is being synced the next one is read and parsed.

use std::collections::HashMap;

use super::columns::{Row, USER_PREFIX};
use super::report::Summary;
use crate::engine::{Engine, EventBatch, NewEvent, Pending, Rejection, Taken};
use crate::failure::Failure;

/// Lines of one batch.
const BATCH_LINES: u64 = 1_000;
/// Users that are text have this bit set, so that they never meet a user that is a number.
pub(crate) const TEXT_USER_BIT: u64 = 1 << 63;

/// Writes rows in batches.
pub(crate) struct Loader<'e> {
    engine: &'e Engine,
    is_strict: bool,
    has_event_time: bool,
    pub(crate) summary: Summary,
    /// The first position that no batch has covered.
    next_first: u64,
    rows: Vec<Row>,
    in_flight: Option<(Pending, Vec<Row>)>,
    /// Numbers of the texts met so far.
    ids: HashMap<String, u64>,
    /// Signals met so far, with the reason where one is unknown.
    signals: HashMap<String, Result<(), String>>,
    /// The time of the newest accepted event.
    pub(crate) newest_ns: u64,
}

impl<'e> Loader<'e> {
    /// A loader that goes on after position `stored` of `source`.
    pub(crate) fn new(engine: &'e Engine, source: &str, stored: u64, is_strict: bool) -> Self {
        Self {
            engine,
            is_strict,
            has_event_time: engine.has_event_time(),
            summary: Summary { source: source.to_owned(), ..Summary::default() },
            next_first: stored + 1,
            rows: Vec::new(),
            in_flight: None,
            ids: HashMap::new(),
            signals: HashMap::new(),
            newest_ns: 0,
        }
    }

    /// Takes what a record turned out to be. `true` when a batch was sent.
    ///
    /// # Errors
    ///
    /// When the engine fails, and with `--strict` when the record is bad.
    pub(crate) fn take(
        &mut self,
        first_line: u64,
        last_line: u64,
        row: Result<Row, String>,
    ) -> anyhow::Result<bool> {
        match row.and_then(|row| self.known_signal(row)).and_then(|row| self.believable(row)) {
            Ok(row) => self.rows.push(row),
            Err(reason) => self.refuse(first_line, reason)?,
        }
        let is_full = last_line - self.next_first + 1 >= BATCH_LINES && !self.rows.is_empty();
        if is_full {
            self.flush(last_line)?;
        }
        Ok(is_full)
    }

    /// Writes the rest and waits for it.
    ///
    /// # Errors
    ///
    /// As [`take`](Self::take).
    pub(crate) fn finish(&mut self) -> anyhow::Result<()> {
        if let Some(last) = self.rows.last().map(|row| row.last_line) {
            self.flush(last)?;
        }
        self.settle()
    }

    fn known_signal(&mut self, row: Row) -> Result<Row, String> {
        let known = match self.signals.get(&row.signal) {
            Some(known) => known.clone(),
            None => {
                let known = self.engine.check_signal(&row.signal);
                self.signals.insert(row.signal.clone(), known.clone());
                known
            }
        };
        known.map(|()| row)
    }

    fn believable(&self, row: Row) -> Result<Row, String> {
        if self.has_event_time {
            self.engine.check_time(row.at_ns)?;
        }
        Ok(row)
    }

    /// Notes a bad line; with `--strict` it is the last one.
    fn refuse(&mut self, line: u64, reason: String) -> anyhow::Result<()> {
        self.summary.bad.add(line, reason);
        if !self.is_strict {
            return Ok(());
        }
        // What stands before the bad line is good and is kept.
        self.rows.retain(|row| row.first_line < line);
        self.finish()?;
        let (line, reason) = self.summary.bad.first().expect("one was just added");
        Err(Failure::failed(format!("line {line}: {reason}"))
            .hint("the lines before it are stored; correct it and run the same command again")
            .into())
    }

    fn flush(&mut self, last: u64) -> anyhow::Result<()> {
        self.settle()?;
        let rows = std::mem::take(&mut self.rows);
        let first = std::mem::replace(&mut self.next_first, last + 1);
        match self.submit(&rows, first, last) {
            Ok(pending) => self.in_flight = Some((pending, rows)),
            Err(Rejection::BadInput(_)) => self.one_by_one(rows)?,
            Err(Rejection::Failed(error)) => return Err(error),
        }
        Ok(())
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let Some((pending, rows)) = self.in_flight.take() else { return Ok(()) };
        match pending.wait() {
            Ok(taken) => {
                self.account(taken, &rows);
                Ok(())
            }
            Err(Rejection::BadInput(_)) => self.one_by_one(rows),
            Err(Rejection::Failed(error)) => Err(error),
        }
    }

    /// Offers the rows of a refused batch alone.
    fn one_by_one(&mut self, rows: Vec<Row>) -> anyhow::Result<()> {
        for row in rows {
            let (first_line, at) = (row.first_line, row.last_line);
            let row = [row];
            let taken = self.submit(&row, at, at).and_then(Pending::wait);
            match taken {
                Ok(taken) => self.account(taken, &row),
                Err(Rejection::Failed(error)) => return Err(error),
                Err(Rejection::BadInput(reason)) => {
                    if self.is_strict {
                        // Rows that were read after this one must not be written before it.
                        self.rows.clear();
                    }
                    self.refuse(first_line, reason)?;
                }
            }
        }
        Ok(())
    }

    fn account(&mut self, taken: Taken, rows: &[Row]) {
        match taken {
            Taken::Applied { duplicates } => {
                self.summary.accepted += rows.len() as u64 - duplicates;
                self.summary.duplicates += duplicates;
            }
            Taken::AlreadyApplied => self.summary.skipped += rows.len() as u64,
        }
        let newest_ns = rows.iter().map(|row| row.at_ns).max().unwrap_or(0);
        self.newest_ns = self.newest_ns.max(newest_ns);
    }

    fn submit(&mut self, rows: &[Row], first: u64, last: u64) -> Result<Pending, Rejection> {
        self.learn_ids(rows)?;
        let mut batch = EventBatch::from_source(&self.summary.source, first, last);
        for row in rows {
            batch.push(&NewEvent {
                signal: &row.signal,
                item: self.ids[&row.item],
                at_ns: row.at_ns,
                weight: row.weight,
                user: row.user.as_deref().map(|user| match user_number(user) {
                    Some(number) => number,
                    None => self.ids[&user_text(user)] | TEXT_USER_BIT,
                }),
                cohort: row.cohort.as_deref(),
                event_id: row.event_id.as_deref().map(str::as_bytes),
            });
        }
        self.engine.submit(batch)
    }

    /// Gets numbers for the texts of `rows` that have none here yet.
    fn learn_ids(&mut self, rows: &[Row]) -> Result<(), Rejection> {
        let mut missing: Vec<String> = Vec::new();
        for row in rows {
            if !self.ids.contains_key(&row.item) {
                missing.push(row.item.clone());
            }
            if let Some(user) = row.user.as_deref().filter(|user| user_number(user).is_none()) {
                let text = user_text(user);
                if !self.ids.contains_key(&text) {
                    missing.push(text);
                }
            }
        }
        if missing.is_empty() {
            return Ok(());
        }
        missing.sort_unstable();
        missing.dedup();
        let texts: Vec<&str> = missing.iter().map(String::as_str).collect();
        let ids = self.engine.intern(&texts)?;
        self.ids.extend(missing.into_iter().zip(ids));
        Ok(())
    }
}

/// What a user whose name is a text is called in the dictionary.
pub(crate) fn user_text(user: &str) -> String {
    format!("{USER_PREFIX}{user}")
}

/// The user's number, where the text is one as numbers are written: `007` is another user than `7`.
pub(crate) fn user_number(text: &str) -> Option<u64> {
    let is_plain = text.bytes().all(|byte| byte.is_ascii_digit())
        && (text.len() == 1 || !text.starts_with('0'));
    let number = text.parse().ok().filter(|number| number & TEXT_USER_BIT == 0);
    number.filter(|_| is_plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_numbers_as_numbers_are_written_are_user_numbers() {
        assert_eq!(user_number("0"), Some(0));
        assert_eq!(user_number("13085"), Some(13_085));
        assert_eq!(user_number("9223372036854775807"), Some(TEXT_USER_BIT - 1));
        for text in ["9223372036854775808", "007", "+7", "-7", "7.0", " 7", "bob", "٣"] {
            assert_eq!(user_number(text), None, "{text}");
        }
    }
}
