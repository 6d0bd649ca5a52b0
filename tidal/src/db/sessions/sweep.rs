//! Writing down what time has done, and saying before what that is.
//!
//! Knows: the calls, and what a plan is compared with. Must not know: when a session ends, and how long it
//! may be processed.

use std::collections::BTreeMap;
use std::fmt;

use super::Sessions;
use super::prune::{Applied, SkipReason};
use crate::end::End;
use crate::error::Result;
use crate::ids::{SessionId, Timestamp, counted};
use crate::sessions::Noticed;
use crate::state::Swept;

/// What a sweep did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct SweepReport {
    /// Sessions that were noticed to be over.
    pub ended: u64,
    /// Sessions that take no late records any more, and wait for no processor.
    pub settled: u64,
    /// Sessions whose processing took too long, and was given up.
    pub failed: u64,
}

/// What a sweep would do with one session.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum SweepChange {
    /// Write down that it is over, and tell of it.
    End {
        /// How it ended.
        end: End,
        /// It takes no late records either, and waits for nobody: it settles with it.
        settles: bool,
    },
    /// Write down that it takes no late records any more, and waits for no processor.
    Settle,
    /// Give up its processing, which takes too long.
    GiveUp {
        /// Since when it is busy.
        busy_since: Timestamp,
    },
}

/// One session of a [`SweepPlan`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedSweep {
    /// The session.
    pub session: SessionId,
    /// What is to be done with it.
    pub change: SweepChange,
}

/// What a sweep would do; from [`Sessions::plan_sweep`]. To make one, or to drop it, changes nothing.
///
/// Time ends sessions whether or not anyone writes it down, so carrying it out is a
/// [`sweep`](Sessions::sweep): what has fallen due since is written down too, and the answer says what became
/// of those that were planned.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "nothing is written down before Sessions::apply"]
pub struct SweepPlan {
    items: Vec<PlannedSweep>,
}

impl SweepPlan {
    /// What is to be done: what is due first first, and what is given up last.
    pub fn items(&self) -> &[PlannedSweep] {
        &self.items
    }

    /// Whether there is nothing to do.
    pub const fn is_empty(&self) -> bool {
        self.items.is_empty()
    }
}

impl fmt::Display for SweepPlan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |of: fn(&SweepChange) -> bool| {
            self.items.iter().filter(|item| of(&item.change)).count()
        };
        let ends = count(|change| matches!(change, SweepChange::End { .. }));
        let settles = count(|change| {
            matches!(change, SweepChange::Settle | SweepChange::End { settles: true, .. })
        });
        let given_up = count(|change| matches!(change, SweepChange::GiveUp { .. }));
        let ends = counted(ends as u64, "session");
        write!(f, "ends {ends}, settles {settles}, gives up the processing of {given_up}")
    }
}

impl Sessions<'_> {
    /// Writes down which sessions are over, and tells those who want to be told. Nothing that anyone may
    /// ask of a session is another afterwards, but where the processing of one has taken longer than
    /// [`processing_timeout`](crate::SessionConfig::processing_timeout): that is given up, unless
    /// [`auto_timeout`](crate::SessionConfig::auto_timeout) is off. Writes nothing when none is due.
    ///
    /// # Errors
    ///
    /// Those of [`Ticket::wait`](crate::Ticket::wait).
    pub fn sweep(&self) -> Result<SweepReport> {
        self.db.expect_no_view()?;
        let due = self.db.due();
        let swept = self.db.jobs.sweeping.observe(|| due.now(), || due.run(&|| false))?;
        let (Swept { ended, settled }, failed) = swept;
        Ok(SweepReport { ended, settled, failed })
    }

    /// What a [`sweep`](Self::sweep) would do now. Changes nothing. Attempts that nobody waits for, and of
    /// which a sweep makes an end too, are no session's business and not in it.
    ///
    /// ```
    /// # use tidaldb::TidalDb;
    /// # use tidaldb::schema::{DecaySpec, EntityKind, SchemaBuilder};
    /// # let mut schema = SchemaBuilder::new();
    /// # let _ = schema.signal("view", EntityKind::Item, DecaySpec::None).add();
    /// # let db = TidalDb::builder().ephemeral().with_schema(schema.build()?).open()?;
    /// let plan = db.sessions().plan_sweep()?;
    /// assert_eq!(plan.to_string(), "ends 0 sessions, settles 0, gives up the processing of 0");
    /// let applied = db.sessions().apply(plan)?;
    /// assert!(applied.done.is_empty() && applied.skipped.is_empty());
    /// # Ok::<(), tidaldb::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`InvalidArgument`](crate::Error::InvalidArgument) within a view: a sweep that is being made is waited
    /// for, and that waits for the writer.
    pub fn plan_sweep(&self) -> Result<SweepPlan> {
        self.db.expect_no_view()?;
        let (sweep, now) = (self.db.due(), self.db.default_now());
        let declared = self.db.state.declared();
        let noticed = self.db.state.sessions.due_by(&declared.schema, now).into_iter();
        let noticed = noticed.map(|(session, noticed)| PlannedSweep {
            session,
            change: match noticed {
                Noticed::End { end, settles } => SweepChange::End { end, settles },
                Noticed::Settle => SweepChange::Settle,
            },
        });
        let overdue = sweep.overdue(now).into_iter();
        let overdue = overdue.map(|(session, busy_since)| PlannedSweep {
            session,
            change: SweepChange::GiveUp { busy_since },
        });
        Ok(SweepPlan { items: noticed.chain(overdue).collect() })
    }

    /// Sweeps, and says which of the sessions were as they were planned.
    pub(in crate::db) fn carry_out_sweep(&self, plan: SweepPlan) -> Result<Applied> {
        let due = self.plan_sweep()?.items.into_iter();
        let due: BTreeMap<SessionId, SweepChange> = due.map(|it| (it.session, it.change)).collect();
        self.sweep()?;
        let mut applied = Applied::default();
        for PlannedSweep { session, change } in plan.items {
            match due.get(&session) {
                Some(now) if *now == change => applied.done.push(session),
                _ if self.get(session)?.is_none() => {
                    applied.skipped.push((session, SkipReason::Gone));
                }
                _ => applied.skipped.push((session, SkipReason::StateMoved)),
            }
        }
        Ok(applied)
    }
}
