//! The command line: what can be asked, with examples.
//!
//! Knows: flags and their help. Must not know: how anything is done.

mod operating;

pub(crate) use operating::{
    ApplyArgs, BackupArgs, CompletionsArgs, Export, ExportArgs, ExportFormat, HealthArgs,
    InspectArgs, JobsArgs, OnOpen, PlanCommand, RestoreArgs, ServeArgs, SessionFilterArgs,
    SessionsCommand, SessionsExportArgs, SessionsListArgs, SessionsOverdueArgs, SessionsShowArgs,
    StateArg,
};

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::ingest::source::Format;
use crate::time::{TimeUnit, parse_point};
use crate::value::{Span, parse_half_life, parse_span};

/// Embedded, crash-safe state for recommendation services: demo, ingest, look, verify.
#[derive(Debug, Parser)]
#[command(name = "tidalctl", version, max_term_width = 100, after_help = OVERVIEW)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

const OVERVIEW: &str = "\
Start here:
  tidalctl demo
  tidalctl ingest events.csv --dir shop.tidal --item item --time time --signals view,purchase \\
      --signal event --clock event
  tidalctl top --dir shop.tidal --signal view

Each subcommand has examples: tidalctl ingest --help

Exit codes: 0 done, 1 failed, 2 the command line is wrong; of health also 3 degraded, 4 critical.";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Kill a writer half-way through a shop's month, prove that nothing is lost, show what trends
    Demo(DemoArgs),
    /// The child of `demo`, which it kills
    #[command(hide = true)]
    DemoWriter(DemoWriterArgs),
    /// Read an event log into a database, exactly once, however often it is interrupted
    Ingest(Box<IngestArgs>),
    /// Rank items: hot, by count, by velocity
    Top(TopArgs),
    /// What a session of items goes on to
    Recommend(RecommendArgs),
    /// How well recommendations foretell what a log says next
    Evaluate(Box<EvaluateArgs>),
    /// What a database holds, how large it is, how far each part has come
    #[command(after_help = STATUS)]
    Status(DirArgs),
    /// Check every byte of a database
    #[command(after_help = VERIFY)]
    Verify(DirArgs),
    /// What opening a database would do, and whether it verifies, on a copy
    Inspect(InspectArgs),
    /// Whether a database is well, and what to do where it is not, on a copy
    Health(HealthArgs),
    /// Open a database and let Prometheus and others ask how it is, over HTTP
    Serve(ServeArgs),
    /// When processors last ran, and how that ended
    Jobs(JobsArgs),
    /// Look at sessions: list, show, overdue, export
    #[command(subcommand, after_help = operating::SESSIONS)]
    Sessions(SessionsCommand),
    /// Write down what would be done, to look at it and apply it later
    #[command(subcommand)]
    Plan(PlanCommand),
    /// Carry out a plan
    Apply(ApplyArgs),
    /// Save what is left of a database that does not open, into a new one
    #[command(after_help = SALVAGE)]
    Salvage(SalvageArgs),
    /// Copy a database that nobody has open, and check the copy
    Backup(BackupArgs),
    /// Make a database from a backup, and check it
    Restore(RestoreArgs),
    /// Counters, edges, collections or sessions as a file for other programs
    Export(ExportArgs),
    /// Print what a shell completes command lines with
    Completions(CompletionsArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl demo
  tidalctl demo --seed 7 --events 50000
  tidalctl demo --dir /tmp/shop.tidal      keeps the database for tidalctl top, status, verify")]
pub(crate) struct DemoArgs {
    /// The same seed makes the same log
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Events of the log
    #[arg(long, default_value_t = 400_000, value_parser = clap::value_parser!(u64).range(1_000..=10_000_000))]
    pub(crate) events: u64,
    /// A new directory to keep the database in; else it is temporary
    #[arg(long)]
    pub(crate) dir: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
pub(crate) struct DemoWriterArgs {
    #[arg(long)]
    pub(crate) seed: u64,
    #[arg(long)]
    pub(crate) events: u64,
    #[arg(long)]
    pub(crate) dir: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  A CSV with a header, its signals in a column; the log is old, so its own time is the clock:
    tidalctl ingest events.csv --dir shop.tidal --item item --time ts --signal event \\
        --signals purchase,return --user user --cohort cohort --cohort-family country --clock event
  Clicks without a signal column, epoch seconds with a fraction, tabs:
    tidalctl ingest train.txt --format tsv --dir clicks.tidal --item ItemId --time Time \\
        --user SessionId --signal-name click --clock event
  JSON lines from another program; --source names the stream, so that it can be resumed:
    zcat log.jsonl.gz | tidalctl ingest - --format jsonl --source log-2026-06 --dir db \\
        --item id --time at --time-unit rfc3339 --signal kind --signals view

Resuming: run the same command again. The position of each batch (its line number) is stored
together with its events under the source's name (--source, or the file's name without .gz), so
lines that were stored are passed over and none counts twice. Another file of the same name needs
another --source.

Ids: items are text, kept in the database's dictionary. A user that is a number below 2^63 is that
user id; any other text goes through the dictionary as user:TEXT and becomes 2^63 plus its number.
An empty user, cohort, weight or event id is none.

Bad lines: each is told with its reason and passed over; the summary counts them. A record has 1 MiB
and, in CSV, 100 lines at most: a quote that is opened and not closed costs the lines up to there,
which its reason names. With --clock event a time more than a day ahead of this machine is bad: it
would make all that follow old.")]
pub(crate) struct IngestArgs {
    /// TSV, CSV or JSON lines, plain or gzip; - is standard input
    pub(crate) file: PathBuf,
    /// The database's directory; made if it is not there
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How lines are divided; else by the file's name
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The first line is an event; columns are numbers from 0
    #[arg(long)]
    pub(crate) no_header: bool,
    /// Name under which the position in this input is stored; else the file's name without .gz
    #[arg(long)]
    pub(crate) source: Option<String>,
    /// Stop at the first bad line
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the summary as JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) schema: SchemaArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Columns")]
pub(crate) struct ColumnArgs {
    /// Column of the item
    #[arg(long, value_name = "COL", default_value = "item")]
    pub(crate) item: String,
    /// Column of the time
    #[arg(long, value_name = "COL", default_value = "time")]
    pub(crate) time: String,
    /// How that column writes time
    #[arg(long, value_enum, default_value_t = TimeUnit::S)]
    pub(crate) time_unit: TimeUnit,
    /// Column of the signal
    #[arg(
        long,
        value_name = "COL",
        conflicts_with = "signal_name",
        required_unless_present = "signal_name"
    )]
    pub(crate) signal: Option<String>,
    /// The signal of every line
    #[arg(long, value_name = "NAME")]
    pub(crate) signal_name: Option<String>,
    /// Column of the user
    #[arg(long, value_name = "COL")]
    pub(crate) user: Option<String>,
    /// Column of the cohort; its text T counts for the cohort FAMILY=T
    #[arg(long, value_name = "COL")]
    pub(crate) cohort: Option<String>,
    /// The family of that cohort; else the column's name
    #[arg(long, value_name = "FAMILY", requires = "cohort")]
    pub(crate) cohort_family: Option<String>,
    /// Column of the weight; else 1
    #[arg(long, value_name = "COL")]
    pub(crate) weight: Option<String>,
    /// Column of an id that makes an event count once
    #[arg(long, value_name = "COL")]
    pub(crate) event_id: Option<String>,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Schema (for a new database, or to extend one)")]
pub(crate) struct SchemaArgs {
    /// The signals there are; a line with another one is bad
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) signals: Vec<String>,
    /// Those of them that connect the items of one user's visit, for recommendations
    #[arg(long, value_delimiter = ',', value_name = "NAMES")]
    pub(crate) engaging: Vec<String>,
    /// Half-lives of their scores, the main one first; inf never decays [default: 24h]
    #[arg(long, value_delimiter = ',', value_parser = parse_half_life, value_name = "DURATIONS")]
    pub(crate) half_life: Vec<Duration>,
    /// Windows they are counted in [default: 1h,24h,7d,30d,all]
    #[arg(long, value_delimiter = ',', value_parser = parse_span, value_name = "WINDOWS")]
    pub(crate) windows: Vec<Span>,
    /// What is now: the newest event (for old logs), or the system's clock [default: system]
    #[arg(long, value_enum)]
    pub(crate) clock: Option<ClockSource>,
}

