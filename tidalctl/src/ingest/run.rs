//! The steps of an ingest.
//!
//! Knows: what is opened, passed over, read and told, in this order. Must not know: how.
//!
//! Everything that the command line can be wrong about is found before the database is touched.

use std::path::Path;
use std::sync::atomic::Ordering;

use anyhow::Context as _;

use super::columns::{Columns, SignalFrom, Wanted};
use super::load::Loader;
use super::plan;
use super::records::{Records, Selector};
use super::report::Summary;
use super::source::{self, Format};
use crate::cli::IngestArgs;
use crate::engine::{Engine, Stopwatch};
use crate::failure::Failure;
use crate::print::{self, Unit};
use crate::time::format_point;
use crate::value::thousands;

/// The longest window; an event older than this counts in no window.
const LONGEST_WINDOW_NS: u64 = 30 * 86_400 * 1_000_000_000;

/// Carries out `tidalctl ingest`.
///
/// # Errors
///
/// When the flags contradict each other or the input, when reading or the engine fails, when no
/// line at all is good, and with `--strict` at the first bad line.
pub(crate) fn run(args: &IngestArgs) -> anyhow::Result<()> {
    let wanted = plan::wanted(&args.columns);
    let schema = plan::schema(&args.schema, &wanted)?;
    let source = plan::source_name(args)?;
    let format = plan::format(&args.file, args.format)?;
    let input = source::open(&args.file)?;
    let bar = print::progress(input.size_bytes, Unit::Bytes);
    let mut records = Records::new(input.reader, format);
    let columns = find_columns(&wanted, format, args.no_header, &args.file, &mut records)?;

    let engine = Engine::open_or_create(&args.dir, &schema, args.schema.clock)?;
    check_names(&engine, &wanted)?;
    let watch = Stopwatch::start();
    let stored = engine.source_offset(&source);
    pass_over(&mut records, &source, stored)?;

    let mut loader = Loader::new(&engine, &source, stored, args.strict);
    loader.summary.skipped = stored;
    let read = read_all(&mut records, &columns, &mut loader, || {
        bar.set_position(input.position_bytes.load(Ordering::Relaxed));
    });
    bar.finish_and_clear();
    let newest_ns = loader.newest_ns;
    let mut summary = loader.summary;
    summary.lines = records.line_count() - stored;
    let (engine_time_ns, has_event_time) = (engine.time_ns(), engine.has_event_time());
    // What was read before a failure is stored: it is worth closing well.
    let closed = engine.close();
    summary.elapsed = watch.elapsed();

    if !args.strict {
        print::note(&summary.bad.render());
    }
    read.with_context(|| args.file.display().to_string())?;
    closed?;
    tell(args, &summary)?;
    if newest_ns > 0 && newest_ns.saturating_add(LONGEST_WINDOW_NS) < engine_time_ns {
        tell_old(newest_ns, has_event_time);
    }
    expect_good(&summary)
}

/// Finds the wanted columns; a header, where there is one, is read and passed over.
///
/// # Errors
///
/// When there is no header or not one of the columns.
pub(crate) fn find_columns(
    wanted: &Wanted,
    format: Format,
    no_header: bool,
    file: &Path,
    records: &mut Records,
) -> anyhow::Result<Columns> {
    if format == Format::Jsonl || no_header {
        return Ok(Columns::find(wanted, format, None)?);
    }
    let empty = || Failure::failed(format!("{} has no header line", file.display()));
    let record = records.next()?.ok_or_else(empty)?;
    let fields = record.fields.map_err(|reason| Failure::failed(format!("header: {reason}")))?;
    let name = |index| fields.get(&Selector::Index(index));
    let header: Result<Vec<String>, String> =
        (0..fields.len()).map(|index| Ok(name(index)?.unwrap_or_default().into_owned())).collect();
    let header = header.map_err(Failure::failed)?;
    Ok(Columns::find(wanted, format, Some(&header))?)
}

/// Finds names that would make every line bad.
fn check_names(engine: &Engine, wanted: &Wanted) -> anyhow::Result<()> {
    if let SignalFrom::Fixed(name) = &wanted.signal {
        engine.check_signal(name).map_err(|reason| {
            let known = engine.signal_names().join(",");
            Failure::failed(reason).hint(format!("to add it: --signals {known},{name}"))
        })?;
    }
    if let Some(cohort) = &wanted.cohort {
        let member = format!("{}=x", cohort.family);
        engine.check_cohort(&member).map_err(|_| {
            let family = &cohort.family;
            let known = match engine.cohort_names().as_slice() {
                [] => "it has no cohorts at all".to_owned(),
                known => format!("its cohorts are {}", known.join(", ")),
            };
            let signals = engine.signal_names().join(",");
            Failure::failed(format!("the database has no cohort family {family:?}; {known}"))
                .hint(format!("to add it: --signals {signals}"))
        })?;
    }
    Ok(())
}

/// Goes to the first line that is not stored.
fn pass_over(records: &mut Records, source: &str, stored: u64) -> anyhow::Result<()> {
    if stored == 0 {
        return Ok(());
    }
    let stored_lines = thousands(stored);
    print::note(&format!(
        "note: source {source:?} is stored through line {stored_lines}; going on after it\n"
    ));
    if records.skip_to(stored)? {
        return Ok(());
    }
    Err(Failure::failed(format!(
        "source {source:?} is stored through line {}, but this input has only {}",
        thousands(stored),
        thousands(records.line_count()),
    ))
    .hint("if this is another input of the same name, give it another --source")
    .into())
}

fn read_all(
    records: &mut Records,
    columns: &Columns,
    loader: &mut Loader<'_>,
    mut on_batch: impl FnMut(),
) -> anyhow::Result<()> {
    loop {
        match records.next() {
            Ok(Some(record)) => {
                let row = columns.row(&record);
                if loader.take(record.first_line, record.last_line, row)? {
                    on_batch();
                }
            }
            Ok(None) => return loader.finish(),
            Err(error) => {
                loader.finish()?;
                let line = records.line_count() + 1;
                return Err(error).with_context(|| format!("reading line {line}"));
            }
        }
    }
}

fn tell(args: &IngestArgs, summary: &Summary) -> anyhow::Result<()> {
    if args.json {
        print::json(&summary.json())?;
    } else {
        print::out(&summary.render())?;
    }
    Ok(())
}

fn tell_old(newest_ns: u64, has_event_time: bool) {
    let advice = match has_event_time {
        false => {
            "; to look at an old log in its own time load it into a new database with --clock event"
        }
        true => "",
    };
    let newest = format_point(newest_ns);
    print::note(&format!(
        "note: the newest event is of {newest}, older than every window{advice}\n"
    ));
}

fn expect_good(summary: &Summary) -> anyhow::Result<()> {
    let nothing_good = summary.accepted + summary.duplicates + summary.skipped == 0;
    match summary.bad.first() {
        Some((line, reason)) if nothing_good => {
            Err(Failure::failed(format!("no line is good; line {line}: {reason}"))
                .hint("check --format, --time-unit and the columns")
                .into())
        }
        _ => Ok(()),
    }
}
