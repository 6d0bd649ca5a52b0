//! What is known of a job: whether it runs, and how its last run ended.
//!
//! Knows: runs, and that each of them ends, however it does. Must not know: what a job does, when it is due,
//! where it is written down.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};

use super::words_of;
use crate::error::Result;
use crate::ids::Timestamp;
use crate::record::{JobOutcome, JobRun};
use crate::sync::Mutex;

/// Work that is done again and again. Whoever does it says so here, and anyone may look.
#[derive(Default)]
pub(crate) struct Job(Mutex<Runs>);

/// The runs of a job.
#[derive(Debug, Clone, Default)]
pub(crate) struct Runs {
    /// How many there are at this moment: a caller may sweep beside the thread that does.
    running: u32,
    /// When the oldest of these began.
    pub(crate) in_flight_since: Option<Timestamp>,
    /// The last one that has ended.
    pub(crate) ended: Option<JobRun>,
    /// It is not written down.
    is_unwritten: bool,
    /// When there is to be another one, if it is known.
    pub(crate) next_due: Option<Timestamp>,
}

impl Job {
    /// A job whose last run was written down, if it was.
    pub(crate) fn after(ended: Option<JobRun>) -> Self {
        Self(Mutex::new(Runs { ended, ..Runs::default() }))
    }

    /// How it stands.
    pub(crate) fn look(&self) -> Runs {
        self.0.lock().clone()
    }

    /// Begins a run, unless one is going on: since when, then.
    pub(crate) fn try_begin(&self, now: Timestamp) -> Result<InFlight<'_>, Timestamp> {
        let mut runs = self.0.lock();
        match runs.in_flight_since {
            Some(since) => Err(since),
            None => Ok(self.begin_in(&mut runs, now)),
        }
    }

    /// Makes a run of `work`.
    ///
    /// # Errors
    ///
    /// Those of `work`.
    pub(crate) fn observe<T>(
        &self,
        now: impl Fn() -> Timestamp,
        work: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        let began_at = now();
        let run = self.begin_in(&mut self.0.lock(), began_at);
        match catch_unwind(AssertUnwindSafe(work)) {
            Ok(done) => {
                let failed = done.as_ref().err().map(|error| JobOutcome::Failed(error.to_string()));
                run.end(now(), failed.unwrap_or(JobOutcome::Success));
                done
            }
            Err(panic) => {
                run.end(now(), JobOutcome::Panicked(words_of(&*panic).to_owned()));
                resume_unwind(panic)
            }
        }
    }

    /// The next run is due then; `None` if that is not known.
    pub(crate) fn set_due(&self, due: Option<Timestamp>) {
        self.0.lock().next_due = due;
    }

    /// The last run that has ended, if it is not written down; from now on it counts as if it were.
    pub(crate) fn take_unwritten(&self) -> Option<JobRun> {
        let mut runs = self.0.lock();
        std::mem::take(&mut runs.is_unwritten).then(|| runs.ended.clone()).flatten()
    }

    /// What was taken could not be written down.
    pub(crate) fn is_unwritten_still(&self) {
        self.0.lock().is_unwritten = true;
    }

    fn begin_in(&self, runs: &mut Runs, now: Timestamp) -> InFlight<'_> {
        runs.running += 1;
        runs.in_flight_since = runs.in_flight_since.or(Some(now));
        InFlight { job: self, began_at: now, ended: None }
    }
}

/// A run that is going on. It ends when this is dropped; one that has not said how has panicked.
pub(crate) struct InFlight<'a> {
    job: &'a Job,
    began_at: Timestamp,
    ended: Option<(Timestamp, Option<JobOutcome>)>,
}

