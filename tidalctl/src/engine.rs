//! The engine, as the command line sees it: the only room that names `tidaldb`.
//!
//! Knows: which call of the library answers which question, and what to advise when it refuses.
//! Must not know: files of events, tables of text.

pub(crate) mod health;
mod learner;
mod look;
mod recommend;
mod sessions;
mod users;
mod walk;

pub(crate) use health::metric_descriptions;
pub(crate) use learner::{Learner, NewClick, Question};
pub(crate) use look::Look;
pub(crate) use recommend::{RecommendedItem, Wish};
pub(crate) use sessions::{Task, Wanted};

use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;

pub(crate) use tidaldb::schema::Timestamp;
use tidaldb::schema::{DecaySpec, EntityId, EntityKind, Schema, SchemaBuilder, Window};
pub(crate) use tidaldb::{
    Applied, Check, End, EndCause, EndEvidence, Facts, FailCause, HealthReport, Inspection,
    JobOutcome, JobStatus, Metric, MetricDescription, MetricKind, OpenReport, Overall,
    PlannedPrune, PlannedReprocess, PlannedReset, ProcessorRow, ProcessorStatus, Salvage,
    SessionId, SessionInfo, SessionState, Severity, SkipReason, Status, StuckSession,
};
use tidaldb::{
    Batch, Clock as _, Error, ErrorKind, Event, Outcome, Ranked, ReadOptions, SystemClock, Ticket,
    TidalDb, TimeSource, UserId,
};

use crate::cli::{By, ClockSource};
use crate::failure::Failure;
use crate::ingest::plan::{Layout, SchemaPlan};
use crate::time::format_point;
use crate::value::Span;

/// How far ahead of the machine's clock an event may be that advances the engine's time.
const AHEAD_MAX_NS: u64 = 86_400 * 1_000_000_000;

/// An open database.
pub(crate) struct Engine {
    db: TidalDb,
}

/// Why a batch was not taken.
#[derive(Debug)]
pub(crate) enum Rejection {
    /// Something in it can never be accepted; nothing of it was written.
    BadInput(String),
    /// The engine or its surroundings failed.
    Failed(anyhow::Error),
}

/// What became of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Taken {
    /// It counts now; this many of its events had a known id and were left out.
    Applied { duplicates: u64 },
    /// An earlier run had stored it.
    AlreadyApplied,
}

/// One ranked item.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RankedItem {
    pub(crate) name: String,
    pub(crate) value: f64,
}

/// What to rank, and from where to look.
#[derive(Debug, Clone)]
pub(crate) struct Ranking<'a> {
    pub(crate) signal: &'a str,
    pub(crate) by: By,
    pub(crate) window: Span,
    pub(crate) half_life: Option<Duration>,
    pub(crate) cohort: Option<&'a str>,
    pub(crate) now_ns: Option<u64>,
    pub(crate) k: usize,
}

impl Engine {
    /// Whether `dir` holds anything that an open could find.
    pub(crate) fn is_new(dir: &Path) -> bool {
        match dir.read_dir() {
            Ok(mut entries) => entries.next().is_none(),
            // Whatever else is wrong with it, the engine says better.
            Err(error) => error.kind() == std::io::ErrorKind::NotFound,
        }
    }

    /// Opens an existing database with its own schema.
    ///
    /// # Errors
    ///
    /// When there is none, or the engine refuses.
    pub(crate) fn open(dir: &Path) -> anyhow::Result<Self> {
        expect_database(dir)?;
        let db = TidalDb::builder().with_data_dir(dir).open().map_err(explain)?;
        Ok(Self { db })
    }

    /// Opens a database with the schema that the plan gives it, and makes it if need be.
    ///
    /// # Errors
    ///
    /// When a new database is given no schema, or the engine refuses.
    pub(crate) fn open_or_create(
        dir: &Path,
        plan: &SchemaPlan,
        clock: Option<ClockSource>,
    ) -> anyhow::Result<Self> {
        check_dir(dir)?;
        let for_new = |layout: &'_ Option<Layout>| layout.clone().ok_or_else(|| no_signals(dir));
        let layout = match plan {
            SchemaPlan::Declared(layout) => Some(layout.clone()),
            SchemaPlan::IfNew(layout) if Self::is_new(dir) => Some(for_new(layout)?),
            SchemaPlan::IfNew(_) => None,
        };
        let db = match (open_with(dir, layout.as_ref(), clock), plan) {
            (Err(error), SchemaPlan::IfNew(layout)) if lacks_schema(&error) => {
                open_with(dir, Some(&for_new(layout)?), clock)
            }
            (opened, _) => opened,
        };
        Ok(Self { db: db.map_err(explain)? })
    }

