//! What operators ask: sessions, plans, what an open would do, and data for other programs.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum};

use super::DirArgs;
use crate::value::parse_duration;

#[derive(Debug, Subcommand)]
pub(crate) enum SessionsCommand {
    /// Sessions as they are now, in the order in which they were started
    List(SessionsListArgs),
    /// What is known of a session, and its records
    Show(SessionsShowArgs),
    /// Sessions that are over and that nobody has noticed an end of
    Overdue(SessionsOverdueArgs),
    /// One session, or all that match, as lines of JSON
    Export(SessionsExportArgs),
}

pub(crate) const SESSIONS: &str = "\
Examples:
  tidalctl sessions list --dir shop.tidal --state open
  tidalctl sessions list --dir shop.tidal --user 42 --older-than 7d --limit 20 --after 1041
  tidalctl sessions show --dir shop.tidal 1041
  tidalctl sessions overdue --dir shop.tidal
  tidalctl sessions export --dir shop.tidal --user 42 --out sessions.jsonl

These commands open a copy in the temporary directory and leave the database as it is: an open
writes a frame, and may end sessions. No other process may have the database open. What they tell
is how sessions were left, read at the time of now: one whose time is over has ended, although
nobody has written it down. One that somebody held when the database was left is shown as
restored.";

#[derive(Debug, Args)]
pub(crate) struct SessionFilterArgs {
    /// Only those of this user: a number, or the text that ingest read
    #[arg(long)]
    pub(crate) user: Option<String>,
    /// Only those in these states
    #[arg(long, value_enum, value_delimiter = ',', value_name = "STATES")]
    pub(crate) state: Vec<StateArg>,
    /// Only those that were started longer ago than this, such as 36h or 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older_than: Option<Duration>,
}

/// How a session is, in the words of an operator who has no process that could hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum StateArg {
    /// Not over
    #[value(aliases = ["active", "restored"])]
    Open,
    /// Over, and takes late records or waits for processors
    Ended,
    /// Over, and its processing was given up
    Failed,
    /// Over for good
    Settled,
    /// Over for good, and its records are gone
    Pruned,
}

#[derive(Debug, Args)]
#[command(after_help = SESSIONS)]
pub(crate) struct SessionsListArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    #[command(flatten)]
    pub(crate) filter: SessionFilterArgs,
    /// At most so many
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub(crate) limit: u32,
    /// Those that come after this one: the last of the page before
    #[arg(long, value_name = "ID")]
    pub(crate) after: Option<u64>,
}

#[derive(Debug, Args)]
#[command(after_help = SESSIONS)]
pub(crate) struct SessionsShowArgs {
    /// The session's number
    pub(crate) id: u64,
    #[command(flatten)]
    pub(crate) of: DirArgs,
}

#[derive(Debug, Args)]
#[command(after_help = SESSIONS)]
pub(crate) struct SessionsOverdueArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// How long nobody must have noticed, up to 2d
    #[arg(long = "for", value_name = "DURATION", default_value = "1m", value_parser = parse_patience)]
    pub(crate) patience: Duration,
}

fn parse_patience(text: &str) -> Result<Duration, String> {
    let patience = parse_duration(text)?;
    let range = Duration::from_millis(20)..=Duration::from_secs(2 * 86_400);
    if range.contains(&patience) { Ok(patience) } else { Err("it is 20ms to 2d".to_owned()) }
}

#[derive(Debug, Args)]
#[command(after_help = SESSIONS)]
pub(crate) struct SessionsExportArgs {
    /// The session's number; else all that match
    #[arg(conflicts_with_all = ["user", "state", "older_than"])]
    pub(crate) id: Option<u64>,
    #[command(flatten)]
    pub(crate) of: DirArgs,
    #[command(flatten)]
    pub(crate) filter: SessionFilterArgs,
    /// A new file to write to; else standard output
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Forget the records of sessions that are over for long
    Prune(PlanPruneArgs),
    /// Give up the processing of sessions that wait for too long
    Reset(PlanResetArgs),
    /// Process sessions anew that were given up
    Requeue(PlanRequeueArgs),
    /// Hand sessions once more to a processor that has seen them
    Reprocess(PlanReprocessArgs),
}

