//! The pruner: forgets by itself what is kept for longer than it need be.
//!
//! Knows: when to look, from which session on, and how many at once. Must not know: what is pruned of a
//! session, and which may be.
//!
//! Sessions are numbered in the order of their starts, so those that are pruned lie below those that are
//! not, but for a few. A look begins at the first of these: it costs as much as there is to do, and only
//! the first one of an open goes through all that are there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use super::prune::{Pruning, Retention};
use crate::engine::{Job, Pulse, Rest, spawn};
use crate::error::{ErrorKind, Result};
use crate::ids::{SessionId, Timestamp};
use crate::sync::{JoinHandle, Mutex};

/// How often it looks.
pub(in crate::db) const INTERVAL: Duration = Duration::from_secs(3_600);

/// Sessions of one plan.
const PLAN_LEN: usize = 10_000;

/// After so many in a row that are too young, so are the others: a few may be of a clock that was wrong.
const YOUNG_MAX: usize = 1_000;

/// The longest sleep: the clock may be set meanwhile.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// What prunes, whoever makes it do so.
pub(in crate::db) struct Pruner {
    pruning: Pruning,
    retention: Retention,
    pub(in crate::db) job: Job,
    pulse: Arc<Pulse>,
    rest: Rest,
    /// Below this one there is nothing to do.
    from: Mutex<SessionId>,
    /// When it looked last, and could: what failed is tried again when somebody asks.
    last: Mutex<Option<Timestamp>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Pruner {
    pub(in crate::db) fn new(pruning: Pruning, keep_for: Duration, pulse: Arc<Pulse>) -> Self {
        Self {
            pruning,
            retention: Retention::settled_for(keep_for),
            job: Job::default(),
            pulse,
            rest: Rest::default(),
            from: Mutex::new(SessionId::new(0)),
            last: Mutex::default(),
            thread: Mutex::default(),
        }
    }

    /// Starts the thread.
    ///
    /// # Errors
    ///
    /// [`Io`](crate::Error::Io) when there can be no further thread.
    pub(in crate::db) fn start(self: &Arc<Self>, retry: Duration) -> Result<()> {
        let pruner = Arc::clone(self);
        let thread = spawn("tidal-pruner", move || pruner.work(retry))?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }

    /// Ends the thread, after the session that it is about to prune.
    pub(in crate::db) fn stop(&self) {
        self.rest.stop();
        if let Some(thread) = self.thread.lock().take() {
            // A panic there was contained and logged.
            let _ = thread.join();
        }
    }

    fn work(&self, retry: Duration) {
        loop {
            self.pulse.beat();
            let retry_ms = retry.as_millis() as u64;
            let looked = catch_unwind(AssertUnwindSafe(|| self.run_if_due()));
            let patience = match looked {
                Ok(Ok(_)) => self.idle_for().map_or(SLEEP_MAX, |left| left.min(SLEEP_MAX)),
                Ok(Err(error)) if error.kind() == ErrorKind::Closed => return,
                Ok(Err(error)) => {
                    tracing::warn!(%error, retry_ms, "old sessions could not be pruned; it is tried again");
                    retry
                }
                Err(_) => {
                    self.pulse.skip();
                    tracing::error!(retry_ms, "the pruner panicked; it is tried again");
                    retry
                }
            };
            if !self.rest.sleep(patience) {
                return;
            }
        }
    }

    /// How long there is nothing to do. A last look that was later than now was not: the clock was wrong.
    fn idle_for(&self) -> Result<Duration> {
        let now = self.pruning.now()?;
        let mut last = self.last.lock();
        let Some(last) = last.as_mut() else { return Ok(Duration::ZERO) };
        *last = now.min(*last);
        Ok(now.until(last.saturating_add(INTERVAL)))
    }

    /// When it is to look, as of now.
    pub(in crate::db) fn due(&self, now: Timestamp) -> Option<Timestamp> {
        self.last.lock().map(|last| last.min(now).saturating_add(INTERVAL))
    }

    /// Prunes what is old, if it is time to look; how many sessions.
    ///
    /// # Errors
    ///
    /// What keeps sessions from being read or the log from being written; those before it are pruned.
    pub(in crate::db) fn run_if_due(&self) -> Result<u64> {
        if !self.idle_for()?.is_zero() {
            return Ok(0);
        }
        let now = self.pruning.now()?;
        let pruned = self.job.observe(|| self.pruning.now().unwrap_or(now), || self.run())?;
        *self.last.lock() = Some(now);
        Ok(pruned)
    }

    fn run(&self) -> Result<u64> {
        let _prune = tracing::debug_span!("prune").entered();
        let mut from = self.from.lock();
        // What is in memory has its place in the table, and leaves for it in any order.
        let (mut pruned, mut begin, mut first_left) = (0, *from, self.pruning.first_hot()?);
        loop {
            let stops = || self.rest.is_over();
            let limits = (PLAN_LEN, YOUNG_MAX);
            let page = self.pruning.plan(&self.retention, begin, limits, &stops)?;
            let is_full = page.plan.items().len() == PLAN_LEN;
            let (applied, unreached) = self.pruning.carry_out(page.plan, &stops)?;
            pruned += applied.done.len() as u64;
            let skipped = applied.skipped.iter().map(|(id, _)| *id).chain(unreached);
            first_left = first_left.into_iter().chain(skipped).chain(page.first_left).min();
            begin = page.next;
            if !is_full || stops() {
                break;
            }
        }
        *from = first_left.unwrap_or(begin);
        tracing::debug!(pruned, "old sessions were pruned");
        Ok(pruned)
    }
}
