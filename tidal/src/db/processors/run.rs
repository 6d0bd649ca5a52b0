//! One run of a processor.
//!
//! Knows: the order of its steps, and when it ends. Must not know: who asked for it.
//!
//! Attempts are made in batches: all of one begin in one frame, and what they made is written down in one
//! frame. Both are synced, so that many sessions share a sync. A batch begins with one session and doubles
//! as long as its calls take next to no time, so that what takes long goes alone, and the time for which a
//! session is busy is the time that was spent on it.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::time::Duration;

use super::Context;
use super::batch::Batch;
use super::candidates::Candidates;
use super::entry::{Entry, Running};
use super::options::RunOptions;
use super::stats::{RunError, RunStats, StopReason};
use super::view::Pinned;
use super::walk::Walk;
use crate::engine::{encoded, words_of};
use crate::error::{Error, Result};
use crate::fault::CrashPoint;
use crate::ids::{Timestamp, counted};
use crate::processors::{AttemptStatus, ProcessorRow};
use crate::record::{CommitAttempts, FailAttempt, JobOutcome, Record};
use crate::state::Reply;
use crate::wal::FrameBody;

/// So many sessions are attempted together at most.
const BATCH_LEN_MAX: usize = 512;
/// A batch whose calls took less than this may be followed by one of twice its length.
const QUICK: Duration = Duration::from_millis(20);
/// One whose calls took longer is followed by one of half its length.
const SLOW: Duration = Duration::from_millis(100);

/// One run of a processor.
pub(super) struct Run<'a> {
    pub(super) context: &'a Context,
    pub(super) entry: &'a Entry,
    pub(super) stats: RunStats,
    options: RunOptions,
    began: Duration,
    /// How many sessions the next batch has.
    batch_len: usize,
    /// How many errors are of attempts that an earlier run has begun.
    buried: u64,
    /// The last error of its own.
    pub(super) last_error: String,
}

/// Runs a processor, unless it runs.
///
/// # Errors
///
/// [`RunError::AlreadyRunning`]; [`RunError::Storage`].
pub(super) fn run(
    context: &Context,
    entry: &Entry,
    options: &RunOptions,
) -> Result<RunStats, RunError> {
    let span = tracing::debug_span!("run", processor = entry.name);
    let _entered = span.enter();
    let now = context.now()?;
    let mut running = entry
        .try_start(now)
        .map_err(|since| RunError::AlreadyRunning { processor: entry.name.clone(), since })?;
    let began = context.clock.monotonic();
    let stats = RunStats { processor: entry.name.clone(), ..RunStats::default() };
    let options = options.clone();
    let (buried, last_error) = (0, String::new());
    let mut run = Run { context, entry, stats, options, began, batch_len: 1, buried, last_error };
    let worked = catch_unwind(AssertUnwindSafe(|| run.drain(&mut running)));
    context.overtime.take_back(entry.number);
    let outcome = match &worked {
        Ok(Ok(_)) => run.outcome(),
        Ok(Err(error)) => JobOutcome::Failed(error.to_string()),
        Err(panic) => JobOutcome::Panicked(words_of(&**panic).to_owned()),
    };
    let mut stats = run.stats;
    stats.took = context.clock.monotonic().saturating_sub(began);
    let is_news = stats.scanned > 0 || outcome != JobOutcome::Success;
    // Whoever only waits for the next attempt has not succeeded meanwhile.
    let outcome = Some(outcome).filter(|_| is_news || stats.deferred == 0);
    let (walk, ended) = match worked {
        Ok(Ok(walk)) => (Some(walk), Ok(Ok(()))),
        Ok(Err(error)) => (None, Ok(Err(error))),
        Err(panic) => (None, Err(panic)),
    };
    running.end(context.now().unwrap_or_else(|_| context.clock.now()), outcome, walk);
    if is_news {
        context.faults.reach(CrashPoint::JobAfterRunBeforeFinished);
        context.write_runs();
    }
    ended.unwrap_or_else(|panic| resume_unwind(panic))?;
    tracing::debug!(
        scanned = stats.scanned,
        processed = stats.processed,
        unchanged = stats.unchanged,
        deferred = stats.deferred,
        quarantined = stats.quarantined,
        errors = stats.errors,
        fenced = stats.fenced,
        stopped = ?stats.stopped,
        "a run has ended"
    );
    Ok(stats)
}

