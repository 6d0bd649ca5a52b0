//! Output: tables for people, JSON for machines, progress for whoever watches.
//!
//! Knows: columns of text and terminals. Must not know: what the columns mean.

use std::io::{self, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Which way the cells of a column lean.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lean {
    /// Text.
    Left,
    /// Numbers.
    Right,
}

/// Rows under a header, columns as wide as their widest cell.
#[derive(Debug)]
pub(crate) struct Table {
    columns: Vec<(String, Lean)>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these columns and no rows.
    pub(crate) fn new(columns: &[(&str, Lean)]) -> Self {
        let columns = columns.iter().map(|(name, lean)| ((*name).to_owned(), *lean)).collect();
        Self { columns, rows: Vec::new() }
    }

    /// Adds a row.
    ///
    /// # Panics
    ///
    /// When the row has not one cell per column.
    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        let cells: Vec<String> = cells.into_iter().map(|cell| printable(&cell)).collect();
        assert_eq!(cells.len(), self.columns.len(), "a row has one cell per column");
        self.rows.push(cells);
    }

    /// The table as lines, each indented by two spaces.
    pub(crate) fn render(&self) -> String {
        let header: Vec<String> = self.columns.iter().map(|(name, _)| name.clone()).collect();
        let widths: Vec<usize> = (0..self.columns.len())
            .map(|column| {
                let cells = self.rows.iter().map(|row| &row[column]);
                cells.chain([&header[column]]).map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        let mut text = String::new();
        for row in std::iter::once(&header).chain(&self.rows) {
            let mut line = String::new();
            for ((cell, width), (_, lean)) in row.iter().zip(&widths).zip(&self.columns) {
                match lean {
                    Lean::Left => line.push_str(&format!("  {cell:<width$}")),
                    Lean::Right => line.push_str(&format!("  {cell:>width$}")),
                }
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// `text` with control characters escaped: names come from files and must not drive the terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() { safe.extend(c.escape_default()) } else { safe.push(c) }
    }
    safe
}

/// The same for a line that ends in a newline of its own.
pub(crate) fn printable_line(line: &str) -> String {
    printable(line.trim_end_matches('\n')) + "\n"
}

/// A score, count or velocity: whole numbers as such, others to three digits after the point.
pub(crate) fn value(value: f64) -> String {
    let is_whole = value.fract() == 0.0 && value.abs() < 1e15;
    if is_whole { format!("{value:.0}") } else { format!("{value:.3}") }
}

/// Writes `text` to standard output.
///
/// # Errors
///
/// When nobody reads it any more, or the disk behind a redirection is full.
pub(crate) fn out(text: &str) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(text.as_bytes())?;
    stdout.flush()
}

/// Writes `text` to standard error. If nobody can be told, the work goes on and the exit code tells.
pub(crate) fn note(text: &str) {
    let mut stderr = io::stderr().lock();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// Writes `value` to standard output as JSON.
///
/// # Errors
///
/// As [`out`].
pub(crate) fn json(value: &serde_json::Value) -> io::Result<()> {
    out(&format!("{value:#}\n"))
}

/// A bar on standard error that counts to `total`; invisible unless that is a terminal.
pub(crate) fn progress(total: Option<u64>, unit: Unit) -> ProgressBar {
    let target = if io::stderr().is_terminal() {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(total, target);
    let counts = match unit {
        Unit::Bytes => "{bytes}/{total_bytes}  {bytes_per_sec}",
        Unit::Events => "{human_pos}/{human_len} events  {per_sec}",
    };
    let template = match total {
        Some(_) => format!("  {{bar:40}} {counts}  {{msg}}"),
        None => "  {spinner} {bytes}  {bytes_per_sec}  {msg}".to_owned(),
    };
    // A template that indicatif refuses costs the bar's looks, nothing else.
    match ProgressStyle::with_template(&template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

/// What a progress bar counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes of input.
    Bytes,
    /// Events written.
    Events,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let mut table = Table::new(&[("#", Lean::Right), ("item", Lean::Left)]);
        table.row(["9".to_owned(), "lamp".to_owned()]);
        table.row(["10".to_owned(), "käse".to_owned()]);
        assert_eq!(table.render(), "   #  item\n   9  lamp\n  10  käse\n");
    }

    #[test]
    fn whole_values_are_printed_whole() {
        assert_eq!(value(12.0), "12");
        assert_eq!(value(-3.0), "-3");
        assert_eq!(value(0.12345), "0.123");
        assert_eq!(value(1e300), format!("{:.3}", 1e300));
    }

    #[test]
    fn a_name_cannot_drive_the_terminal() {
        assert_eq!(printable("a\u{1b}[31mb\n"), "a\\u{1b}[31mb\\n");
        assert_eq!(printable("Žluťoučký"), "Žluťoučký");
    }
}
