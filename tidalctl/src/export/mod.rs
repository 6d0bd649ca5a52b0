//! `tidalctl export`: what a database holds, for other programs.
//!
//! Knows: the order of the steps. Must not know: what the columns mean, nor how a format is written.

mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
mod table;

pub(crate) use table::{Cell, Column, Kind};

use std::io::{self, Write};

use serde_json::json;

use crate::cli::{ExportArgs, ExportFormat};
use crate::engine::Engine;
use crate::failure::Failure;
use crate::files;
use crate::print;
use crate::value::thousands;

/// Carries out `tidalctl export`.
///
/// # Errors
///
/// When the database cannot be copied or opened, or the file not be written.
pub(crate) fn run(args: &ExportArgs) -> anyhow::Result<()> {
    if args.format == ExportFormat::Parquet {
        expect_parquet()?;
    }
    match &args.out {
        Some(path) => files::expect_free(path)?,
        None if args.format == ExportFormat::Parquet => {
            let hint = "add --out FILE; a Parquet file is not for a terminal";
            return Err(Failure::usage("--format parquet needs a file").hint(hint).into());
        }
        None => {}
    }
    let look = Engine::look_to_export(&args.of.dir)?;
    let write = |out: &mut (dyn Write + Send)| {
        let columns = args.what.columns();
        let mut rows = 0;
        match args.format {
            ExportFormat::Jsonl => look.each_row(args.what, &mut |row| {
                rows += 1;
                jsonl::write(columns, &row, out)
            })?,
            #[cfg(feature = "parquet")]
            ExportFormat::Parquet => {
                let mut file = parquet::File::new(columns, out)?;
                look.each_row(args.what, &mut |row| {
                    rows += 1;
                    file.push(row)
                })?;
                file.finish()?;
            }
            #[cfg(not(feature = "parquet"))]
            ExportFormat::Parquet => expect_parquet()?,
        }
        anyhow::Ok(rows)
    };
    let Some(path) = &args.out else {
        let mut out = io::BufWriter::new(io::stdout());
        write(&mut out)?;
        return Ok(out.flush()?);
    };
    let rows: u64 = files::write_new(path, write)?;
    if args.of.json {
        return Ok(print::json(&json!({ "rows": rows, "out": path.display().to_string() }))?);
    }
    let line = format!("{} rows are in {}", thousands(rows), path.display());
    Ok(print::out(&print::printable_line(&line))?)
}

/// Refuses Parquet where the program was built without it: before the database is copied, not after it.
fn expect_parquet() -> Result<(), Failure> {
    match cfg!(feature = "parquet") {
        true => Ok(()),
        false => Err(Failure::usage("this tidalctl was built without Parquet").hint(
            "use --format jsonl, or a tidalctl that has it: \
             cargo install --path tidalctl --features parquet",
        )),
    }
}
