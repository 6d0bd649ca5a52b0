//! Opening a database.

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::door::{Door, Inside};
use super::health::{Probe, last_open};
use super::jobs::OwnJobs;
use super::processors::{Context, Processors};
use super::sessions::{PRUNE_INTERVAL, Pruner};
use super::{Stored, TidalDb};
use crate::clock::{Clock, Stopwatch, SystemClock};
use crate::engine::{
    Alarm, Checkpointer, CheckpointerSetup, Hub, Lag, Listeners, Overtime, Positions, Pulse, Queue,
    Sweeper, Writer, guarded, spawn,
};
use crate::error::{Error, Result};
use crate::options::{FUTURE_SKEW_MAX, Options, Runtime, SessionConfig, TimeSource};
use crate::recovery::{self, DurableParts, Recovered, Wanted};
use crate::schema::Schema;
use crate::signals::WEIGHT_SIZES;
use crate::storage::Machine;
use crate::sync::{Mutex, RwLock};

/// Says where and how to open a database; made by [`TidalDb::builder`].
#[derive(Debug, Clone)]
#[must_use = "nothing happens before open()"]
pub struct Builder {
    place: Option<Place>,
    schema: Option<Schema>,
    options: Options,
    sessions: SessionConfig,
    clock: Arc<dyn Clock>,
    time_source: Option<TimeSource>,
    machine: Machine,
}

#[derive(Debug, Clone)]
enum Place {
    Directory(PathBuf),
    Memory,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self {
            place: None,
            schema: None,
            options: Options::default(),
            sessions: SessionConfig::default(),
            clock: Arc::new(SystemClock::new()),
            time_source: None,
            machine: Machine::default(),
        }
    }

    /// The directory of the database, made if missing.
    pub fn with_data_dir(mut self, path: impl Into<PathBuf>) -> Self {
        self.place = Some(Place::Directory(path.into()));
        self
    }

    /// No directory: the state lives in memory and is gone with the process.
    pub fn ephemeral(mut self) -> Self {
        self.place = Some(Place::Memory);
        self
    }

    /// The schema. A new database needs one; an existing one takes additions from it, and is not
    /// opened if anything else differs. Without it the stored one is used.
    pub fn with_schema(mut self, schema: Schema) -> Self {
        self.schema = Some(schema);
        self
    }

    /// Limits and policies.
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// How sessions are handled: at open, at close, in between.
    pub fn with_sessions(mut self, sessions: SessionConfig) -> Self {
        self.sessions = sessions;
        self
    }

    /// Where the time comes from; the system's clock otherwise.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Whether the clock or the events advance engine time; decided when a database is created, and
    /// checked afterwards.
    pub const fn with_time_source(mut self, source: TimeSource) -> Self {
        self.time_source = Some(source);
        self
    }

    /// What it runs on instead of the operating system's files and fjall: a way in for tests.
    #[doc(hidden)]
    pub fn with_machine(mut self, machine: Machine) -> Self {
        self.machine = machine;
        self
    }

    /// The directory that was said.
    pub(super) fn directory(&self) -> Result<&Path> {
        match &self.place {
            Some(Place::Directory(path)) => Ok(path),
            Some(Place::Memory) | None => Err(Error::invalid("builder", "say with_data_dir(path)")),
        }
    }

    /// The same in another directory, where nothing happens by itself.
    pub(super) fn of_copy(mut self, path: &Path) -> Self {
        self.place = Some(Place::Directory(path.to_owned()));
        self.sessions.runtime = Runtime::Manual;
        self
    }

    /// Opens: takes the lock, loads the newest checkpoint that verifies, replays the log after it,
    /// and starts the engine. What was found and done is in [`TidalDb::open_report`].
    ///
    /// # Errors
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument): no place was given; a new database without a
    ///   schema; another time source than the stored one; options that contradict each other.
    /// - [`SchemaMismatch`](Error::SchemaMismatch): the stored schema cannot be extended to the given
    ///   one. Nothing was changed.
    /// - [`Locked`](Error::Locked), [`ReadOnly`](Error::ReadOnly), [`DiskFull`](Error::DiskFull),
    ///   [`Io`](Error::Io).
    /// - [`NotADatabase`](Error::NotADatabase), [`FormatTooNew`](Error::FormatTooNew): nothing was
    ///   changed.
    /// - [`CorruptLog`](Error::CorruptLog), [`LogGap`](Error::LogGap), [`Corrupt`](Error::Corrupt):
    ///   damage of what was proven to be synced. Nothing was changed; restore a backup, or
    ///   [`salvage`](TidalDb::salvage) what is left.
    pub fn open(self) -> Result<TidalDb> {
        check_options(&self.options)?;
        self.sessions.validate()?;
        let wanted = Wanted {
            schema: self.schema,
            time_source: self.time_source,
            clock: Arc::clone(&self.clock),
            options: self.options.clone(),
            sessions: self.sessions,
            machine: self.machine,
        };
        match self.place {
            Some(Place::Directory(path)) => {
                let path = absolute(&path)?;
                let _open = tracing::info_span!("open", path = %path.display()).entered();
                start(recovery::open(&path, &wanted)?, wanted)
            }
            Some(Place::Memory) => start(recovery::ephemeral(&wanted)?, wanted),
            None => Err(Error::invalid("builder", "say with_data_dir(path) or ephemeral()")),
        }
    }
}

