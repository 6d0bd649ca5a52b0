//! Processors of sessions: running what a host registers.
//!
//! Knows: who is registered in this open, when each runs, what goes in and what comes out. Must not know:
//! which attempt counts, and when a session has settled: the state decides that.
//!
//! - `processor`, `options`, `stats`: the words for what a host writes, for how it is run, and for what a
//!   run did.
//! - `view`, `outputs`: what a processor is handed.
//! - `book`: where runs are written down.
//! - `entry`: a registered processor, and the one run that it may have; `work`: its thread.
//! - `run`, `batch`: the steps of a run; `candidates`, `walk`: on which sessions, in which order.
//! - `read`: what is known of the processing of a session; `plans`: what an operator does about it.
//! - `usage`, `verification`: processors that come with the library.
//!
//! A run owns nothing of the database: it reaches it through its [`Door`], and finds it closed when it is.

mod batch;
mod book;
mod candidates;
mod entry;
mod options;
mod outputs;
mod plans;
mod processor;
mod read;
mod run;
mod stats;
mod usage;
mod verification;
mod view;
mod walk;
mod work;

pub use options::{ProcessorOptions, RetryPolicy, RunOptions};
pub use outputs::Outputs;
pub use plans::{
    Plan, PlannedReprocess, PlannedRequeue, PlannedReset, ReprocessPlan, RequeuePlan, ResetFilter,
    ResetPlan,
};
pub use processor::{BoxError, ProcessError, Processed, SessionProcessor};
pub use read::{ProcessorOutcome, ProcessorRow, ProcessorStatus, StuckSession};
pub use stats::{RunError, RunStats, StopReason};
pub use usage::{Usage, UsageCount};
pub use verification::Verification;
pub use view::SessionView;
pub(super) use work::SLEEP_MAX as LONGEST_SLEEP;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::Sessions;
use super::door::Door;
use super::jobs::JobStatus;
use crate::clock::Clock;
use crate::engine::{Job, Overtime, Sweep, encoded, engine_now};
use crate::error::{Error, Result};
use crate::fault::Faults;
use crate::ids::{ProcessorId, Timestamp};
use crate::options::{Durability, Runtime};
use crate::processors;
use crate::record::{JobRun, Record, RegisterProcessor};
use crate::state::{Reply, State};
use crate::sync::{JoinHandle, Mutex};
use crate::wal::FrameBody;
use book::Book;
use entry::Entry;
use options::check_processor_name;

/// What a run has of its database.
pub(super) struct Context {
    door: Arc<Door>,
    clock: Arc<dyn Clock>,
    overtime: Arc<Overtime>,
    faults: Faults,
    book: Book,
}

impl Context {
    pub(super) fn new(
        (door, clock): (&Arc<Door>, &Arc<dyn Clock>),
        overtime: &Arc<Overtime>,
        faults: Faults,
    ) -> Self {
        Self {
            door: Arc::clone(door),
            clock: Arc::clone(clock),
            overtime: Arc::clone(overtime),
            faults,
            book: Book::default(),
        }
    }

    /// The time: the clock's, or the events'.
    fn now(&self) -> Result<Timestamp> {
        self.door.now(&*self.clock)
    }

    /// No event is accepted that is later than this; `None` where events advance time.
    fn latest(&self, now: Timestamp) -> Result<Option<Timestamp>> {
        let is_by_events = self.door.look(|inside| Ok(inside.state.header().event_time))?;
        Ok((!is_by_events).then(|| now.saturating_add(self.door.options.max_future_skew)))
    }

    /// Queues a record and waits for its answer.
    fn ask(&self, body: FrameBody, events: usize, latest: Option<Timestamp>) -> Result<Reply> {
        let ticket = self.door.send(body, events, latest, None, false)?;
        ticket.wait_for_reply().map(|(_, reply)| reply)
    }

    /// Writes down which sessions are over, as far as nobody has.
    fn sweep(&self) -> Result<()> {
        let sweep = self.door.look(|inside| {
            Ok(Sweep {
                state: Arc::clone(&inside.state),
                queue: self.door.queue(),
                clock: Arc::clone(&self.clock),
                durability: self.door.options.durability,
                overtime: None,
            })
        })?;
        sweep.run(&|| false).map(drop)
    }
}