/// What tells the time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ClockSource {
    /// The newest event
    Event,
    /// The system's clock
    System,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl top --dir shop.tidal --signal view
  tidalctl top --dir shop.tidal --signal view --by velocity --window 24h
  tidalctl top --dir shop.tidal --signal purchase --by count --window 7d --cohort country=FR -k 5

hot ranks by the decayed score, count by the events of the window, velocity by the window's events
against those of the window before.

It opens the database, which changes it as every open does; no other process may have it open.")]
pub(crate) struct TopArgs {
    /// The database's directory
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// The signal to rank by
    #[arg(long)]
    pub(crate) signal: String,
    /// What ranks
    #[arg(long, value_enum, default_value_t = By::Hot)]
    pub(crate) by: By,
    /// The window of count and velocity: 1h, 24h, 7d, 30d or all [default: 24h]
    #[arg(long, value_parser = parse_span)]
    pub(crate) window: Option<Span>,
    /// The half-life of hot, one of the signal's; else its main one
    #[arg(long, value_parser = parse_half_life)]
    pub(crate) half_life: Option<Duration>,
    /// Only the events of this cohort, such as country=FR
    #[arg(long)]
    pub(crate) cohort: Option<String>,
    /// How many items
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) k: u32,
    /// The time to look from, such as 2026-06-16T12:00:00Z or epoch seconds; else the engine's
    #[arg(long, value_parser = parse_point)]
    pub(crate) now: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What items are ranked by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum By {
    /// Decayed score
    Hot,
    /// Events in the window
    Count,
    /// Events in the window against the window before
    Velocity,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl recommend --dir shop.tidal chair
  tidalctl recommend --dir shop.tidal lamp chair --method sessions -k 5

It needs signals that connect items: tidalctl ingest --engaging NAMES.

It opens the database, which changes it as every open does; no other process may have it open.")]
pub(crate) struct RecommendArgs {
    /// The session's items, the current one last
    #[arg(required = true)]
    pub(crate) items: Vec<String>,
    /// The database's directory
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// How items are found
    #[arg(long, value_enum, default_value_t = Method::Edges)]
    pub(crate) method: Method,
    /// Only items of this cohort, such as country=FR
    #[arg(long)]
    pub(crate) cohort: Option<String>,
    /// How many items
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) k: u32,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Args)]
#[command(
    group(clap::ArgGroup::new("foretold").required(true).args(["test", "test_from"])),
    after_help = "\
Examples:
  Clicks in two files; the session stands where ingest has the user:
    tidalctl evaluate train.txt --test test.txt --format tsv --item ItemId --time Time \\
        --user SessionId --signal-name click
  Invoices, the last month of them foretold, each item of a basket once:
    tidalctl evaluate events.tsv.gz --test-from 2010-11-09T00:00:00Z --user session --time ts \\
        --signal event --signals purchase --baskets
  What popularity alone would do:
    … --method hot

