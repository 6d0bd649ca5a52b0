//! Rows as lines of JSON.
//!
//! Knows: how a value is written. Must not know: what it means.
//!
//! Numbers that name something, and times, are texts: most readers of JSON are exact up to 2^53 only.

use std::io::Write;

use serde_json::Value;

use super::{Cell, Column, Kind};

/// Writes a row as a line, its members in the order of the columns.
///
/// # Errors
///
/// When `out` takes no more.
pub(crate) fn write(columns: &[Column], row: &[Cell], out: &mut dyn Write) -> anyhow::Result<()> {
    assert_eq!(columns.len(), row.len(), "a row has one cell per column");
    let mut line = String::from("{");
    for (at, (column, cell)) in columns.iter().zip(row).enumerate() {
        let comma = if at == 0 { "" } else { "," };
        line.push_str(&format!("{comma}\"{}\":{}", column.name, value(column.kind, cell)));
    }
    line.push_str("}\n");
    Ok(out.write_all(line.as_bytes())?)
}

fn value(kind: Kind, cell: &Cell) -> Value {
    match cell {
        Cell::Null => Value::Null,
        Cell::Number(number) if matches!(kind, Kind::Id | Kind::Time) => number.to_string().into(),
        Cell::Number(number) => (*number).into(),
        Cell::Real(real) => (*real).into(),
        Cell::Text(text) => text.as_str().into(),
        Cell::Flag(flag) => (*flag).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn large_numbers_are_texts_counts_are_numbers_and_texts_are_escaped() {
        let column = |name, kind| Column { name, kind };
        let columns = [
            column("id", Kind::Id),
            column("count", Kind::Count),
            column("text", Kind::Text),
            column("real", Kind::Real),
            column("none", Kind::Text),
        ];
        let row = [u64::MAX.into(), 7_u64.into(), "a\"\n".into(), 0.5.into(), Cell::Null];
        let mut out = Vec::new();
        write(&columns, &row, &mut out).expect("memory takes everything");
        let expected = concat!(
            r#"{"id":"18446744073709551615","count":7,"text":"a\"\n","real":0.5,"none":null}"#,
            "\n"
        );
        assert_eq!(String::from_utf8_lossy(&out), expected);
    }
}