impl InFlight<'_> {
    /// The run has ended, and how the one before ended still holds.
    pub(crate) fn end_as_before(mut self, now: Timestamp) {
        self.ended = Some((now, None));
    }

    /// The run has ended so.
    pub(crate) fn end(mut self, now: Timestamp, outcome: JobOutcome) {
        self.ended = Some((now, Some(outcome)));
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        let unsaid = JobOutcome::Panicked("it did not say how".to_owned());
        let unsaid = || (self.began_at, Some(unsaid));
        let (finished_at, outcome) = self.ended.take().unwrap_or_else(unsaid);
        // The clock may have been set back meanwhile.
        let started_at = self.began_at.min(finished_at);
        let mut runs = self.job.0.lock();
        let before = runs.ended.as_ref().map_or(0, |last| last.failures);
        let last = || runs.ended.as_ref().map(|last| last.outcome.clone());
        let (outcome, failures) = match outcome.map(JobOutcome::shortened) {
            None => (last().unwrap_or(JobOutcome::Success), before),
            Some(JobOutcome::Success) => (JobOutcome::Success, 0),
            Some(failed) => (failed, before.saturating_add(1)),
        };
        runs.ended = Some(JobRun { started_at, finished_at, failures, outcome });
        runs.is_unwritten = true;
        runs.running -= 1;
        if runs.running == 0 {
            runs.in_flight_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Error;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_secs(seconds)
    }

    fn ended(job: &Job) -> (u64, u64, u32, JobOutcome) {
        let JobRun { started_at, finished_at, failures, outcome } =
            job.look().ended.expect("a run");
        let secs = |at: Timestamp| at.as_nanos() / 1_000_000_000;
        (secs(started_at), secs(finished_at), failures, outcome)
    }

    #[test]
    fn a_run_ends_however_it_does_and_failures_in_a_row_are_counted() {
        let job = Job::default();
        let run = job.try_begin(at(1)).expect("none is going on");
        assert_eq!(job.try_begin(at(2)).err(), Some(at(1)));
        assert!(job.look().ended.is_none() && job.take_unwritten().is_none());
        drop(run);
        let unsaid = JobOutcome::Panicked("it did not say how".to_owned());
        assert_eq!(ended(&job), (1, 1, 1, unsaid));
        assert_eq!(job.look().in_flight_since, None);

        let failed: Result<()> = job.observe(|| at(3), || Err(Error::Closed));
        assert!(failed.is_err());
        assert_eq!(ended(&job), (3, 3, 2, JobOutcome::Failed(Error::Closed.to_string())));
        let panics = || -> Result<()> { panic!("a panic of this test's own") };
        let panicked = catch_unwind(AssertUnwindSafe(|| job.observe(|| at(4), panics)));
        assert!(panicked.is_err(), "it goes on");
        let words = JobOutcome::Panicked("a panic of this test's own".to_owned());
        assert_eq!(ended(&job), (4, 4, 3, words));
        job.observe(|| at(5), || Ok(())).expect("it does nothing");
        assert_eq!(ended(&job), (5, 5, 0, JobOutcome::Success));
    }

    #[test]
    fn what_was_taken_is_given_once_unless_it_could_not_be_written() {
        let job = Job::after(None);
        job.observe(|| at(1), || Ok(())).expect("it does nothing");
        let run = job.take_unwritten();
        assert!(run.is_some() && job.take_unwritten().is_none());
        job.is_unwritten_still();
        assert_eq!(job.take_unwritten(), run);
        assert!(Job::after(run).take_unwritten().is_none(), "it was read from where it is written");
    }

    #[test]
    fn a_run_beside_another_keeps_the_job_in_flight() {
        let job = Job::default();
        job.observe(|| at(1), || job.observe(|| at(2), || Ok(()))).expect("they do nothing");
        let inner = || job.observe(|| at(4), || Ok(job.look().in_flight_since));
        assert_eq!(job.observe(|| at(3), inner).expect("they do nothing"), Some(at(3)));
        assert_eq!(job.look().in_flight_since, None);
    }

    #[test]
    fn a_run_during_which_the_clock_is_set_back_begins_before_it_ends() {
        let job = Job::default();
        job.try_begin(at(9)).expect("none is going on").end(at(5), JobOutcome::Success);
        assert_eq!(ended(&job), (5, 5, 0, JobOutcome::Success));
    }
}