impl Run<'_> {
    /// What becomes of a run that has returned: it has failed if all that it attempted has.
    fn outcome(&self) -> JobOutcome {
        let RunStats { scanned, processed, errors, fenced, .. } = self.stats;
        let failed = errors - self.buried + fenced;
        if processed > 0 || failed == 0 {
            return JobOutcome::Success;
        }
        let last = match self.last_error.as_str() {
            "" => "given up while it was processed",
            last => last,
        };
        JobOutcome::Failed(format!("{failed} of {} failed: {last}", counted(scanned, "session")))
    }

    /// Attempts all there is, or as much as the run may.
    fn drain(&mut self, running: &mut Running<'_>) -> Result<Walk> {
        self.context.sweep()?;
        let row = self.row()?;
        let walk = self.take_up(running, &row)?;
        let options = self.options.clone();
        let (context, entry) = (self.context, self.entry);
        let mut candidates = Candidates::begin(&row, walk, options);
        self.stats.stopped = loop {
            if let Some(reason) = self.is_to_stop() {
                break reason;
            }
            let (now, len) = (context.now()?, self.next_len());
            let batch = context.door.look(|inside| candidates.next((inside, entry), now, len))?;
            if batch.is_empty() {
                break match entry.is_stopping() {
                    true => StopReason::Shutdown,
                    false => StopReason::Drained,
                };
            }
            self.attempt(batch, &mut candidates)?;
        };
        self.stats.unchanged = candidates.unchanged;
        let now = context.now()?;
        self.stats.deferred = context.door.look(|inside| {
            let as_of = (inside.state.header().incarnation, now);
            Ok(inside.state.processors.deferred_len(entry.number, as_of) as u64)
        })?;
        candidates.walk.end();
        let (row, through) = (self.row()?, candidates.walk.through());
        if through.saturating_sub(row.backfilled) >= UNWRITTEN_MAX {
            self.advance(through)?;
        }
        Ok(candidates.walk)
    }

    /// Writes down how far the walk has gone.
    fn advance(&self, through: u64) -> Result<()> {
        let record = Record::CommitAttempts(CommitAttempts {
            processor: self.entry.number,
            version: self.entry.version,
            through,
            items: Vec::new(),
            signals: None,
        });
        self.ask(encoded(&record)?, 1, None).map(drop)
    }

    /// Writes something down, and waits for its answer; `None` where the processor was removed meanwhile,
    /// and nothing was written.
    pub(super) fn ask(
        &self,
        body: FrameBody,
        events: usize,
        latest: Option<Timestamp>,
    ) -> Result<Option<Reply>> {
        self.entry.write(|| self.context.ask(body, events, latest))
    }

    /// What the run before has left. Where there was none, attempts that ended with a process or with a
    /// run, and of which nobody has said so, are written down first.
    fn take_up(&mut self, running: &mut Running<'_>, row: &ProcessorRow) -> Result<Walk> {
        if let Some(walk) = running.take_walk() {
            return Ok(walk);
        }
        self.bury()?;
        Ok(Walk::from(row))
    }

    /// Attempts a batch.
    fn attempt(&mut self, pinned: Vec<Pinned>, candidates: &mut Candidates) -> Result<()> {
        let len = pinned.len();
        let calls_took = Batch::begin(self, pinned, candidates)?.finish(self, candidates)?;
        self.batch_len = match calls_took {
            took if took < QUICK && len == self.batch_len => (len * 2).min(BATCH_LEN_MAX),
            took if took > SLOW => (len / 2).max(1),
            _ => self.batch_len,
        };
        Ok(())
    }

    /// The processor, as the state has it.
    fn row(&self) -> Result<ProcessorRow> {
        let (number, name) = (self.entry.number, &*self.entry.name);
        self.context.door.look(|inside| {
            let row = inside.state.processors.get(number).filter(|row| !row.removed);
            row.ok_or_else(|| Error::unknown("processor", name, []))
        })
    }

    fn is_to_stop(&self) -> Option<StopReason> {
        if self.entry.is_stopping() {
            return Some(StopReason::Shutdown);
        }
        if self.stats.scanned >= self.sessions_max() {
            return Some(StopReason::SessionCap);
        }
        // What is not attempted takes next to no time, and does not count.
        let spent = self.context.clock.monotonic().saturating_sub(self.began);
        let budget = self.options.time_budget.or(self.entry.options.time_budget);
        let is_spent = self.stats.scanned > 0 && budget.is_some_and(|budget| spent >= budget);
        is_spent.then_some(StopReason::TimeBudget)
    }

    fn sessions_max(&self) -> u64 {
        let most = self.options.max_sessions.or(self.entry.options.max_sessions_per_run);
        most.map_or(u64::MAX, |most| u64::from(most.get()))
    }

    fn next_len(&self) -> usize {
        let left = self.sessions_max() - self.stats.scanned;
        // Whoever has but one attempt must not lose it to a neighbour that ends the process.
        let len = if self.entry.options.retry.is_last(1) { 1 } else { self.batch_len };
        len.min(usize::try_from(left).unwrap_or(usize::MAX))
    }

    /// Writes down attempts of which it is not written how they ended, and which are not running: there is
    /// one run at a time, and this one has begun none.
    fn bury(&mut self) -> Result<()> {
        let now = self.context.now()?;
        let entry = self.entry;
        let lost = self.context.door.look(|inside| {
            let incarnation = inside.state.header().incarnation;
            let mut lost = Vec::new();
            for (session, attempt) in inside.state.processors.begun(entry.number) {
                let Some(id) = attempt.begun() else { continue };
                let (next, is_last, error) = match attempt.status(incarnation) {
                    AttemptStatus::Running { .. } => {
                        let delay = entry.options.retry.delay(&entry.name, session, attempt.count);
                        let is_last = entry.options.retry.is_last(attempt.count);
                        (now.saturating_add(delay), is_last, LOST.to_owned())
                    }
                    AttemptStatus::Waiting { next, error } => (next, false, error),
                    AttemptStatus::Quarantined { error, .. } => (now, true, error),
                    // Of these no attempt began.
                    AttemptStatus::Requeued => continue,
                };
                lost.push((session, id, next, is_last, error));
            }
            Ok(lost)
        })?;
        for lost in lost.chunks(BATCH_LEN_MAX) {
            let items = lost.iter().map(|(session, attempt, next, is_last, error)| FailAttempt {
                session: *session,
                attempt: *attempt,
                next: *next,
                is_last: *is_last,
                error,
            });
            self.fail(items.collect())?;
        }
        self.buried = self.stats.errors;
        Ok(())
    }
}

/// A walk over so many numbers of sessions is written down, though nothing was attempted at its end: the
/// next open would walk there again.
const UNWRITTEN_MAX: u64 = 100_000;
/// What is told of an attempt whose run ended before it.
const LOST: &str = "the run ended before the outcome was written down";