impl PlanCommand {
    /// Of which database the plan is to be, and where it is to lie.
    pub(crate) fn place(&self) -> (&DirArgs, &Path) {
        match self {
            Self::Prune(PlanPruneArgs { of, out, .. })
            | Self::Reset(PlanResetArgs { of, out, .. })
            | Self::Requeue(PlanRequeueArgs { of, out, .. })
            | Self::Reprocess(PlanReprocessArgs { of, out, .. }) => (of, out),
        }
    }
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl plan prune --dir shop.tidal --older-than 30d --out plan.json
  tidalctl apply plan.json --dir shop.tidal

To make a plan changes nothing: a copy of the database, which no other process may have open, is
opened in the temporary directory. Sessions that a cursor has yet to hear of are left out. When the
records are gone, who, when, why it ended and the hash of the content stay, and what their signals
counted for stays counted. To keep the records elsewhere first: tidalctl sessions export --help")]
pub(crate) struct PlanPruneArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// Sessions that ended longer ago than this, such as 30d
    #[arg(long, value_name = "DURATION", value_parser = parse_duration)]
    pub(crate) older_than: Duration,
    /// A new file for the plan
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl plan reset --dir shop.tidal --timeout 30m --out plan.json
  tidalctl plan reset --dir shop.tidal --timeout 2d --by me --reason 'the model is gone' --out plan.json
  tidalctl apply plan.json --dir shop.tidal

It is for sessions that have ended, began longer ago than that, and wait for a processor. To make a
plan changes nothing: a copy of the database, which no other process may have open, is opened in
the temporary directory. A session whose processing was given up keeps all that is in it, waits for
nobody, and is processed when it is requeued: tidalctl plan requeue --help. A service that has the
database open gives up by itself what takes longer than its processing_timeout.")]
pub(crate) struct PlanResetArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// Sessions that were started longer ago than this, such as 30m
    #[arg(long, value_name = "DURATION", default_value = "30m", value_parser = parse_duration)]
    pub(crate) timeout: Duration,
    /// Who gives them up
    #[arg(long, value_name = "NAME", default_value = "operator")]
    pub(crate) by: String,
    /// Why
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub(crate) reason: String,
    /// A new file for the plan
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl plan requeue --dir shop.tidal --out plan.json
  tidalctl plan requeue --dir shop.tidal --user 42 --older-than 1h --out plan.json
  tidalctl apply plan.json --dir shop.tidal

It is for sessions whose processing was given up, altogether or by one processor. To make a plan
changes nothing: a copy of the database, which no other process may have open, is opened in the
temporary directory. When it is applied, whoever has tried such a session, and is not done with it,
tries it again in the next run, as if for the first time.")]
pub(crate) struct PlanRequeueArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    #[command(flatten)]
    pub(crate) filter: SessionFilterArgs,
    /// A new file for the plan
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl plan reprocess --dir shop.tidal --processor usage --out plan.json
  tidalctl plan reprocess --dir shop.tidal --processor usage --user 42 --out plan.json
  tidalctl apply plan.json --dir shop.tidal

It is for sessions that have ended and were not pruned, though their content is what the processor
has seen. To make a plan changes nothing: a copy of the database, which no other process may have
open, is opened in the temporary directory. When it is applied, the processor sees them in its next
run, in the service that it lives in; what it has made of them stays until then, and is replaced.
To have all sessions seen again, give the processor another version.")]
pub(crate) struct PlanReprocessArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// The name of the processor
    #[arg(long, value_name = "NAME")]
    pub(crate) processor: String,
    #[command(flatten)]
    pub(crate) filter: SessionFilterArgs,
    /// A new file for the plan
    #[arg(long)]
    pub(crate) out: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl apply plan.json --dir shop.tidal
  tidalctl apply plan.json --dir shop.tidal --json | jq .skipped

It opens the database and changes it, if it is the one that the plan was made for; no other process
may have it open. Each item of the plan is checked again, and left alone where it is not as it was: the answer says why. What is skipped is
no failure. A plan that was carried out can be carried out again, and does nothing,
unless what it was for has come back: a session that failed again is requeued again.")]
pub(crate) struct ApplyArgs {
    /// The plan, from tidalctl plan
    pub(crate) plan: PathBuf,
    #[command(flatten)]
    pub(crate) of: DirArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl jobs --dir shop.tidal
  tidalctl jobs --dir shop.tidal --json | jq '.jobs[] | select(.consecutive_failures > 0)'

It opens a copy in the temporary directory and leaves the database as it is; no other process may
have it open: one that has, answers by itself, with sessions().jobs(), which knows of sweeps and
checkpoints too. A run has failed if all that it attempted has; that one found nothing to do may
not be written down yet.")]
pub(crate) struct JobsArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl inspect --dir shop.tidal
  tidalctl inspect --dir shop.tidal --on-open end-all
  tidalctl inspect --dir shop.tidal --json | jq .opened.sessions_ended

It opens a copy in the temporary directory, at the time of now, and leaves the database as it is;
no other process may have it open. What it says is what an open would do, once: which checkpoint
it would load, how many frames it would replay, what it would cut off or repair, and which
sessions it would restore or end. Exit code 1 when an open would fail, or what it opened does not
verify.")]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// What that open would do with open sessions
    #[arg(long, value_enum, default_value_t = OnOpen::RestoreThenExpire)]
    pub(crate) on_open: OnOpen,
}

/// What an open does with sessions that were open.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnOpen {
    /// They may be resumed, as long as their time is not over
    RestoreThenExpire,
    /// All of them end
    EndAll,
    /// They may be resumed, and their idle time begins anew
    RestoreAll,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl health --dir shop.tidal
  tidalctl health --dir shop.tidal --all
  tidalctl health --dir shop.tidal --json | jq '.checks[] | select(.severity != \"ok\")'

It opens a copy in the temporary directory and leaves the database as it is; no other process may
have it open: one that has, answers by itself, with TidalDb::health() or tidalctl serve. What it
tells is how the database was left, read at the time of now.

Exit codes: 0 healthy (what is only worth knowing is that, too), 3 degraded, 4 critical; 1 when it
cannot be told, 2 when the command line is wrong.")]
pub(crate) struct HealthArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// Those too that found nothing; --json has them always
    #[arg(long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl serve --dir shop.tidal
  curl http://127.0.0.1:9187/health
  tidalctl serve --dir shop.tidal --listen 0.0.0.0:9187 --token-file token
  curl -H \"Authorization: Bearer $(cat token)\" http://shop:9187/metrics

It opens the database, which changes it as every open does, and keeps it open: no other process may
have it meanwhile. Its threads write down ends of sessions, and checkpoints. ctrl-c or SIGTERM
closes it. It answers GET and HEAD:
  /metrics          numbers for Prometheus: docs/metrics.md
  /healthz          200, or 503 when it is critical
  /health           every rule and what it found
  /health/sessions  what is known of sessions, and whether one is stuck
  /health/sessions/stuck   those that are processed for too long

A service that has the database open gives these answers by itself: docs/operations.md has how.
Off loopback a token is required, and there is no TLS: keep to a network that you trust, or put a
proxy before it.")]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// Where to listen: an address and a port, 0 for any that is free
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9187")]
    pub(crate) listen: SocketAddr,
    /// A file with the token that every request must bring, as Authorization: Bearer TOKEN
    #[arg(long, value_name = "FILE")]
    pub(crate) token_file: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl backup --dir shop.tidal --to /backups/shop-2026-06-16
  tidalctl restore --from /backups/shop-2026-06-16 --to shop.tidal

It leaves the database as it is, and copies it byte by byte while no other process has it open: a
service that runs makes a backup by itself, with TidalDb::backup, and need not stop. A second copy is opened and checked whole; only then the backup gets a manifest, with the hash of
each file and of the state, and its name. A backup that does not verify is not made: see tidalctl
verify and salvage.")]
pub(crate) struct BackupArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// The directory of the backup; nothing may lie there yet
    #[arg(long)]
    pub(crate) to: PathBuf,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl restore --from /backups/shop-2026-06-16 --to shop.tidal

It changes nothing but what it makes: the backup is read, each file compared with its hash, and a
copy of what was restored opened and checked, before it gets its name. The database is the one
that was backed up, and has its identity: write to one of the two only.")]
pub(crate) struct RestoreArgs {
    /// The directory of the backup
    #[arg(long)]
    pub(crate) from: PathBuf,
    /// The directory of the database; nothing may lie there yet
    #[arg(long)]
    pub(crate) to: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
}

/// What is exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Export {
    /// Scores and counts of each item, per signal and cohort; no cohort is everyone
    Counters,
    /// Which items are engaged with together; those of hidden items are left out
    Edges,
    /// The items of each collection, private ones too
    Collections,
    /// What is known of each session
    Sessions,
}

