//! What falls due by the clock, when a caller does it, and when a database is closed.

use std::sync::Arc;

use super::SweepReport;
use crate::db::TidalDb;
use crate::engine::Sweep;
use crate::error::Result;
use crate::options::ClosePolicy;
use crate::record::Record;

/// What [`TidalDb::drive`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct DriveReport {
    /// What became of sessions.
    pub swept: SweepReport,
    /// How many processors were due, and were run.
    pub runs: u64,
    /// How many sessions they have processed.
    pub processed: u64,
    /// How many sessions were pruned, because they are kept for no longer than
    /// [`prune_after`](crate::SessionConfig::prune_after).
    pub pruned: u64,
}

impl TidalDb {
    /// Does what is due at the clock's time, on this thread: writes down which sessions are over, and
    /// tells those who want to be told; gives up what is processed for too long; runs the processors
    /// whose cadence is over; and prunes, once an hour, what is kept for too long. Writes nothing when nothing is due.
    ///
    /// It is for [`Runtime::Manual`](crate::Runtime::Manual), where nobody else does; beside the
    /// database's own thread it does no harm.
    ///
    /// ```
    /// use std::sync::Arc;
    /// use std::time::Duration;
    /// use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder, Timestamp};
    /// use tidaldb::{ManualClock, Runtime, SessionConfig, TidalDb};
    ///
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let schema = schema.build()?;
    /// let clock = ManualClock::at(Timestamp::from_secs(1_700_000_000));
    /// let mut sessions = SessionConfig::default();
    /// sessions.runtime = Runtime::Manual;
    /// let builder = TidalDb::builder().ephemeral().with_schema(schema).with_sessions(sessions);
    /// let db = builder.with_clock(Arc::new(clock.clone())).open()?;
    ///
    /// let session = db.start_session(42, "app", "default")?.detach();
    /// clock.advance(Duration::from_secs(30 * 60));
    /// assert_eq!(db.drive()?.swept.ended, 0, "30 minutes are not more than 30 minutes");
    /// clock.advance(Duration::from_nanos(1));
    /// assert_eq!(db.drive()?.swept.ended, 1);
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::wait`](crate::Ticket::wait), and of a run.
    pub fn drive(&self) -> Result<DriveReport> {
        let mut swept = self.sessions().sweep()?;
        let stats = self.processors.drive()?;
        if !stats.is_empty() {
            // What waited for them alone has settled.
            let then = self.sessions().sweep()?;
            swept.ended += then.ended;
            swept.settled += then.settled;
            swept.failed += then.failed;
        }
        let processed = stats.iter().map(|run| run.processed).sum();
        let pruned = self.pruner.as_ref().map_or(Ok(0), |pruner| pruner.run_if_due())?;
        Ok(DriveReport { swept, runs: stats.len() as u64, processed, pruned })
    }

    /// What sweeps, whoever makes it do so.
    pub(in crate::db) fn due(&self) -> Sweep {
        Sweep {
            state: Arc::clone(&self.state),
            queue: Arc::clone(&self.queue),
            clock: Arc::clone(&self.clock),
            durability: self.options.durability,
            overtime: Some(Arc::clone(&self.overtime)),
        }
    }

    /// Nothing falls due any more; with the policy that says so, open sessions end.
    pub(in crate::db) fn end_with_database(&self) -> Result<()> {
        self.processors.close();
        self.processors.write_runs();
        if let Some(sweeper) = &self.sweeper {
            sweeper.stop();
        }
        if let Some(pruner) = &self.pruner {
            pruner.stop();
        }
        match self.sessions.on_close {
            ClosePolicy::EndAll if self.state.sessions.open_len() > 0 => {
                self.write_record(&Record::EndAllSessions).map(drop)
            }
            ClosePolicy::EndAll | ClosePolicy::LeaveOpen => Ok(()),
        }
    }
}