/// The processors that are registered in this open of a database.
pub(super) struct Processors {
    context: Arc<Context>,
    /// Held while one is registered, which may wait for the disk. It is taken before the list's own, which
    /// waits for nothing: health looks at that.
    registering: Mutex<()>,
    registered: Mutex<BTreeMap<String, Registered>>,
}

struct Registered {
    entry: Arc<Entry>,
    /// `None` where the caller drives.
    thread: Option<JoinHandle<()>>,
}

/// How a processor was registered.
pub(super) struct Registration {
    pub(super) number: ProcessorId,
    pub(super) cadence: Duration,
    pub(super) attempt_timeout: Duration,
    /// Its last run that has ended.
    pub(super) ran: Option<JobRun>,
}

/// The thread of a processor, as health sees it.
pub(super) struct Observation {
    pub(super) name: String,
    pub(super) age: Duration,
    pub(super) is_restarting: bool,
}

impl Processors {
    /// How those were registered that are, by name.
    pub(super) fn registrations(&self) -> Vec<Registration> {
        let registered = self.registered.lock();
        let of = |Registered { entry, .. }: &Registered| Registration {
            number: entry.number,
            cadence: entry.options.cadence,
            attempt_timeout: entry.attempt_timeout,
            ran: entry.job.look().ended,
        };
        registered.values().map(of).collect()
    }

    /// Their threads, by name.
    pub(super) fn threads(&self) -> Vec<Observation> {
        let registered = self.registered.lock();
        let threads = registered.values().filter(|it| it.thread.is_some());
        let of = |Registered { entry, .. }: &Registered| Observation {
            name: job_name(&entry.name),
            age: entry.pulse.age(),
            is_restarting: entry.pulse.is_restarting(),
        };
        threads.map(of).collect()
    }

    /// The jobs of all that there are, by name.
    pub(super) fn jobs(&self, state: &State) -> Vec<JobStatus> {
        let now = engine_now(state, &*self.context.clock);
        let is_by_events = state.header().event_time;
        let mut live = state.processors.all();
        live.retain(|row| !row.removed);
        live.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        let registered = self.registered.lock();
        let of = |row: processors::ProcessorRow| {
            let name = job_name(&row.name);
            let Some(Registered { entry, .. }) = registered.get(&*row.name) else {
                let runs = Job::after(state.processors.job(row.number)).look();
                return JobStatus::new(name, ProcessorOptions::default().cadence, runs);
            };
            let next_due = (!is_by_events).then(|| entry.due(now));
            let status = JobStatus::new(name, entry.options.cadence, entry.job.look());
            JobStatus { next_due, ..status }
        };
        live.into_iter().map(of).collect()
    }

    /// Writes down what no run has.
    pub(super) fn write_runs(&self) {
        self.context.write_runs();
    }

    /// None is registered yet.
    pub(super) fn new(context: Context) -> Self {
        let context = Arc::new(context);
        Self { context, registering: Mutex::new(()), registered: Mutex::default() }
    }

    /// Stops all of them, and waits for the calls that are going on.
    pub(super) fn close(&self) {
        let mut registered = self.registered.lock();
        let all = std::mem::take(&mut *registered);
        drop(registered);
        all.values().for_each(|registered| registered.entry.stop());
        all.into_values().filter_map(|registered| registered.thread).for_each(work::join);
    }

    fn register(
        &self,
        processor: Box<dyn SessionProcessor>,
        options: ProcessorOptions,
    ) -> Result<()> {
        let door = &self.context.door;
        let (name, version) = (processor.name().to_owned(), processor.version());
        check_processor_name(&name)?;
        options.validate(&door.sessions)?;
        let _alone = self.registering.lock();
        if self.registered.lock().contains_key(&name) {
            let reason = format!("processor {name:?} is registered already: unregister it first");
            return Err(Error::invalid("processor", reason));
        }
        let number = self.make_known(&name, version, options.required)?;
        let runs = self.runs_before(number)?;
        self.context.book.add(number, Arc::clone(&runs.0));
        let attempt_timeout = options.stops_after(&door.sessions);
        let options = (options, attempt_timeout);
        let entry = Arc::new(Entry::new((name.clone(), version, number), options, processor, runs));
        let thread = match door.sessions.runtime {
            Runtime::Threads => {
                let thread = work::start(Arc::clone(&self.context), Arc::clone(&entry));
                Some(thread.inspect_err(|_| self.context.book.remove(number))?)
            }
            Runtime::Manual => None,
        };
        self.registered.lock().insert(name, Registered { entry, thread });
        Ok(())
    }

