//! Jobs: what is done again and again, and how it went.
//!
//! Knows: which jobs there are, and where each of them is looked at. Must not know: what they do.

use std::sync::Arc;
use std::time::Duration;

use super::Sessions;
use super::sessions::PRUNE_INTERVAL;
use crate::engine::{Job, Runs};
use crate::ids::Timestamp;
use crate::record::JobOutcome;

/// A job of a database, and how it stands; from [`Sessions::jobs`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct JobStatus {
    /// `processor:<name>`, `sweep`, `checkpoint`, `prune`, or `health`.
    pub name: String,
    /// How long after the beginning of a run the next one is due; of a processor that is not registered in
    /// this open what is usual.
    pub cadence: Duration,
    /// Since when it has been running, if it is.
    pub in_flight_since: Option<Timestamp>,
    /// When its last run began, the one that is going on included.
    pub last_started: Option<Timestamp>,
    /// When its last run ended, however it did.
    pub last_finished: Option<Timestamp>,
    /// How that one ended.
    pub last_outcome: Option<JobOutcome>,
    /// How many runs have ended without success since one did.
    pub consecutive_failures: u32,
    /// When it is due, be that past. `None`: nobody runs it by the clock in this open, or there is nothing to
    /// do, or events advance time.
    pub next_due: Option<Timestamp>,
}

impl JobStatus {
    pub(super) fn new(name: String, cadence: Duration, runs: Runs) -> Self {
        let Runs { in_flight_since, ended, next_due, .. } = runs;
        let last_started = in_flight_since.or(ended.as_ref().map(|run| run.started_at));
        Self {
            name,
            cadence,
            in_flight_since,
            last_started,
            last_finished: ended.as_ref().map(|run| run.finished_at),
            consecutive_failures: ended.as_ref().map_or(0, |run| run.failures),
            last_outcome: ended.map(|run| run.outcome),
            next_due,
        }
    }
}

/// What the database itself does again and again.
#[derive(Default)]
pub(super) struct OwnJobs {
    pub(super) sweeping: Arc<Job>,
    pub(super) checkpointing: Arc<Job>,
}

impl Sessions<'_> {
    /// The jobs of the database and how each stands: every processor that there is, by name, be it registered
    /// in this open or not; `sweep`; `checkpoint`, unless the database is in memory; `prune`, where
    /// [`prune_after`](crate::SessionConfig::prune_after) is set; and `health`, once for each [watch](crate::TidalDb::watch_health).
    ///
    /// What is known of processors survives restarts and crashes: a run that attempted something, failed or
    /// panicked is written down when it ends, and takes those with it that found nothing to do; those that
    /// it could not take are written down by [`close`](crate::TidalDb::close). So after a crash a processor
    /// may run once before its time, and find nothing to do; of a run that the crash cut off nothing is known here,
    /// but by the attempts that it had begun. Of the other jobs only this open is known.
    ///
    /// A run of a processor has failed if all that it attempted has, or if the database was in its way. One that
    /// attempted nothing while sessions wait to be tried again leaves all as the one before left it.
    ///
    /// Costs next to nothing, waits for no disk, and may be called from any thread.
    ///
    /// ```
    /// use tidaldb::builtin::Usage;
    /// use tidaldb::{JobOutcome, ProcessorOptions};
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # use tidaldb::{RunOptions, Runtime, SessionConfig, TidalDb};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let mut sessions = SessionConfig::default();
    /// # sessions.runtime = Runtime::Manual;
    /// # let builder = TidalDb::builder().ephemeral().with_sessions(sessions);
    /// # let db = builder.with_schema(schema.build()?).open()?;
    /// db.sessions().register(Usage::new(), ProcessorOptions::default())?;
    /// db.sessions().run_processor("usage", RunOptions::new())?;
    ///
    /// let jobs = db.sessions().jobs();
    /// assert_eq!((&*jobs[0].name, &jobs[0].last_outcome), ("processor:usage", &Some(JobOutcome::Success)));
    /// assert_eq!(&*jobs[1].name, "sweep");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn jobs(&self) -> Vec<JobStatus> {
        let db = self.db;
        let mut jobs = db.processors.jobs(&db.state);
        let is_by_events = db.state.header().event_time;
        let own = |name: &str, cadence, job: &Job| {
            let status = JobStatus::new(name.to_owned(), cadence, job.look());
            JobStatus { next_due: status.next_due.filter(|_| !is_by_events), ..status }
        };
        jobs.push(own("sweep", db.sessions.sweep_interval, &db.jobs.sweeping));
        if db.checkpointer.is_some() {
            let cadence = db.options.checkpoint_interval;
            jobs.push(own("checkpoint", cadence, &db.jobs.checkpointing));
        }
        if let Some(pruner) = &db.pruner {
            let status = own("prune", PRUNE_INTERVAL, &pruner.job);
            let next_due = pruner.due(db.default_now()).filter(|_| !is_by_events);
            jobs.push(JobStatus { next_due, ..status });
        }
        let watches = db.watches.lock();
        let watching = watches.iter().filter(|watch| watch.is_kept());
        jobs.extend(watching.map(|watch| own("health", watch.interval, &watch.job)));
        jobs
    }
}