    /// Checkpoints and closes.
    ///
    /// # Errors
    ///
    /// When the last checkpoint fails; what was acknowledged is safe all the same.
    pub(crate) fn close(self) -> anyhow::Result<()> {
        self.db.close().map_err(explain)?;
        Ok(())
    }

    /// Whether the schema has this signal.
    ///
    /// # Errors
    ///
    /// A sentence with the nearest names, when it has not.
    pub(crate) fn check_signal(&self, name: &str) -> Result<(), String> {
        self.db.schema().resolve(name).map(|_| ()).map_err(|error| error.to_string())
    }

    /// Whether the schema has this cohort, or the family that it would be a member of.
    ///
    /// # Errors
    ///
    /// A sentence with the nearest names, when it has not.
    pub(crate) fn check_cohort(&self, name: &str) -> Result<(), String> {
        self.db.schema().resolve_cohort(name).map(|_| ()).map_err(|error| error.to_string())
    }

    /// The names of the schema's signals.
    pub(crate) fn signal_names(&self) -> Vec<String> {
        self.db.schema().signals().iter().map(|signal| signal.name().to_owned()).collect()
    }

    /// The names of the schema's cohorts and families.
    pub(crate) fn cohort_names(&self) -> Vec<String> {
        self.db.schema().cohorts().iter().map(|cohort| cohort.name().to_owned()).collect()
    }

    /// The cohorts that something was counted for, members of families included.
    pub(crate) fn counted_cohorts(&self) -> Vec<String> {
        self.db.cohorts()
    }

    /// The last position of this source that is stored; 0 when there is none.
    pub(crate) fn source_offset(&self, source: &str) -> u64 {
        self.db.source_offset(source).unwrap_or(0)
    }

    /// The engine's time, in nanoseconds since the epoch.
    pub(crate) fn time_ns(&self) -> u64 {
        self.db.engine_time().as_nanos()
    }

    /// Whether events advance the engine's time.
    pub(crate) fn has_event_time(&self) -> bool {
        self.db.status().event_time
    }

    /// Refuses the time of an event that the machine's clock will not reach for more than a day: where
    /// events advance time a wrong year would make all later ones old, and there is no way back.
    ///
    /// # Errors
    ///
    /// A sentence.
    pub(crate) fn check_time(&self, at_ns: u64) -> Result<(), String> {
        let latest_ns = Timestamp::now().as_nanos().saturating_add(AHEAD_MAX_NS);
        if at_ns <= latest_ns {
            return Ok(());
        }
        let at = format_point(at_ns);
        Err(format!("time {at} is more than a day ahead of this machine: is --time-unit right?"))
    }

    /// The moment that reads look from, in nanoseconds since the epoch.
    pub(crate) fn now_ns(&self) -> u64 {
        self.db.consistent(|view| view.now().as_nanos())
    }

    /// Numbers for texts; a text that has none yet gets one.
    ///
    /// # Errors
    ///
    /// When a text is too long, or the log cannot be written.
    pub(crate) fn intern(&self, texts: &[&str]) -> Result<Vec<u64>, Rejection> {
        let ids = self.db.intern(texts).map_err(Rejection::from)?;
        assert_eq!(ids.len(), texts.len(), "the dictionary answers every text");
        Ok(ids.into_iter().map(EntityId::get).collect())
    }

    /// The number of a text that has one.
    pub(crate) fn lookup(&self, text: &str) -> Option<u64> {
        self.db.lookup_text(text).map(EntityId::get)
    }

