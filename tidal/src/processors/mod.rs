//! Processors of sessions: who they are, what they are trying, and what they have made.
//!
//! Knows: names and numbers of processors, attempts, outcomes. Must not know: when a session is over and
//! for whom it waits, what a processor does, the log, clocks, threads.
//!
//! - `row`: a processor.
//! - `attempt`: a processor's attempts at one session, and the index over all of them.
//! - `outcome`: what a processor has made of one session.
//! - `job`: the last run of a processor that has ended.
//! - `change`: what a record of the log does to all of them.
//!
//! Three hot tables: processors; sessions that somebody is working on, or will try again, or has given up;
//! and last runs, which decide nothing and are in no digest. One cold table: outcomes. `apply` reads no cold table: a commit puts an outcome in the place of the
//! one before, whatever that was.
//!
//! **A crash is an attempt that failed, whether anyone notices or not.** An attempt that began in an
//! earlier incarnation did not end in it; when there is to be another one, or whether there is one at all,
//! was written down at its beginning. An open writes nothing.

mod attempt;
mod change;
mod job;
mod outcome;
mod row;
#[cfg(test)]
mod tests;

pub(crate) use attempt::{Attempt, AttemptStatus};
pub(crate) use change::Verdict;
pub(crate) use outcome::Outcome;
pub(crate) use row::ProcessorRow;

use std::sync::Arc;

use crate::codec::DecodeError;
use crate::ids::{ProcessorId, SessionId, Timestamp};
use crate::record::JobRan;
use crate::table::{ColdTable, StateTable, Table, TableId};
use attempt::{AttemptIndex, AttemptRow, State};

/// All processors.
pub(crate) struct Processors {
    rows: Arc<Table<ProcessorRow>>,
    attempts: Arc<Table<AttemptRow>>,
    jobs: Arc<Table<JobRan>>,
    outcomes: Arc<ColdTable>,
}

/// A session that a processor is to try once more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Due {
    /// How many attempts there were.
    pub(crate) count: u32,
    pub(crate) session: SessionId,
}

impl Processors {
    /// The kinds of the hot tables on disk.
    pub(crate) const ROWS: u8 = 16;
    pub(crate) const ATTEMPTS: u8 = 17;
    pub(crate) const JOBS: u8 = 18;
    /// The number of the cold table on disk.
    pub(crate) const OUTCOMES: u8 = 5;

    pub(crate) fn new() -> Self {
        let table = |kind| TableId { kind, part: 0 };
        Self {
            rows: Arc::new(Table::new(table(Self::ROWS), ())),
            attempts: Arc::new(Table::new(table(Self::ATTEMPTS), AttemptIndex::default())),
            jobs: Arc::new(Table::new(table(Self::JOBS), ())),
            outcomes: Arc::new(ColdTable::new(Self::OUTCOMES)),
        }
    }

