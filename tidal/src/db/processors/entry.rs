//! A processor that is registered in this open of the database.
//!
//! Knows: whether it runs, since when, and whether it is to stop. Must not know: what a run does.

use std::sync::Arc;
use std::time::Duration;

use super::options::ProcessorOptions;
use super::processor::SessionProcessor;
use super::walk::Walk;
use crate::engine::{InFlight, Job, Pulse, Rest};
use crate::error::Result;
use crate::ids::{ProcessorId, Timestamp};
use crate::record::JobOutcome;
use crate::sync::Mutex;

/// A processor that is registered in this open of the database.
pub(super) struct Entry {
    pub(super) name: String,
    pub(super) version: u32,
    pub(super) number: ProcessorId,
    pub(super) options: ProcessorOptions,
    /// After how long a call is asked to stop.
    pub(super) attempt_timeout: Duration,
    pub(super) processor: Box<dyn SessionProcessor>,
    /// Whether it runs, and how its last run ended.
    pub(super) job: Arc<Job>,
    runs: Mutex<Runs>,
    /// Beaten by its thread.
    pub(super) pulse: Pulse,
    /// Where its thread sleeps; over once it is to stop.
    rest: Rest,
    /// Whether it was removed. Another one may have its name, number and version then.
    is_gone: Mutex<bool>,
}

struct Runs {
    /// When the last one began, perhaps in an earlier open; `None` if the next one is due at once.
    last_started: Option<Timestamp>,
    /// How far it has gone through sessions that had left; `None` before the first run, during one, and
    /// after one that did not return.
    walk: Option<Walk>,
}

impl Entry {
    pub(super) fn new(
        (name, version, number): (String, u32, ProcessorId),
        (options, attempt_timeout): (ProcessorOptions, Duration),
        processor: Box<dyn SessionProcessor>,
        (job, last_started): (Arc<Job>, Option<Timestamp>),
    ) -> Self {
        Self {
            name,
            version,
            number,
            options,
            attempt_timeout,
            processor,
            job,
            runs: Mutex::new(Runs { last_started, walk: None }),
            pulse: Pulse::new(),
            rest: Rest::default(),
            is_gone: Mutex::new(false),
        }
    }

    /// Writes something down for a run, unless this registration is gone: nothing is then, and `None` is
    /// the answer. A run that goes on must not write in the name of one that came after it.
    pub(super) fn write<T>(&self, write: impl FnOnce() -> Result<T>) -> Result<Option<T>> {
        let is_gone = self.is_gone.lock();
        match *is_gone {
            true => Ok(None),
            false => write().map(Some),
        }
    }

    /// Removes it while nothing is written for a run of it, and lets nothing be written any more; unless
    /// `remove` fails.
    pub(super) fn remove(&self, remove: impl FnOnce() -> Result<()>) -> Result<()> {
        let mut is_gone = self.is_gone.lock();
        remove()?;
        *is_gone = true;
        Ok(())
    }

    /// Begins a run, unless one is going on: since when, then.
    pub(super) fn try_start(&self, now: Timestamp) -> Result<Running<'_>, Timestamp> {
        let in_flight = self.job.try_begin(now)?;
        let mut runs = self.runs.lock();
        runs.last_started = Some(now);
        Ok(Running { entry: self, in_flight, walk: runs.walk.take() })
    }

    /// How long there is nothing to do. A last run that was later than now was not: the clock was wrong,
    /// and it counts as one that began now.
    pub(super) fn idle_for(&self, now: Timestamp) -> Duration {
        now.until(self.due(now))
    }

    /// When there is to be another run, as of now.
    pub(super) fn due(&self, now: Timestamp) -> Timestamp {
        let mut runs = self.runs.lock();
        let Some(last) = &mut runs.last_started else { return now };
        *last = now.min(*last);
        last.saturating_add(self.options.cadence)
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
    in_flight: InFlight<'a>,
    walk: Option<Walk>,
}

impl Running<'_> {
    /// How far the run before has gone, if it came to an orderly end.
    pub(super) const fn take_walk(&mut self) -> Option<Walk> {
        self.walk.take()
    }

    /// The run has ended so, or in no way that says anything; with how far it has gone, if it came to an orderly end.
    pub(super) fn end(self, now: Timestamp, outcome: Option<JobOutcome>, walk: Option<Walk>) {
        self.entry.runs.lock().walk = walk;
        match outcome {
            Some(outcome) => self.in_flight.end(now, outcome),
            None => self.in_flight.end_as_before(now),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    #[test]
    fn nothing_is_written_for_a_run_of_a_processor_that_was_removed() {
        let name = ("usage".to_owned(), 1, ProcessorId::new(1));
        let usage = Box::new(super::super::Usage::new());
        let options = (ProcessorOptions::default(), Duration::from_secs(60));
        let entry = Entry::new(name, options, usage, (Arc::default(), None));
        assert_eq!(entry.write(|| Ok(1)).expect("written"), Some(1));
        entry.remove(|| Err(Error::Closed)).expect_err("it could not be written that it is gone");
        assert_eq!(entry.write(|| Ok(2)).expect("written"), Some(2));
        entry.remove(|| Ok(())).expect("removed");
        let unreachable = || -> Result<()> { panic!("it would be in the name of another one") };
        assert_eq!(entry.write(unreachable).expect("nothing to fail"), None);
    }
}
