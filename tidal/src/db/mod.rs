//! The public calls.
//!
//! Knows: the order of steps of each call, and what needs no state to be refused. Must not know: how
//! bytes lie.

mod backup;
mod batch;
mod builder;
mod co_engagement;
mod collections;
mod door;
mod health;
mod inspect;
mod items;
mod jobs;
mod metrics;
pub mod processing;
mod processors;
#[cfg(all(test, shuttle))]
mod races;
mod read;
mod recommend;
mod report;
mod salvage;
mod sessions;
mod ticket;
mod view;
mod walk;
mod watch;
mod write;

pub use backup::Backup;
pub use batch::{Batch, Event};
pub use builder::Builder;
pub use co_engagement::CoEngagementReader;
pub use collections::{CollectionAck, CollectionChange};
pub use inspect::Inspection;
pub use jobs::JobStatus;
pub use metrics::{Metric, MetricDescription, MetricKind};
pub use processors::{
    BoxError, Outputs, Plan, PlannedReprocess, PlannedRequeue, PlannedReset, ProcessError,
    Processed, ProcessorOptions, ProcessorOutcome, ProcessorRow, ProcessorStatus, ReprocessPlan,
    RequeuePlan, ResetFilter, ResetPlan, RetryPolicy, RunError, RunOptions, RunStats,
    SessionProcessor, SessionView, StopReason, StuckSession, Usage, UsageCount, Verification,
};
pub use read::{Ranked, ReadOptions};
pub use recommend::{ExcludeSeeds, Reason, RecommendOptions, Recommendations, Recommended};
pub use report::{Status, StoreStatus};
pub use salvage::Salvage;
pub use sessions::{
    Applied, CloseError, DeliveredEvent, DriveReport, EventCursor, PlannedPrune, PlannedSweep,
    PrunePlan, Retention, SessionFilter, SessionHandle, SessionSignal, Sessions, SkipReason,
    SweepChange, SweepPlan, SweepReport,
};
pub use ticket::{Ack, Outcome, Ticket};
pub use view::View;
pub use watch::HealthWatch;

use door::Door;
use health::Probe;
use jobs::OwnJobs;
use processors::Processors;
use sessions::Pruner;
use watch::Watch;

use std::path::PathBuf;
use std::sync::Arc;

use crate::checkpoint::StorePair;
use crate::clock::Clock;
use crate::engine::{
    Barrier, Checkpointer, Hub, Overtime, Positions, Queue, Sweeper, body_of, encoded, promise,
};
use crate::error::{Error, Result};
use crate::fault::{CrashPoint, Faults};
use crate::ids::{DatabaseId, Timestamp, counted};
use crate::options::{Durability, Options, SessionConfig};
use crate::record::Record;
use crate::recovery::OpenReport;
use crate::schema::Schema;
use crate::seq::Seq;
use crate::state::State;
use crate::storage::Disk;
use crate::sync::{JoinHandle, Mutex, RwLock, Sender};
use crate::table::StoreSlot;
use crate::verify::VerifyReport;
use crate::wal::Scan;