    /// The runs of a processor as they are written down, and when the last one began; of the future, where a
    /// clock was wrong, is none. Where events advance time there is no telling how long ago one was.
    fn runs_before(&self, processor: ProcessorId) -> Result<(Arc<Job>, Option<Timestamp>)> {
        let now = self.context.now()?;
        self.context.door.look(|inside| {
            let ended = inside.state.processors.job(processor);
            let last = ended.as_ref().map(|run| run.started_at.min(now));
            let last = last.filter(|_| !inside.state.header().event_time);
            Ok((Arc::new(Job::after(ended)), last))
        })
    }

    /// Writes down that there is a processor, unless that is known.
    fn make_known(&self, name: &str, version: u32, required: bool) -> Result<ProcessorId> {
        let door = &self.context.door;
        let known = door.look(|inside| Ok(inside.state.processors.find(name)))?;
        if let Some(row) = known.filter(|row| (row.version, row.required) == (version, required)) {
            return Ok(row.number);
        }
        let record = Record::RegisterProcessor(RegisterProcessor { name, version, required });
        let ticket = door.send(encoded(&record)?, 1, None, Some(Durability::Sync), false)?;
        match ticket.wait_for_reply()? {
            (_, Reply::Registered { processor }) => Ok(processor),
            (_, other) => {
                unreachable!("a registration is answered with a number, not with {other:?}")
            }
        }
    }

    fn unregister(&self, name: &str) -> Result<()> {
        let alone = self.registering.lock();
        let write = || {
            let record = encoded(&Record::RemoveProcessor(name))?;
            let ticket = self.context.door.send(record, 1, None, Some(Durability::Sync), false)?;
            ticket.wait().map(drop)
        };
        let entry = self.registered.lock().get(name).map(|it| Arc::clone(&it.entry));
        match entry {
            Some(entry) => entry.remove(write)?,
            None => write()?,
        }
        let removed = self.registered.lock().remove(name);
        if let Some(Registered { entry, .. }) = &removed {
            self.context.book.remove(entry.number);
            entry.stop();
        }
        // Whoever is called at this moment may want to register somebody.
        drop(alone);
        removed.into_iter().filter_map(|it| it.thread).for_each(work::join);
        Ok(())
    }

    fn find(&self, name: &str) -> Result<Arc<Entry>, RunError> {
        let registered = self.registered.lock();
        if let Some(found) = registered.get(name) {
            return Ok(Arc::clone(&found.entry));
        }
        let known: Vec<String> = registered.keys().cloned().collect();
        Err(RunError::Unknown { processor: name.to_owned(), known })
    }

    fn all(&self) -> Vec<Arc<Entry>> {
        self.registered.lock().values().map(|it| Arc::clone(&it.entry)).collect()
    }

