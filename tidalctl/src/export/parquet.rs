//! Rows as a Parquet file.
//!
//! Knows: the types of Parquet. Must not know: what the columns mean.
//!
//! Numbers are INT64 annotated as unsigned, times INT64 annotated as nanoseconds of UTC. (Times after the
//! year 2262 have no such value, and are empty.) Every column is optional, and none is compressed.

use std::io::Write;
use std::sync::Arc;

use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DataType, DoubleType, Int64Type};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::schema::parser::parse_message_type;

use super::{Cell, Column, Kind};

/// Rows of a row group: what is held in memory at once.
const GROUP_ROWS: usize = 1 << 16;

/// A file that is being written.
pub(crate) struct File<'a> {
    writer: SerializedFileWriter<&'a mut (dyn Write + Send)>,
    columns: &'static [Column],
    rows: Vec<Vec<Cell>>,
}

impl<'a> File<'a> {
    /// A file without rows.
    ///
    /// # Errors
    ///
    /// When `out` takes no more.
    pub(crate) fn new(
        columns: &'static [Column],
        out: &'a mut (dyn Write + Send),
    ) -> anyhow::Result<Self> {
        let schema = Arc::new(parse_message_type(&message_of(columns))?);
        let writer = SerializedFileWriter::new(out, schema, Arc::default())?;
        Ok(Self { writer, columns, rows: Vec::new() })
    }

    /// Adds a row.
    ///
    /// # Errors
    ///
    /// When the file takes no more.
    pub(crate) fn push(&mut self, row: Vec<Cell>) -> anyhow::Result<()> {
        assert_eq!(row.len(), self.columns.len(), "a row has one cell per column");
        self.rows.push(row);
        if self.rows.len() == GROUP_ROWS { self.end_group() } else { Ok(()) }
    }

    /// Ends the file.
    ///
    /// # Errors
    ///
    /// When the file takes no more.
    pub(crate) fn finish(mut self) -> anyhow::Result<()> {
        self.end_group()?;
        self.writer.close()?;
        Ok(())
    }

    fn end_group(&mut self) -> anyhow::Result<()> {
        if self.rows.is_empty() {
            return Ok(());
        }
        let rows = std::mem::take(&mut self.rows);
        let mut group = self.writer.next_row_group()?;
        for (at, column) in self.columns.iter().enumerate() {
            let writer = group.next_column()?;
            let writer = writer.expect("the schema has as many columns as there are");
            let cells = rows.iter().map(|row| &row[at]);
            match column.kind {
                Kind::Id | Kind::Count => put::<Int64Type>(writer, cells, unsigned)?,
                Kind::Time => put::<Int64Type>(writer, cells, time)?,
                Kind::Real => put::<DoubleType>(writer, cells, real)?,
                Kind::Text => put::<ByteArrayType>(writer, cells, text)?,
                Kind::Flag => put::<BoolType>(writer, cells, flag)?,
            }
        }
        group.close()?;
        Ok(())
    }
}

/// The schema in Parquet's own words.
fn message_of(columns: &[Column]) -> String {
    let mut message = String::from("message tidal {\n");
    for Column { name, kind } in columns {
        message.push_str(&match kind {
            Kind::Id | Kind::Count => format!("  optional int64 {name} (INTEGER(64,false));\n"),
            Kind::Time => format!("  optional int64 {name} (TIMESTAMP(NANOS,true));\n"),
            Kind::Real => format!("  optional double {name};\n"),
            Kind::Text => format!("  optional binary {name} (STRING);\n"),
            Kind::Flag => format!("  optional boolean {name};\n"),
        });
    }
    message + "}\n"
}

fn put<'c, T: DataType>(
    mut writer: SerializedColumnWriter<'_>,
    cells: impl Iterator<Item = &'c Cell>,
    value: impl Fn(&Cell) -> Option<T::T>,
) -> anyhow::Result<()> {
    let cells: Vec<Option<T::T>> = cells.map(value).collect();
    // 1 where there is a value, 0 where there is none.
    let levels: Vec<i16> = cells.iter().map(|cell| i16::from(cell.is_some())).collect();
    let values: Vec<T::T> = cells.into_iter().flatten().collect();
    writer.typed::<T>().write_batch(&values, Some(&levels), None)?;
    writer.close()?;
    Ok(())
}

fn unsigned(cell: &Cell) -> Option<i64> {
    match cell {
        // The same 64 bits, as the annotation says.
        Cell::Number(number) => Some(number.cast_signed()),
        _ => None,
    }
}

fn time(cell: &Cell) -> Option<i64> {
    match cell {
        Cell::Number(nanos) => i64::try_from(*nanos).ok(),
        _ => None,
    }
}

fn real(cell: &Cell) -> Option<f64> {
    match cell {
        Cell::Real(real) => Some(*real),
        _ => None,
    }
}

fn text(cell: &Cell) -> Option<ByteArray> {
    match cell {
        Cell::Text(text) => Some(text.as_str().into()),
        _ => None,
    }
}

fn flag(cell: &Cell) -> Option<bool> {
    match cell {
        Cell::Flag(flag) => Some(*flag),
        _ => None,
    }
}