/// An open database.
///
/// It may be shared among threads (`Send + Sync`); every call takes `&self` but
/// [`close`](Self::close). Writes are put into one log by one thread; reads take a read lock on what
/// they read, and are blocked by no I/O of writes and checkpoints. What lies in the checkpoint stores is
/// read from there: by [`get_item_metadata`](Self::get_item_metadata), and with it by recommendations that
/// cap the items of a [group](RecommendOptions::at_most_per).
///
/// ```
/// use std::time::Duration;
/// use tidaldb::TidalDb;
/// use tidaldb::schema::{DecaySpec, EntityId, EntityKind, SchemaBuilder, Timestamp, Window};
///
/// let mut schema = SchemaBuilder::new();
/// let half_life = Duration::from_secs(86_400);
/// let _ = schema
///     .signal("view", EntityKind::Item, DecaySpec::Exponential { half_life })
///     .windows(&[Window::OneHour, Window::AllTime])
///     .add();
/// let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
///
/// db.signal("view", EntityId::new(7), 1.0, Timestamp::now())?;
/// assert_eq!(db.read_windowed_count(EntityId::new(7), "view", Window::OneHour)?, 1);
/// # Ok::<(), tidaldb::Error>(())
/// ```
pub struct TidalDb {
    state: Arc<State>,
    queue: Arc<Queue>,
    positions: Arc<Positions>,
    clock: Arc<dyn Clock>,
    options: Options,
    sessions: SessionConfig,
    /// What handles have of it.
    door: Arc<Door>,
    database: DatabaseId,
    stores: Option<Arc<StorePair>>,
    checkpointer: Option<Checkpointer>,
    /// Who processes them.
    processors: Arc<Processors>,
    /// Who is told of sessions.
    hub: Arc<Hub>,
    /// What is said of work that takes long, whoever sweeps.
    overtime: Arc<Overtime>,
    /// `None` where the caller drives.
    sweeper: Option<Sweeper>,
    /// `None` where sessions are kept for ever.
    pruner: Option<Arc<Pruner>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    report: OpenReport,
    /// What health is judged by; gone once the database is closed.
    probe: Arc<RwLock<Option<Probe>>>,
    /// Those who look at it now and then.
    watches: Mutex<Vec<Watch>>,
    /// What it does again and again.
    jobs: OwnJobs,
    /// Held by the one backup that is written.
    backing_up: Mutex<()>,
    /// Where it lies on disk, and the lock on it, held until the last thread is gone.
    stored: Option<Stored>,
    faults: Faults,
}

/// A database's place on disk.
struct Stored {
    disk: Arc<dyn Disk>,
    log_dir: PathBuf,
    _lock: Box<dyn Send + Sync>,
}

impl Stored {
    fn verify_log(&self, database: DatabaseId) -> Result<String> {
        let scan = Scan::run(Arc::clone(&self.disk), self.log_dir.clone(), database)?;
        let tail = scan.resolve_as_is()?;
        Ok(format!("frames {} to {}, proven through {}", tail.first(), tail.last(), tail.proven()))
    }
}

fn verify_store(stores: &StorePair, slot: StoreSlot) -> Result<String> {
    Ok(match stores.verify(slot)? {
        Some((pages, rows)) => {
            format!("{} and {} of its checkpoint", counted(pages, "page"), counted(rows, "row"))
        }
        None => "no checkpoint yet".to_owned(),
    })
}

impl std::fmt::Debug for TidalDb {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TidalDb").field("database", &self.database).finish_non_exhaustive()
    }
}

impl TidalDb {
    /// Says where and how to open a database.
    pub fn builder() -> Builder {
        Builder::new()
    }

    /// The schema as it stands.
    pub fn schema(&self) -> Schema {
        self.state.declared().schema.clone()
    }

    /// What opening found and did.
    pub const fn open_report(&self) -> &OpenReport {
        &self.report
    }

    /// The last operation that reads can see.
    pub fn applied(&self) -> Seq {
        self.positions.applied()
    }

    /// The last operation that survives a power cut; of an ephemeral database, which survives nothing,
    /// the last applied.
    pub fn durable(&self) -> Seq {
        match self.stored {
            Some(_) => self.positions.synced(),
            None => self.applied(),
        }
    }

    /// The time that the last operation was stamped with.
    pub fn engine_time(&self) -> Timestamp {
        self.state.header().engine_time
    }