    /// Runs those that are due by the clock, on this thread. One that somebody else runs is left out.
    pub(super) fn drive(&self) -> Result<Vec<RunStats>> {
        let mut stats = Vec::new();
        for entry in self.all() {
            if entry.idle_for(self.context.now()?) > Duration::ZERO {
                continue;
            }
            match run::run(&self.context, &entry, &RunOptions::default()) {
                Ok(run) => stats.push(run),
                Err(RunError::AlreadyRunning { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(stats)
    }
}

/// The name of a processor's job, and of its thread.
fn job_name(processor: &str) -> String {
    format!("processor:{processor}")
}

impl Sessions<'_> {
    /// Registers a processor: from now on, and until the database is closed, it is run at its
    /// [`cadence`](ProcessorOptions::cadence), on a thread of its own; with [`Runtime::Manual`] by
    /// [`drive`](crate::TidalDb::drive).
    ///
    /// It is first run at once if it is new, came back, or has another version than before. One that has run
    /// in an earlier open is due a cadence after its last run began, so that a restart does not run
    /// all of them at the same time. Where events advance time each is run at once.
    ///
    /// That there is a processor of this name is written down, durably when this returns, and stays so
    /// when the database is closed: sessions that begin or end from now on wait for it before they settle,
    /// if it is [required](ProcessorOptions::required). Sessions that have settled before are handed to it
    /// too. With another [`version`](SessionProcessor::version) than before it sees all sessions again;
    /// nothing is written where all is as it was.
    ///
    /// ```
    /// use tidaldb::builtin::Usage;
    /// # use tidaldb::TidalDb;
    /// # use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp};
    /// # use tidaldb::{ProcessorOptions, Runtime, RunOptions, SessionConfig};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let mut sessions = SessionConfig::default();
    /// # sessions.runtime = Runtime::Manual;
    /// # let builder = TidalDb::builder().ephemeral().with_sessions(sessions);
    /// # let db = builder.with_schema(schema.build()?).open()?;
    /// db.sessions().register(Usage::new(), ProcessorOptions::default())?;
    ///
    /// let session = db.start_session(42, "phone", "default")?;
    /// session.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;
    /// let id = session.session_id();
    /// session.close()?;
    ///
    /// let stats = db.sessions().run_processor("usage", RunOptions::new())?;
    /// assert_eq!((stats.processed, stats.items), (1, 1));
    /// let counts = Usage::counts(&db.sessions().outputs("usage", id)?);
    /// assert_eq!((&*counts[0].signal, &*counts[0].agent, counts[0].count), ("view", "phone", 1));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Nothing was changed in any of these cases:
    ///
    /// - [`InvalidArgument`](Error::InvalidArgument): the name is not plain; options that make no sense;
    ///   one of this name is registered already; within a view, since it may wait for the writer.
    /// - [`TooLarge`](Error::TooLarge): there were 64 names of processors before.
    /// - Those of [`Ticket::wait`](crate::Ticket::wait).
    ///
    /// [`Io`](Error::Io): there can be no further thread. Here alone the registration was written, so sessions
    /// wait for it, if it is required: register it again, or [`unregister`](Self::unregister) it.
    pub fn register(
        &self,
        processor: impl SessionProcessor,
        options: ProcessorOptions,
    ) -> Result<()> {
        self.db.expect_no_view()?;
        self.db.processors.register(Box::new(processor), options)
    }

    /// A processor is there no more, be it registered in this process or not. The call that its thread
    /// is making is waited for, unless a processor asks for it, and counts no more; nor does what a run
    /// does that goes on. Sessions that waited for it wait no longer. What it has made stays, and is found by it
    /// when a processor of this name is registered again. What it had given up it may try again then.
    ///
    /// # Errors
    ///
    /// [`UnknownName`](Error::UnknownName); those of [`Ticket::wait`](crate::Ticket::wait), such as
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](crate::TidalDb::consistent). Then
    /// nothing has changed, and it is run as before.
    pub fn unregister(&self, name: &str) -> Result<()> {
        self.db.expect_no_view()?;
        self.db.processors.unregister(name)
    }

    /// Runs a processor now, on this thread, whatever its cadence. Sessions whose time is over are among
    /// those it is handed, whether or not anyone has noticed. First come those that were never attempted,
    /// the oldest first, then those with the fewest attempts.
    ///
    /// # Errors
    ///
    /// [`RunError::Unknown`], [`RunError::AlreadyRunning`]: nothing was done. [`RunError::Storage`]: what
    /// was written down before counts; with [`InvalidArgument`](Error::InvalidArgument), within
    /// [`consistent`](crate::TidalDb::consistent), nothing was.
    pub fn run_processor(&self, name: &str, options: RunOptions) -> Result<RunStats, RunError> {
        self.db.expect_no_view()?;
        let entry = self.db.processors.find(name)?;
        run::run(&self.db.processors.context, &entry, &options)
    }

    /// Makes one run of every registered processor, by name, without limits of time or number. What waits for
    /// a later attempt is tried too, once; if it fails again it stays.
    ///
    /// # Errors
    ///
    /// Stops at the first processor that is already running ([`RunError::AlreadyRunning`]), or at the first
    /// error of storage, as [`run_processor`](Self::run_processor): those that were run before count, and their
    /// answers are gone.
    pub fn catch_up(&self) -> Result<Vec<RunStats>, RunError> {
        self.db.expect_no_view()?;
        let options = RunOptions {
            ignore_backoff: true,
            time_budget: Some(Duration::MAX),
            max_sessions: std::num::NonZeroU32::new(u32::MAX),
            ..RunOptions::default()
        };
        let context = &self.db.processors.context;
        self.db.processors.all().iter().map(|entry| run::run(context, entry, &options)).collect()
    }
}