    /// The table of processors.
    pub(crate) fn rows(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.rows) as Arc<dyn StateTable>
    }

    /// The table of attempts.
    pub(crate) fn attempts(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.attempts) as Arc<dyn StateTable>
    }

    /// The table of last runs.
    pub(crate) fn jobs(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.jobs) as Arc<dyn StateTable>
    }

    /// All hot tables.
    pub(crate) fn tables(&self) -> [Arc<dyn StateTable>; 3] {
        [self.rows(), self.attempts(), self.jobs()]
    }

    /// The cold table of outcomes.
    pub(crate) const fn outcomes(&self) -> &Arc<ColdTable> {
        &self.outcomes
    }

    /// A processor, those that were removed among them.
    pub(crate) fn get(&self, processor: ProcessorId) -> Option<ProcessorRow> {
        self.rows.read().get(&processor).cloned()
    }

    /// A processor that is there.
    pub(crate) fn find(&self, name: &str) -> Option<ProcessorRow> {
        self.all().into_iter().find(|row| *row.name == *name && !row.removed)
    }

    /// All that were ever registered, by number.
    pub(crate) fn all(&self) -> Vec<ProcessorRow> {
        let rows = self.rows.read();
        let mut all: Vec<ProcessorRow> = rows.iter().map(|(_, row)| row.clone()).collect();
        all.sort_unstable_by_key(|row| row.number);
        all
    }

    /// The last number that was given, or 0.
    pub(crate) fn last(&self) -> ProcessorId {
        ProcessorId::new(self.rows.read().len() as u8)
    }

    /// What a processor has tried with a session, and is not done with.
    pub(crate) fn attempt(&self, session: SessionId, processor: ProcessorId) -> Option<Attempt> {
        self.attempts.read().get(&(session, processor)).map(AttemptRow::attempt)
    }

    /// The attempts at a session, by processor.
    pub(crate) fn attempts_at(&self, session: SessionId) -> Vec<(ProcessorId, Attempt)> {
        let rows = self.attempts.read();
        let of = rows.side().of_session(session);
        of.filter_map(|processor| Some((processor, rows.get(&(session, processor))?.attempt())))
            .collect()
    }

    /// Sessions that a processor is to try once more by a moment, fewest attempts first, then by id.
    pub(crate) fn due(
        &self,
        processor: ProcessorId,
        (incarnation, now): (u64, Timestamp),
    ) -> Vec<Due> {
        let rows = self.attempts.read();
        let due = rows.side().due_by(processor, now).filter_map(|session| {
            let row = rows.get(&(session, processor))?;
            (!row.is_running(incarnation)).then_some(Due { count: row.count, session })
        });
        let mut due: Vec<Due> = due.collect();
        due.sort_unstable();
        due
    }

    /// How many sessions a processor is to try once more, but not yet.
    pub(crate) fn deferred_len(
        &self,
        processor: ProcessorId,
        (incarnation, now): (u64, Timestamp),
    ) -> usize {
        let rows = self.attempts.read();
        let waits = |session: &SessionId| {
            let row = rows.get(&(*session, processor));
            row.is_some_and(|row| !row.is_running(incarnation))
        };
        let all = rows.side().due_by(processor, Timestamp::from_nanos(u64::MAX)).filter(waits);
        let due = rows.side().due_by(processor, now).filter(waits);
        all.count() - due.count()
    }

    /// The attempts that are running, and since when, in no order that means anything. Looks at nothing else.
    pub(crate) fn running(&self, incarnation: u64) -> Vec<(Timestamp, ProcessorId, SessionId)> {
        let rows = self.attempts.read();
        let running = rows.side().begun().filter_map(|key| match &rows.get(key)?.state {
            &State::Started { at, incarnation: began, .. } if began == incarnation => {
                Some((at, key.1, key.0))
            }
            _ => None,
        });
        running.collect()
    }

    /// A processor's attempts that began, and of which nobody has written down how they ended, by session. Looks
    /// at nothing else but those of others.
    pub(crate) fn begun(&self, processor: ProcessorId) -> Vec<(SessionId, Attempt)> {
        let rows = self.attempts.read();
        let of_it = rows.side().begun().filter(|(_, by)| *by == processor);
        of_it.filter_map(|key| Some((key.0, rows.get(key)?.attempt()))).collect()
    }

    /// How many sessions a processor has given up.
    pub(crate) fn quarantined_len(&self, processor: ProcessorId) -> u64 {
        self.attempts.read().side().quarantined_len(processor)
    }

    /// All attempts, by session and processor: a pass over all rows.
    pub(crate) fn all_attempts(&self) -> Vec<(SessionId, ProcessorId, Attempt)> {
        let rows = self.attempts.read();
        let mut all: Vec<_> =
            rows.iter().map(|(_, row)| (row.key.0, row.key.1, row.attempt())).collect();
        all.sort_unstable_by_key(|&(session, processor, _)| (session, processor));
        all
    }

    /// Refuses restored rows that no log leads to.
    pub(crate) fn check_restored(
        &self,
        (operations, incarnation): (u64, u64),
        engine_time: Timestamp,
    ) -> Result<(), DecodeError> {
        let rows = self.rows.read();
        for (_, row) in rows.iter() {
            let newest = row.registered_op.max(row.bumped_op);
            if newest > operations || usize::from(row.number.get()) > rows.len() {
                return Err(DecodeError::Malformed("a processor from operations that never were"));
            }
        }
        let attempts = self.attempts.read();
        for (_, row) in attempts.iter() {
            let is_there = rows.get(&row.key.1).is_some_and(|processor| !processor.removed);
            let later = match row.state {
                State::Started { id, incarnation: began, .. } => {
                    began > incarnation || id.get() > operations
                }
                State::Waiting { .. } | State::Quarantined { .. } | State::Requeued => false,
            };
            let last = operations.min(Outcome::SESSION_MAX);
            if !is_there || later || row.key.0.get() > last {
                return Err(DecodeError::Malformed("an attempt that nobody made"));
            }
        }
        drop((rows, attempts));
        self.check_restored_jobs(engine_time)?;
        self.check().map_err(|_| DecodeError::Malformed("processors that contradict each other"))
    }

    /// Checks what is derived, and that names and numbers are given once.
    pub(crate) fn check(&self) -> Result<(), String> {
        let all = self.all();
        for (at, row) in all.iter().enumerate() {
            if usize::from(row.number.get()) != at + 1 {
                return Err(format!("processor {} is the {}th", row.number, at + 1));
            }
            if row.backfilled > row.bumped_op {
                return Err(format!("processor {} has walked past its version", row.number));
            }
            if all[..at].iter().any(|other| other.name == row.name) {
                return Err(format!("{:?} is the name of two processors", row.name));
            }
        }
        self.check_jobs()?;
        let attempts = self.attempts.read();
        match *attempts.side() == AttemptIndex::of_rows(&attempts) {
            true => Ok(()),
            false => Err("attempts are not listed by processor and session".to_owned()),
        }
    }
}