/// Starts the threads of a recovered database.
fn start(recovered: Recovered, wanted: Wanted) -> Result<TidalDb> {
    let Recovered { state, journal, stamper, database, durable, report } = recovered;
    let Wanted { clock, options, sessions, machine, .. } = wanted;
    let queue = Arc::new(Queue::new(options.queue_size_bytes_max));
    let (size_bytes, appended_bytes) = (journal.size_bytes(), journal.bytes());
    let positions = Arc::new(Positions::at(state.header(), size_bytes, appended_bytes));
    let shared = (Arc::clone(&state), Arc::clone(&queue), Arc::clone(&positions));
    let overtime = Arc::new(Overtime::new(&sessions));
    let listeners = Listeners {
        hub: Arc::new(Hub::new(sessions.event_queue_len)),
        alarm: Arc::new(Alarm::new(&overtime)),
    };
    let of_writer = (machine.faults.clone(), options.mark_after);
    let (listening, alarm) = (listeners.clone(), listeners.alarm);
    let writer = Writer::new(shared.0, shared.1, shared.2, journal, stamper, listening, of_writer)?;
    let work = guarded(Arc::clone(&positions), Arc::clone(&queue), move || writer.run());
    let thread = spawn("tidal-writer", work)?;
    let inside = Inside {
        state: Arc::clone(&state),
        stores: durable.as_ref().map(|durable| Arc::clone(&durable.stores)),
    };
    let config = (options.clone(), sessions.clone());
    let door = Door::new(Arc::clone(&queue), Arc::clone(&positions), config, inside);
    let door = Arc::new(door);
    let context = Context::new((&door, &clock), &overtime, machine.faults.clone());
    let processors = Arc::new(Processors::new(context));
    let beats = Beats::default();
    let probe = Probe {
        state: Arc::clone(&state),
        positions: Arc::clone(&positions),
        clock: Arc::clone(&clock),
        options: options.clone(),
        sessions: sessions.clone(),
        stores: durable.as_ref().map(|durable| Arc::clone(&durable.stores)),
        lag: Arc::clone(&beats.lag),
        overtime: Arc::clone(&overtime),
        tasks: beats.tasks(&options, &sessions, durable.is_some()),
        processors: Arc::clone(&processors),
        opened: last_open(&report),
        since_opened: Stopwatch::start(),
    };
    let mut db = TidalDb {
        state,
        queue,
        positions,
        clock,
        options,
        sessions,
        door,
        processors,
        database,
        stores: None,
        checkpointer: None,
        hub: listeners.hub,
        overtime,
        sweeper: None,
        pruner: None,
        writer: Mutex::new(Some(thread)),
        report,
        probe: Arc::new(RwLock::new(Some(probe))),
        watches: Mutex::default(),
        jobs: OwnJobs::default(),
        backing_up: Mutex::new(()),
        stored: None,
        faults: machine.faults,
    };
    start_background(&mut db, durable, beats, alarm)?;
    Ok(db)
}

/// What the threads of the background beat, for health to feel.
struct Beats {
    sweeping: Arc<Pulse>,
    checkpointing: Arc<Pulse>,
    pruning: Arc<Pulse>,
    lag: Arc<Lag>,
}

