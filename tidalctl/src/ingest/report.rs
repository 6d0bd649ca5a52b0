//! What an ingest has to tell: counts, and the first bad lines.
//!
//! Knows: numbers and sentences. Must not know: how lines are read or events stored.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use crate::print::printable;
use crate::value::{counted, thousands};

/// Bad lines that are shown.
const SHOWN_MAX: usize = 10;

/// Lines that told of no event.
#[derive(Debug, Default)]
pub(crate) struct BadLines {
    count: u64,
    /// The first ones. The engine refuses a line later than the parser does, so they are sorted.
    shown: BTreeMap<u64, String>,
}

impl BadLines {
    /// Notes that `line` is bad.
    pub(crate) fn add(&mut self, line: u64, reason: impl Into<String>) {
        self.count += 1;
        self.shown.insert(line, reason.into());
        if self.shown.len() > SHOWN_MAX {
            self.shown.pop_last();
        }
    }

    /// How many there are.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<(u64, &str)> {
        self.shown.first_key_value().map(|(line, reason)| (*line, reason.as_str()))
    }

    /// The first ones, a line each.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (line, reason) in &self.shown {
            text.push_str(&format!("line {line}: {}\n", printable(reason)));
        }
        let hidden = self.count - self.shown.len() as u64;
        if hidden > 0 {
            text.push_str(&format!("and {}\n", counted(hidden, "more bad line")));
        }
        text
    }
}

/// The outcome of one ingest.
#[derive(Debug, Default)]
pub(crate) struct Summary {
    pub(crate) source: String,
    /// Lines read by this run, header and blank lines included.
    pub(crate) lines: u64,
    /// Events that count now and did not before.
    pub(crate) accepted: u64,
    /// Events whose id was known already.
    pub(crate) duplicates: u64,
    /// Lines passed over because an earlier run had stored them.
    pub(crate) skipped: u64,
    pub(crate) bad: BadLines,
    pub(crate) elapsed: Duration,
}

impl Summary {
    fn events_per_s(&self) -> u64 {
        let seconds = self.elapsed.as_secs_f64();
        if seconds > 0.0 { (self.accepted as f64 / seconds) as u64 } else { 0 }
    }

    /// One line for people.
    pub(crate) fn render(&self) -> String {
        let mut text = format!(
            "{}: {} read, {} accepted, {} bad, {} skipped as already applied",
            printable(&self.source),
            counted(self.lines, "line"),
            counted(self.accepted, "event"),
            thousands(self.bad.count()),
            thousands(self.skipped),
        );
        if self.duplicates > 0 {
            text.push_str(&format!(", {}", counted(self.duplicates, "duplicate id")));
        }
        let seconds = self.elapsed.as_secs_f64();
        text.push_str(&format!("; {seconds:.2} s, {} events/s\n", thousands(self.events_per_s())));
        text
    }

    /// The same for machines.
    pub(crate) fn json(&self) -> Value {
        let bad: Vec<Value> = self
            .bad
            .shown
            .iter()
            .map(|(line, reason)| json!({ "line": line, "reason": reason }))
            .collect();
        json!({
            "source": self.source,
            "lines": self.lines,
            "accepted": self.accepted,
            "duplicates": self.duplicates,
            "skipped": self.skipped,
            "bad": self.bad.count(),
            "first_bad": bad,
            "seconds": self.elapsed.as_secs_f64(),
            "events_per_s": self.events_per_s(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_ten_bad_lines_are_shown_in_order_whenever_they_were_found() {
        let mut bad = BadLines::default();
        for line in (1..=12).rev() {
            bad.add(line * 10, format!("reason {line}"));
        }
        assert_eq!(bad.count(), 12);
        assert_eq!(bad.first(), Some((10, "reason 1")));
        let text = bad.render();
        assert!(text.starts_with("line 10: reason 1\nline 20: reason 2\n"), "{text}");
        assert!(text.ends_with("line 100: reason 10\nand 2 more bad lines\n"), "{text}");
    }

    #[test]
    fn the_summary_names_every_count() {
        let mut summary = Summary {
            source: "events.csv".into(),
            lines: 12_001,
            accepted: 12_000,
            skipped: 5,
            elapsed: Duration::from_secs(2),
            ..Summary::default()
        };
        summary.bad.add(7, "no item");
        assert_eq!(
            summary.render(),
            "events.csv: 12,001 lines read, 12,000 events accepted, 1 bad, 5 skipped as already \
             applied; 2.00 s, 6,000 events/s\n"
        );
        assert_eq!(summary.json()["first_bad"][0]["line"], 7);
    }
}
