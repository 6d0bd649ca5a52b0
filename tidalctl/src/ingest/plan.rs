//! What the flags of an ingest amount to, decided before anything is opened.
//!
//! Knows: flags, defaults, file names. Must not know: files, nor the engine.

use std::path::Path;
use std::time::Duration;

use super::columns::{CohortFrom, NAME_SIZE_BYTES_MAX, SignalFrom, Wanted};
use super::source::{Format, without_gz};
use crate::cli::{ColumnArgs, IngestArgs, SchemaArgs};
use crate::failure::Failure;
use crate::value::Span;

/// Most members of a cohort family that an ingest declares.
const FAMILY_MEMBERS_MAX: u32 = 10_000;
const HALF_LIFE_DEFAULT: Duration = Duration::from_secs(86_400);
const WINDOWS_DEFAULT: [Span; 5] = [Span::Hour, Span::Day, Span::Week, Span::Month, Span::All];

/// A schema in the command line's words.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    pub(crate) signals: Vec<String>,
    /// Those that connect items.
    pub(crate) engaging: Vec<String>,
    /// The main one first.
    pub(crate) half_lives: Vec<Duration>,
    pub(crate) windows: Vec<Span>,
    /// Cohort families, each with its limit on members.
    pub(crate) families: Vec<(String, u32)>,
}

/// What to do about the schema.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum SchemaPlan {
    /// A new database gets this one; an existing one keeps its own.
    IfNew(Option<Layout>),
    /// The database gets this one, new or not: the flags spell it out.
    Declared(Layout),
}

/// The columns that the flags ask for.
pub(crate) fn wanted(args: &ColumnArgs) -> Wanted {
    let signal = match (&args.signal_name, &args.signal) {
        (Some(name), _) => SignalFrom::Fixed(name.clone()),
        (None, Some(column)) => SignalFrom::Column(column.clone()),
        (None, None) => unreachable!("clap requires one of --signal and --signal-name"),
    };
    let cohort = args.cohort.as_ref().map(|column| CohortFrom {
        column: column.clone(),
        family: args.cohort_family.clone().unwrap_or_else(|| column.clone()),
    });
    Wanted {
        item: args.item.clone(),
        time: args.time.clone(),
        time_unit: args.time_unit,
        signal,
        user: args.user.clone(),
        cohort,
        weight: args.weight.clone(),
        event_id: args.event_id.clone(),
    }
}

/// The schema that the flags ask for.
///
/// # Errors
///
/// When the flags describe signals without naming any.
pub(crate) fn schema(args: &SchemaArgs, wanted: &Wanted) -> Result<SchemaPlan, Failure> {
    let declared = !(args.signals.is_empty()
        && args.engaging.is_empty()
        && args.half_life.is_empty()
        && args.windows.is_empty());
    let mut signals = args.signals.clone();
    if let SignalFrom::Fixed(name) = &wanted.signal
        && !signals.contains(name)
    {
        signals.push(name.clone());
    }
    if signals.is_empty() {
        if declared {
            return Err(Failure::usage(
                "--engaging, --half-life and --windows describe signals, none is named",
            )
            .hint("add --signals NAMES"));
        }
        return Ok(SchemaPlan::IfNew(None));
    }
    if let Some(name) = args.engaging.iter().find(|name| !signals.contains(name)) {
        return Err(Failure::usage(format!("--engaging {name}: it is none of the signals"))
            .hint(format!("the signals are {}; add it to --signals", signals.join(","))));
    }
    let or_default = |given: &[Duration]| match given {
        [] => vec![HALF_LIFE_DEFAULT],
        given => given.to_vec(),
    };
    let layout = Layout {
        signals,
        engaging: args.engaging.clone(),
        half_lives: or_default(&args.half_life),
        windows: match args.windows.as_slice() {
            [] => WINDOWS_DEFAULT.to_vec(),
            given => given.to_vec(),
        },
        families: wanted
            .cohort
            .iter()
            .map(|cohort| (cohort.family.clone(), FAMILY_MEMBERS_MAX))
            .collect(),
    };
    Ok(if declared { SchemaPlan::Declared(layout) } else { SchemaPlan::IfNew(Some(layout)) })
}

/// The format of an input: the one that a flag gives, or else its name.
///
/// # Errors
///
/// When neither says it.
pub(crate) fn format(file: &Path, given: Option<Format>) -> Result<Format, Failure> {
    let by_name = || file.file_name().and_then(|name| Format::of_name(&name.to_string_lossy()));
    given.or_else(by_name).ok_or_else(|| {
        Failure::usage(format!("the format of {} is not clear", file.display()))
            .hint("add --format tsv, csv or jsonl")
    })
}