    /// Queues the attributes of a user; the ticket answers when they are durable.
    ///
    /// # Errors
    ///
    /// When they are refused before they are queued.
    pub(crate) fn submit_user(
        &self,
        user: u64,
        attribute: &str,
        value: &str,
    ) -> Result<Pending, Rejection> {
        let attributes = HashMap::from([(attribute.to_owned(), value.to_owned())]);
        let ticket =
            self.db.submit_user(UserId::new(user), &attributes).map_err(Rejection::from)?;
        Ok(Pending { ticket })
    }

    /// The cohorts that a user belongs to.
    pub(crate) fn user_cohorts(&self, user: u64) -> Vec<String> {
        self.db.user_cohorts(UserId::new(user))
    }

    /// Queues a batch; the ticket answers when it is durable.
    ///
    /// # Errors
    ///
    /// When the batch is refused before it is queued.
    pub(crate) fn submit(&self, batch: EventBatch) -> Result<Pending, Rejection> {
        let ticket = self.db.submit(batch.batch).map_err(Rejection::from)?;
        Ok(Pending { ticket })
    }

    /// Every item's count of a signal since ever, in the order of `items`.
    ///
    /// # Errors
    ///
    /// When the signal or cohort is unknown.
    pub(crate) fn counts(
        &self,
        items: &[u64],
        signal: &str,
        window: Span,
        cohort: Option<&str>,
    ) -> anyhow::Result<Vec<u64>> {
        let entities: Vec<EntityId> = items.iter().map(|&item| EntityId::new(item)).collect();
        let mut counts = vec![0; items.len()];
        let options = read_options(None, cohort, None);
        self.db
            .windowed_counts(&entities, signal, window.into(), &options, &mut counts)
            .map_err(explain)?;
        Ok(counts)
    }

    /// The first items of a ranking, by name.
    ///
    /// # Errors
    ///
    /// When a name is unknown, or the signal has no such window or half-life.
    pub(crate) fn rank(&self, ranking: &Ranking<'_>) -> anyhow::Result<Vec<RankedItem>> {
        let options = read_options(ranking.half_life, ranking.cohort, ranking.now_ns);
        let (signal, window, k) = (ranking.signal, ranking.window.into(), ranking.k);
        let ranked = match ranking.by {
            By::Hot => self.db.hot(signal, k, &options),
            By::Count => self.db.top(signal, window, k, &options),
            By::Velocity => self.db.trending(signal, window, k, &options),
        };
        let named = |Ranked { entity, value, .. }: Ranked| RankedItem {
            name: self.db.entity_text(entity).unwrap_or_else(|| entity.to_string()),
            value,
        };
        Ok(ranked.map_err(explain)?.into_iter().map(named).collect())
    }

    /// The digest of the whole state, in hexadecimal.
    ///
    /// # Errors
    ///
    /// When a cold row cannot be read.
    pub(crate) fn digest(&self) -> anyhow::Result<String> {
        let digest = self.db.state_digest().map_err(explain)?;
        Ok(hex(&digest))
    }

    /// How the database was opened: what was restored, replayed, cut, repaired.
    pub(crate) fn open_report(&self) -> &OpenReport {
        self.db.open_report()
    }

    /// Sizes and positions.
    pub(crate) fn status(&self) -> Status {
        self.db.status()
    }

    /// Saves what is left of a database into a new one.
    ///
    /// # Errors
    ///
    /// When nothing can be saved, something lies at `to`, or the copy cannot be made.
    pub(crate) fn salvage(dir: &Path, to: &Path) -> anyhow::Result<Salvage> {
        expect_database(dir)?;
        TidalDb::salvage(dir, to).map_err(|error| match error {
            Error::Corrupt { .. } => {
                anyhow::Error::from(Failure::failed(error.to_string()).hint("restore a backup"))
            }
            error => explain(error),
        })
    }
}

fn expect_database(dir: &Path) -> anyhow::Result<()> {
    check_dir(dir)?;
    if Engine::is_new(dir) {
        return Err(Failure::failed(format!("there is no database at {}", dir.display()))
            .hint("make one with tidalctl ingest FILE --dir DIR, or tidalctl demo --dir DIR")
            .into());
    }
    Ok(())
}

