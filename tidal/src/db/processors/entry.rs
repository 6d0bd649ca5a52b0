//! A processor that is registered in this open of the database.
//!
//! Knows: whether it runs, since when, and whether it is to stop. Must not know: what a run does.

use std::time::Duration;

use super::options::ProcessorOptions;
use super::processor::SessionProcessor;
use super::walk::Walk;
use crate::engine::Rest;
use crate::ids::{ProcessorId, Timestamp};
use crate::sync::Mutex;

/// A processor that is registered in this open of the database.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) number: ProcessorId,
    pub(super) options: ProcessorOptions,
    pub(super) processor: Box<dyn SessionProcessor>,
    runs: Mutex<Runs>,
    /// Where its thread sleeps; over once it is to stop.
    rest: Rest,
}

#[derive(Default)]
struct Runs {
    /// When the run that is going on began.
    since: Option<Timestamp>,
    /// When the last one began.
    last_started: Option<Timestamp>,
    /// How far it has gone through sessions that had left; `None` before the first run, during one, and
    /// after one that did not return.
    walk: Option<Walk>,
}

impl Entry {
    pub(super) fn new(
        (name, version, number): (String, u32, ProcessorId),
        options: ProcessorOptions,
        processor: Box<dyn SessionProcessor>,
    ) -> Self {
        Self {
            name,
            version,
            number,
            options,
            processor,
            runs: Mutex::default(),
            rest: Rest::default(),
        }
    }

    /// Begins a run, unless one is going on: since when, then.
    pub(super) fn try_start(&self, now: Timestamp) -> Result<Running<'_>, Timestamp> {
        let mut runs = self.runs.lock();
        if let Some(since) = runs.since {
            return Err(since);
        }
        (runs.since, runs.last_started) = (Some(now), Some(now));
        Ok(Running { entry: self, walk: runs.walk.take() })
    }

    /// How long there is nothing to do. A last run that was later than now was not: the clock was wrong,
    /// and it counts as one that began now.
    pub(super) fn idle_for(&self, now: Timestamp) -> Duration {
        let mut runs = self.runs.lock();
        let Some(last) = &mut runs.last_started else { return Duration::ZERO };
        *last = now.min(*last);
        let due = last.saturating_add(self.options.cadence);
        now.until(due)
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.rest.is_over()
    }

    /// Asks the run that is going on to return, and lets none begin any more.
    pub(super) fn stop(&self) {
        self.rest.stop();
    }

    /// Sleeps, perhaps for less long; whether it may go on then.
    pub(super) fn sleep(&self, patience: Duration) -> bool {
        self.rest.sleep(patience)
    }
}

/// A run that is going on. However it ends, the next one may begin.
pub(super) struct Running<'a> {
    entry: &'a Entry,
    walk: Option<Walk>,
}

impl Running<'_> {
    /// How far the run before has gone, if it came to an orderly end.
    pub(super) const fn take_walk(&mut self) -> Option<Walk> {
        self.walk.take()
    }

    /// The run has come to an orderly end.
    pub(super) fn end(self, walk: Walk) {
        self.entry.runs.lock().walk = Some(walk);
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.entry.runs.lock().since = None;
    }
}