It learns the first part in memory, in order of time. Then, for every step of every session of the
second, it foretells the next item from those before. HR@k is the share of answers with the next item,
MRR@k the mean of 1/rank, 0 where it is missing; ties go to the smaller item.")
]
pub(crate) struct EvaluateArgs {
    /// The log to learn from: TSV, CSV or JSON lines, plain or gzip, with a header
    pub(crate) train: PathBuf,
    /// A second log, whose sessions are foretold
    #[arg(long, value_name = "FILE")]
    pub(crate) test: Option<PathBuf>,
    /// Foretell the sessions that begin at this time or later, and learn from the others
    #[arg(long, value_name = "TIME", value_parser = parse_point)]
    pub(crate) test_from: Option<u64>,
    /// How lines are divided; else by the file's name
    #[arg(long, value_enum)]
    pub(crate) format: Option<Format>,
    /// The signals that count; other lines are passed over
    #[arg(
        long,
        value_delimiter = ',',
        value_name = "NAMES",
        required_unless_present = "signal_name"
    )]
    pub(crate) signals: Vec<String>,
    /// Items of an answer
    #[arg(short, long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub(crate) k: u32,
    /// Foretell each item of a session once, and never one that it has
    #[arg(long)]
    pub(crate) baskets: bool,
    /// Learn the foretold sessions too, step by step
    #[arg(long)]
    pub(crate) live: bool,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    #[command(flatten)]
    pub(crate) columns: ColumnArgs,
    #[command(flatten)]
    pub(crate) model: ModelArgs,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Model (else the library's defaults)")]
pub(crate) struct ModelArgs {
    /// How items are found
    #[arg(long, value_enum, default_value_t = Method::Edges)]
    pub(crate) method: Method,
    /// With how many items of its session a new one is paired
    #[arg(long, value_name = "N")]
    pub(crate) recent_items: Option<u32>,
    /// Edges of one item
    #[arg(long, value_name = "N")]
    pub(crate) neighbours_max: Option<u32>,
    /// Edges in all
    #[arg(long, value_name = "N")]
    pub(crate) capacity: Option<u64>,
    /// After which time a pair weighs half; inf never decays
    #[arg(long, value_name = "DURATION", value_parser = parse_half_life)]
    pub(crate) half_life: Option<Duration>,
    /// Sessions that are kept
    #[arg(long, value_name = "N")]
    pub(crate) trails_max: Option<u32>,
    /// Shrinkage of the cosine
    #[arg(long, value_name = "λ")]
    pub(crate) shrinkage: Option<f64>,
    /// How many of the last items lead to others
    #[arg(long, value_name = "N")]
    pub(crate) seeds: Option<usize>,
}

/// How items are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Method {
    /// By the edges of the session's items
    Edges,
    /// By the sessions that are most like it, and edges
    Sessions,
    /// What is hot, whatever the session
    Hot,
}