impl Default for Beats {
    fn default() -> Self {
        let pulse = || Arc::new(Pulse::new());
        Self { sweeping: pulse(), checkpointing: pulse(), pruning: pulse(), lag: Arc::default() }
    }
}

impl Beats {
    /// The threads that there will be, and how long each may sleep.
    fn tasks(
        &self,
        options: &Options,
        sessions: &SessionConfig,
        is_durable: bool,
    ) -> Vec<(&'static str, Arc<Pulse>, Duration)> {
        let sleep = sessions.sweep_interval.max(sessions.background_retry);
        let sweeper = ("sweeper", Arc::clone(&self.sweeping), sleep);
        let interval = options.checkpoint_interval;
        let checkpointer = ("checkpointer", Arc::clone(&self.checkpointing), interval);
        let pruner = ("pruner", Arc::clone(&self.pruning), PRUNE_INTERVAL);
        let has_threads = sessions.runtime == Runtime::Threads;
        let pruner = (has_threads && sessions.prune_after.is_some()).then_some(pruner);
        let sweeper = has_threads.then_some(sweeper);
        let checkpointer = is_durable.then_some(checkpointer);
        sweeper.into_iter().chain(checkpointer).chain(pruner).collect()
    }
}

/// Starts what works by itself: checkpoints, sweeps.
fn start_background(
    db: &mut TidalDb,
    durable: Option<DurableParts>,
    beats: Beats,
    alarm: Arc<Alarm>,
) -> Result<()> {
    if let Some(DurableParts { stores, keeper, operations, lock, log_dir, disk }) = durable {
        db.stored = Some(Stored { disk, log_dir, _lock: lock });
        db.stores = Some(Arc::clone(&stores));
        db.checkpointer = Some(Checkpointer::start(CheckpointerSetup {
            state: Arc::clone(&db.state),
            queue: Arc::clone(&db.queue),
            positions: Arc::clone(&db.positions),
            stores,
            keeper,
            options: db.options.clone(),
            operations,
            pulse: beats.checkpointing,
            lag: beats.lag,
            job: Arc::clone(&db.jobs.checkpointing),
            clock: Arc::clone(&db.clock),
        })?);
    }
    if db.sessions.runtime == Runtime::Threads {
        let woken = (alarm, beats.sweeping, Arc::clone(&db.jobs.sweeping));
        db.sweeper = Some(Sweeper::start(db.due(), &db.sessions, woken)?);
    }
    if let Some(keep_for) = db.sessions.prune_after {
        let pruner = Arc::new(Pruner::new(db.pruning(), keep_for, beats.pruning));
        if db.sessions.runtime == Runtime::Threads {
            pruner.start(db.sessions.background_retry)?;
        }
        db.pruner = Some(pruner);
    }
    Ok(())
}

/// A path that means the same when the process changes its directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|e| Error::io("look at", path, e))
}

/// How large segments may be, see [`Options::segment_size_bytes`].
const SEGMENT_SIZES_BYTES: RangeInclusive<u64> = 2 << 10..=1 << 30;

fn check_options(options: &Options) -> Result<()> {
    let positive = [
        (
            "segment_size_bytes",
            SEGMENT_SIZES_BYTES.contains(&options.segment_size_bytes),
            "it must be 2 KiB to 1 GiB",
        ),
        ("checkpoint_log_bytes", options.checkpoint_log_bytes > 0, "it must not be 0"),
        ("checkpoint_interval", !options.checkpoint_interval.is_zero(), "it must not be 0"),
        ("max_clock_jump", !options.max_clock_jump.is_zero(), "it must not be 0"),
        ("batch_len_max", options.batch_len_max > 0, "it must not be 0"),
        ("queue_size_bytes_max", options.queue_size_bytes_max > 0, "it must not be 0"),
        (
            "max_future_skew",
            options.max_future_skew <= FUTURE_SKEW_MAX,
            "it must be 2 h at most: windows keep no more of the future",
        ),
        ("weight_max", WEIGHT_SIZES.contains(&options.weight_max), "it must be 1e-100 to 1e100"),
    ];
    match positive.into_iter().find(|(_, sound, _)| !sound) {
        Some((field, _, reason)) => Err(Error::invalid(field, reason)),
        None => Ok(()),
    }
}