/// A hash in hexadecimal.
pub(crate) fn hex(hash: &[u8]) -> String {
    hash.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Events that count together or not at all.
pub(crate) struct EventBatch {
    batch: Batch,
}

/// One event of a batch.
#[derive(Debug, Clone, Copy)]
pub(crate) struct NewEvent<'a> {
    pub(crate) signal: &'a str,
    pub(crate) item: u64,
    pub(crate) at_ns: u64,
    pub(crate) weight: f64,
    pub(crate) user: Option<u64>,
    pub(crate) cohort: Option<&'a str>,
    pub(crate) event_id: Option<&'a [u8]>,
}

impl EventBatch {
    /// An empty batch of the positions `first` to `last` of a source.
    pub(crate) fn from_source(source: &str, first: u64, last: u64) -> Self {
        assert!(first <= last, "a batch has at least one position");
        Self { batch: Batch::from_source(source, first, last) }
    }

    /// Adds an event.
    pub(crate) fn push(&mut self, new: &NewEvent<'_>) {
        let at = Timestamp::from_nanos(new.at_ns);
        let mut event = Event::new(new.signal, EntityId::new(new.item), at).weight(new.weight);
        if let Some(user) = new.user {
            event = event.user(UserId::new(user));
        }
        if let Some(cohort) = new.cohort {
            event = event.cohort(cohort);
        }
        if let Some(id) = new.event_id {
            event = event.id(id);
        }
        self.batch.push(event);
    }
}

/// A write on its way.
pub(crate) struct Pending {
    ticket: Ticket,
}

impl Pending {
    /// Waits until the write is durable.
    ///
    /// # Errors
    ///
    /// When it is refused or the engine fails.
    pub(crate) fn wait(self) -> Result<Taken, Rejection> {
        let ack = self.ticket.wait().map_err(Rejection::from)?;
        Ok(match ack.outcome {
            Outcome::Applied => Taken::Applied { duplicates: ack.duplicates.into() },
            Outcome::AlreadyApplied { .. } => Taken::AlreadyApplied,
        })
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        match error {
            // The position is at fault, not what the batch holds.
            Error::Overlap { .. } | Error::Gap { .. } => Self::Failed(explain(error)),
            _ if matches!(error.kind(), ErrorKind::Invalid | ErrorKind::Refused) => {
                Self::BadInput(error.to_string())
            }
            _ => Self::Failed(explain(error)),
        }
    }
}

impl From<Rejection> for anyhow::Error {
    fn from(rejection: Rejection) -> Self {
        match rejection {
            Rejection::BadInput(reason) => Failure::failed(reason).into(),
            Rejection::Failed(error) => error,
        }
    }
}

impl From<Span> for Window {
    fn from(span: Span) -> Self {
        match span {
            Span::Hour => Self::OneHour,
            Span::Day => Self::TwentyFourHours,
            Span::Week => Self::SevenDays,
            Span::Month => Self::ThirtyDays,
            Span::All => Self::AllTime,
        }
    }
}

fn read_options(
    half_life: Option<Duration>,
    cohort: Option<&str>,
    now_ns: Option<u64>,
) -> ReadOptions {
    let mut options = ReadOptions::new();
    if let Some(half_life) = half_life {
        options = options.half_life(half_life);
    }
    if let Some(cohort) = cohort {
        options = options.cohort(cohort);
    }
    if let Some(now_ns) = now_ns {
        options = options.now(Timestamp::from_nanos(now_ns));
    }
    options
}

fn check_dir(dir: &Path) -> Result<(), Failure> {
    if dir.exists() && !dir.is_dir() {
        return Err(Failure::failed(format!("{} is not a directory", dir.display()))
            .hint("--dir is the directory of a database"));
    }
    Ok(())
}

fn no_signals(dir: &Path) -> Failure {
    Failure::usage(format!("{} is a new database: its signals are not known", dir.display()))
        .hint("add --signals NAMES, such as --signals view,purchase")
}

/// Whether the database has no schema: its maker was killed before it had stored one.
fn lacks_schema(error: &Error) -> bool {
    matches!(error, Error::InvalidArgument { what: "schema", .. })
}