const STATUS: &str = "\
Examples:
  tidalctl status --dir shop.tidal
  tidalctl status --dir shop.tidal --json | jq .cell_size_bytes

It opens the database, which changes it as every open does; no other process may have it open.";

const VERIFY: &str = "\
Examples:
  tidalctl verify --dir shop.tidal
  tidalctl verify --dir shop.tidal --json | jq .checks_broken

It opens a copy in the temporary directory and leaves the database as it is; no other process may
have it open. It says what opening would repair, and checks the state, each frame of the log, and
each page and row of both checkpoint stores. Exit code 1 when something is broken.";

const SALVAGE: &str = "\
Examples:
  tidalctl salvage --dir broken.tidal --to saved.tidal

It saves the newest checkpoint that holds and every frame of the log that follows it without a break,
and verifies the result. The damaged database is read and never changed; a backup may have more. Both
have the same identity: write to one of them only.";

#[derive(Debug, Args)]
pub(crate) struct SalvageArgs {
    #[command(flatten)]
    pub(crate) from: DirArgs,
    /// The directory of the new database; nothing may lie there yet
    #[arg(long)]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct DirArgs {
    /// The database's directory
    #[arg(long)]
    pub(crate) dir: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn lists_and_durations_are_read() {
        let cli = parse(
            "tidalctl ingest f.csv --dir d --signal event --signals view,purchase \
             --half-life 30m,24h --windows 1h,30d --clock event",
        )
        .expect("good");
        let Command::Ingest(args) = cli.command else { panic!("not ingest: {cli:?}") };
        assert_eq!(args.schema.signals, ["view", "purchase"]);
        assert_eq!(
            args.schema.half_life,
            [Duration::from_secs(1_800), Duration::from_secs(86_400)]
        );
        assert_eq!(args.schema.windows, [Span::Hour, Span::Month]);
        assert_eq!(args.schema.clock, Some(ClockSource::Event));
    }

    #[test]
    fn an_ingest_names_its_signal_in_one_way() {
        assert!(parse("tidalctl ingest f.csv --dir d").is_err());
        assert!(parse("tidalctl ingest f.csv --dir d --signal e --signal-name view").is_err());
        assert!(parse("tidalctl ingest - --dir d --signal-name view").is_ok());
    }

    #[test]
    fn wrong_values_are_usage_errors() {
        for line in [
            "tidalctl top --dir d --signal view --window 2h",
            "tidalctl top --dir d --signal view --half-life 0h",
            "tidalctl top --dir d --signal view -k 0",
            "tidalctl top --dir d --signal view --now yesterday",
            "tidalctl ingest f --dir d --signal e --cohort-family country",
            "tidalctl demo --events 10",
        ] {
            assert_eq!(parse(line).expect_err(line).exit_code(), 2, "{line}");
        }
    }
}