/// How it is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ExportFormat {
    /// Lines of JSON
    Jsonl,
    /// Parquet, when tidalctl was built with it
    Parquet,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl export --dir shop.tidal --what counters --format jsonl --out counters.jsonl
  tidalctl export --dir shop.tidal --what edges --format jsonl | head
  tidalctl export --dir shop.tidal --what sessions --format parquet --out sessions.parquet

It opens a copy in the temporary directory and leaves the database as it is; no other process may
have it open. All rows are as of one moment, which those that change with time name. In JSON,
numbers that name something and times (in nanoseconds since 1970) are texts, so that every reader
has them exactly. Parquet is there when tidalctl was built with it: cargo install --path tidalctl
--features parquet. For what is in each session see tidalctl sessions export --help")]
pub(crate) struct ExportArgs {
    #[command(flatten)]
    pub(crate) of: DirArgs,
    /// What to export
    #[arg(long, value_enum)]
    pub(crate) what: Export,
    /// How to write it
    #[arg(long, value_enum)]
    pub(crate) format: ExportFormat,
    /// A new file to write to; else standard output, for lines of JSON
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  tidalctl completions bash > ~/.local/share/bash-completion/completions/tidalctl
  tidalctl completions zsh > \"${fpath[1]}/_tidalctl\"
  tidalctl completions fish > ~/.config/fish/completions/tidalctl.fish")]
pub(crate) struct CompletionsArgs {
    /// The shell
    #[arg(value_enum)]
    pub(crate) shell: clap_complete::Shell,
}