    /// Makes everything written so far survive a power cut; returns through where.
    ///
    /// # Errors
    ///
    /// [`Stopped`](Error::Stopped) or [`Closed`](Error::Closed); then nothing is promised.
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](Self::consistent).
    pub fn flush(&self) -> Result<Seq> {
        self.door.flush()
    }

    /// Writes a checkpoint now, to the store whose turn it is; returns what it contains. Later opens
    /// replay the log from there. Ephemeral databases have none: the answer is what is applied.
    ///
    /// # Errors
    ///
    /// [`Stopped`](Error::Stopped) or [`Closed`](Error::Closed); [`Store`](Error::Store) and the
    /// like when the store failed, which is then rebuilt by itself.
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](Self::consistent).
    pub fn checkpoint(&self) -> Result<Seq> {
        self.expect_no_view()?;
        match &self.checkpointer {
            Some(checkpointer) => checkpointer.checkpoint(),
            None => Ok(self.applied()),
        }
    }

    /// BLAKE3 over a canonical dump of the state: equal for equal states, however they were reached.
    ///
    /// After a crash it equals the digest of the same operations applied to a fresh database at the
    /// same engine times, up to the last one that survived. (Times are part of the state: to compare
    /// two databases, let events advance time, or script the clock.) Sorts everything while the writer
    /// waits: for tests and audits, not for the hot path.
    ///
    /// # Errors
    ///
    /// [`Store`](Error::Store) or [`Corrupt`](Error::Corrupt) when cold rows cannot be read.
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](Self::consistent).
    pub fn state_digest(&self) -> Result<[u8; 32]> {
        self.expect_no_view()?;
        let _paused = self.pause();
        let mut cold = Vec::new();
        for table in self.state.cold_tables() {
            let mut sum = match &self.stores {
                Some(stores) => stores.cold_sum(&table)?,
                None => crate::checkpoint::ColdSum::of_pending(&table),
            };
            if table.id() == crate::sessions::Sessions::ENDED {
                let hot = self.state.sessions.canonical_rows();
                hot.iter().for_each(|(id, row)| sum.add(table.id(), *id, row));
            }
            cold.push((table.id(), sum.rows, sum.sum));
        }
        Ok(self.state.digest(&cold))
    }

    /// Walks everything and checks every invariant: indexes, top lists, bucket lists; each page, row
    /// and manifest of both stores against its hash; each frame of the log.
    ///
    /// Changes nothing; both stores are synced first, so that what is read is what they have. The
    /// writer waits while the state and the log are walked.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) within [`consistent`](Self::consistent). Whatever is
    /// damaged, or cannot be read, is in the report.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.expect_no_view()?;
        let paused = self.pause();
        let mut report = VerifyReport::of_state(&self.state);
        if let Some(stored) = &self.stored {
            report.add("the log".to_owned(), stored.verify_log(self.database));
        }
        // The stores have a lock of their own, which a checkpoint may hold while it waits for the
        // writer.
        drop(paused);
        if let Some(stores) = &self.stores {
            for slot in StoreSlot::BOTH {
                report.add(format!("store {}", slot.name()), verify_store(stores, slot));
            }
        }
        Ok(report)
    }

    /// Whether the engine takes writes and both checkpoint stores are sound: the yes or no of
    /// [`health`](Self::health).
    ///
    /// # Errors
    ///
    /// [`Stopped`](Error::Stopped) after a failure of the log; [`ClockJumped`](Error::ClockJumped)
    /// when the last write was refused for it; [`Store`](Error::Store) while a store is being rebuilt.
    pub fn health_check(&self) -> Result<()> {
        if let Some(reason) = self.positions.failure() {
            return Err(Error::Stopped { reason });
        }
        match self.positions.clock_jump_ms() {
            0 => {}
            jump_ms => return Err(Error::ClockJumped { jump_ms }),
        }
        match &self.checkpointer {
            Some(checkpointer) => checkpointer.health(),
            None => Ok(()),
        }
    }

    /// Accepts the clock as it is, after it jumped ahead or turned out to have been wrong before.
    ///
    /// Engine time becomes the clock's time, be it earlier; the reset is in the log. Events that were
    /// stamped in a time that never was leave the windows. A decayed score that such events lifted
    /// beyond 2^48 starts from zero; one that they lifted less, or that was beyond it before, stays as it is.
    /// Nothing that does not decay is lifted. Edges weigh at most what
    /// their pairs weigh at the new time, and trails were touched last then.
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](Error::InvalidArgument) where events advance time;
    /// [`Stopped`](Error::Stopped) or [`Closed`](Error::Closed).
    pub fn reset_clock(&self) -> Result<Ack> {
        if self.state.header().event_time {
            let reason = "events advance this database's time, whatever the clock says";
            return Err(Error::invalid("reset_clock", reason));
        }
        let body = body_of(&Record::ResetClock(Timestamp::EPOCH));
        self.send(body, 0, None, None, true)?.wait()
    }

    /// Closes the database: no more writes are taken, all that were are synced and checkpointed, the
    /// lock is freed. Processors are asked to stop, and the calls that are going on are waited for.
    ///
    /// # Errors
    ///
    /// [`Stopped`](Error::Stopped) after an earlier failure; the checkpoint's failure otherwise.
    /// [`ClockJumped`](Error::ClockJumped) with [`ClosePolicy::EndAll`](crate::ClosePolicy::EndAll): open
    /// sessions stay open. It is closed in each case, and acknowledged operations are safe: the log has them.
    pub fn close(self) -> Result<()> {
        self.stop_watches();
        let ended = self.end_with_database();
        let checkpointed = match &self.checkpointer {
            Some(checkpointer) => checkpointer.close(),
            None => Ok(()),
        };
        self.faults.reach(CrashPoint::CloseCheckpointed);
        let closed = self.shut();
        self.hub.close();
        checkpointed.and(closed).and(ended)
    }

    /// Keeps the writer from changing anything until the guard is dropped. A writer that has stopped
    /// changes nothing anyway.
    fn pause(&self) -> Option<Sender<()>> {
        let (answer, pending) = promise();
        self.queue.push_barrier(Barrier::Pause(answer)).ok()?;
        pending.wait().ok()
    }

    /// Queues a record.
    fn send(
        &self,
        body: crate::wal::FrameBody,
        events: usize,
        latest: Option<Timestamp>,
        durability: Option<Durability>,
        resets_clock: bool,
    ) -> Result<Ticket> {
        self.door.send(body, events, latest, durability, resets_clock)
    }

    /// Queues a small record and waits for its answer.
    fn write_record(&self, record: &Record<'_>) -> Result<Ack> {
        self.send(encoded(record)?, 1, None, None, false)?.wait()
    }

    fn shut(&self) -> Result<()> {
        self.door.close();
        let Some(thread) = self.writer.lock().take() else { return Ok(()) };
        let (answer, pending) = promise();
        self.queue.close(answer);
        let ended = thread.join();
        // Of a writer that was gone already nobody would hear: the promise is dropped here.
        self.queue.abandon(Error::Closed);
        let closed = pending.wait();
        match self.positions.failure() {
            Some(reason) => Err(Error::Stopped { reason }),
            None if ended.is_err() => {
                Err(Error::Stopped { reason: "the writer thread panicked".to_owned() })
            }
            None => closed,
        }
    }
}

impl Drop for TidalDb {
    /// Stops the threads. What was acknowledged is safe; no checkpoint is written.
    fn drop(&mut self) {
        self.stop_watches();
        self.processors.close();
        if let Some(sweeper) = &self.sweeper {
            sweeper.stop();
        }
        if let Some(pruner) = &self.pruner {
            pruner.stop();
        }
        if let Some(checkpointer) = &self.checkpointer {
            checkpointer.stop();
        }
        if let Err(error) = self.shut() {
            tracing::warn!(%error, "the database was not closed cleanly");
        }
        self.hub.close();
    }
}

/// A name must have 1 to `name_size_bytes_max` bytes.
fn check_name(what: &'static str, name: &str, options: &Options) -> Result<()> {
    if name.is_empty() {
        return Err(Error::invalid(what, "the name is empty"));
    }
    check_size(what, name.len(), options.name_size_bytes_max)
}

fn check_size(what: &'static str, size: usize, limit: usize) -> Result<()> {
    if size <= limit {
        return Ok(());
    }
    Err(Error::TooLarge { what, size: size as u64, limit: limit as u64, unit: "bytes" })
}