/// The name under which positions in the input are stored.
///
/// # Errors
///
/// When standard input was given no name: two streams under one name would hide each other.
pub(crate) fn source_name(args: &IngestArgs) -> Result<String, Failure> {
    let name = given_name(args)?;
    if (1..=NAME_SIZE_BYTES_MAX).contains(&name.len()) {
        return Ok(name);
    }
    let size = name.len();
    Err(Failure::usage(format!(
        "the source's name has {size} bytes, it must have 1 to {NAME_SIZE_BYTES_MAX}"
    ))
    .hint("add --source NAME"))
}

fn given_name(args: &IngestArgs) -> Result<String, Failure> {
    if let Some(name) = &args.source {
        return Ok(name.clone());
    }
    if args.file == Path::new("-") {
        return Err(Failure::usage("standard input has no name to store its position under")
            .hint("add --source NAME; the same name resumes the same stream"));
    }
    let name = args
        .file
        .file_name()
        .ok_or_else(|| Failure::usage(format!("{} is not a file", args.file.display())))?;
    Ok(without_gz(&name.to_string_lossy()).to_owned())
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::{Cli, Command};

    fn args(flags: &str) -> IngestArgs {
        let line = format!("tidalctl ingest {flags} --dir d");
        match Cli::try_parse_from(line.split_whitespace()).expect("good").command {
            Command::Ingest(args) => *args,
            other => panic!("not ingest: {other:?}"),
        }
    }

    fn plan(flags: &str) -> SchemaPlan {
        let args = args(flags);
        schema(&args.schema, &wanted(&args.columns)).expect("good")
    }

    #[test]
    fn half_lives_of_no_signal_are_a_usage_error() {
        let args = args("f.csv --signal event --half-life 1h");
        assert!(schema(&args.schema, &wanted(&args.columns)).is_err());
    }

    #[test]
    fn a_signal_column_alone_declares_no_schema() {
        assert_eq!(plan("f.csv --signal event"), SchemaPlan::IfNew(None));
    }

    #[test]
    fn a_fixed_signal_suffices_for_a_new_database_and_leaves_an_old_one_alone() {
        let SchemaPlan::IfNew(Some(layout)) = plan("f.csv --signal-name click --cohort land")
        else {
            panic!("declared")
        };
        assert_eq!(layout.signals, ["click"]);
        assert_eq!(layout.half_lives, [HALF_LIFE_DEFAULT]);
        assert_eq!(layout.windows, WINDOWS_DEFAULT);
        assert_eq!(layout.families, [("land".to_owned(), FAMILY_MEMBERS_MAX)]);
    }

    #[test]
    fn spelled_out_signals_are_declared_once_each() {
        let flags = "f.csv --signal-name view --signals view,buy --windows 1h";
        let SchemaPlan::Declared(layout) = plan(flags) else { panic!("not declared") };
        assert_eq!(layout.signals, ["view", "buy"]);
        assert_eq!(layout.windows, [Span::Hour]);
    }

    #[test]
    fn the_source_is_the_files_name_unpacked_and_standard_input_needs_one() {
        let name = |flags: &str| source_name(&args(flags));
        assert_eq!(name("/logs/e.tsv.gz --signal s").expect("named"), "e.tsv");
        assert_eq!(name("e.tsv --source kafka:3 --signal s").expect("named"), "kafka:3");
        assert_eq!(name("- --source kafka:3 --signal s").expect("named"), "kafka:3");
        assert!(name("- --signal s").is_err());
    }

    #[test]
    fn an_unclear_format_is_asked_for() {
        let format = |line| {
            let args = args(line);
            format(&args.file, args.format)
        };
        assert_eq!(format("e.csv.gz --signal s").expect("clear"), Format::Csv);
        assert_eq!(format("e.csv --format tsv --signal s").expect("given"), Format::Tsv);
        assert!(format("train.txt --signal s").is_err());
        assert!(format("- --signal s").is_err());
    }

    #[test]
    fn engaging_signals_are_some_of_the_signals() {
        let args = args("e.csv --signal s --signals view,buy --engaging buy");
        let wanted = wanted(&args.columns);
        let Ok(SchemaPlan::Declared(layout)) = schema(&args.schema, &wanted) else {
            panic!("not declared")
        };
        assert_eq!(layout.engaging, ["buy"]);
        let args = self::args("e.csv --signal s --signals view --engaging like");
        let refused = schema(&args.schema, &wanted).expect_err("no such signal").to_string();
        assert!(refused.contains("--engaging like"), "{refused}");
    }
}