fn open_with(
    dir: &Path,
    layout: Option<&Layout>,
    clock: Option<ClockSource>,
) -> tidaldb::Result<TidalDb> {
    let mut builder = TidalDb::builder().with_data_dir(dir);
    if let Some(layout) = layout {
        builder = builder.with_schema(schema_of(layout)?);
    }
    if let Some(clock) = clock {
        builder = builder.with_time_source(match clock {
            ClockSource::Event => TimeSource::Events,
            ClockSource::System => TimeSource::Clock,
        });
    }
    builder.open()
}

fn schema_of(layout: &Layout) -> tidaldb::Result<Schema> {
    let windows: Vec<Window> = layout.windows.iter().map(|&span| span.into()).collect();
    let velocity = windows.iter().any(|window| window.has_velocity());
    let (main, further) = layout.half_lives.split_first().expect("a plan has a half-life");
    let mut builder = SchemaBuilder::new();
    for name in &layout.signals {
        let mut signal = builder
            .signal(name, EntityKind::Item, DecaySpec::Exponential { half_life: *main })
            .half_lives(further)
            .windows(&windows)
            .velocity(velocity);
        if layout.engaging.contains(name) {
            signal = signal.engaging();
        }
        // `build` tells what `add` refuses.
        let _ = signal.add();
    }
    for (attribute, max_members) in &layout.families {
        builder.cohort_family(attribute, *max_members);
    }
    builder.build()
}

/// The error in the command line's words, with advice for whoever sits there.
fn explain(error: Error) -> anyhow::Error {
    Failure::failed(message_of(&error)).maybe_hint(hint_of(&error).map(str::to_owned)).into()
}

fn message_of(error: &Error) -> String {
    match error {
        Error::NowTooOld { now, engine_time } => format!(
            "{} is too far back: the engine's time is {}",
            format_point(now.as_nanos()),
            format_point(engine_time.as_nanos())
        ),
        error if lacks_schema(error) => {
            "the database holds nothing: whoever made it was killed before the first write"
                .to_owned()
        }
        error => error.to_string(),
    }
}

fn hint_of(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::Locked { .. } => "a service that has it answers by itself: see docs/operations.md",
        Error::SchemaMismatch(_) => {
            "leave --signals, --half-life and --windows away to use the stored schema"
        }
        Error::InvalidArgument { what: "time_source", .. } => {
            "leave --clock away; a database keeps the clock it was created with"
        }
        error if lacks_schema(error) => "repeat the ingest that made it",
        Error::NotADatabase { .. } => "check --dir",
        Error::DiskFull { .. } => "make room and run the same command again",
        Error::NowTooOld { .. } => "look from at most 5 minutes before it, or leave --now away",
        _ => match error.kind() {
            ErrorKind::Corrupt => {
                "nothing was changed; restore a backup, or see tidalctl salvage --help"
            }
            ErrorKind::Closed => "run the same command again",
            _ => return None,
        },
    })
}

/// Measures time from its creation; the library has the only clock.
#[derive(Debug)]
pub(crate) struct Stopwatch {
    clock: SystemClock,
}

impl Stopwatch {
    /// Starts at zero.
    pub(crate) fn start() -> Self {
        Self { clock: SystemClock::new() }
    }

    /// Time since the start.
    pub(crate) fn elapsed(&self) -> Duration {
        self.clock.monotonic()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Span;

    #[test]
    fn what_was_killed_before_its_first_write_can_be_repeated() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let refused = open_with(dir.path(), None, None).expect_err("no schema");
        assert!(lacks_schema(&refused), "{refused}");
        assert!(!Engine::is_new(dir.path()), "the failed open left its traces");

        assert!(Engine::open(dir.path()).is_err());
        assert!(Engine::open_or_create(dir.path(), &SchemaPlan::IfNew(None), None).is_err());
        let layout = Layout {
            signals: vec!["view".into()],
            engaging: Vec::new(),
            half_lives: vec![Duration::from_secs(3_600)],
            windows: vec![Span::Hour],
            families: Vec::new(),
        };
        let plan = SchemaPlan::IfNew(Some(layout));
        let engine = Engine::open_or_create(dir.path(), &plan, None).expect("repeated");
        engine.check_signal("view").expect("declared");
    }
}
