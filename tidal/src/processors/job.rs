//! The last run of a processor that has ended.
//!
//! Knows: what is written down of it, and for how long it is kept. Must not know: when the next one is due.
//!
//! A row has the bytes of one of the record (`record/jobs.rs`). Its key is the processor's number, and it is
//! there from the first run that was written down until the processor is removed or begins anew. What is
//! in it depends on who noticed which run, so nothing of the state follows from it, and it is in no digest.

use super::Processors;
use crate::codec::{DecodeError, Reader};
use crate::ids::{ProcessorId, Timestamp};
use crate::record::{JobOutcome, JobRan, JobRun};
use crate::table::{Row, Slot, hash_u64};

impl Row for JobRan {
    type Key = ProcessorId;
    type Side = ();

    fn key(&self) -> &ProcessorId {
        &self.processor
    }

    fn hash(key: &ProcessorId) -> u64 {
        hash_u64(u64::from(key.get()))
    }

    fn encode(&self, _: Slot, (): &(), out: &mut Vec<u8>) {
        Self::encode(self, out);
    }

    fn decode(_: Slot, reader: &mut Reader<'_>, (): &mut ()) -> Result<Self, DecodeError> {
        Self::decode(reader)
    }

    fn heap_size_bytes(&self) -> usize {
        match &self.run.outcome {
            JobOutcome::Success => 0,
            JobOutcome::Failed(error) | JobOutcome::Panicked(error) => error.len(),
        }
    }

    fn side_size_bytes((): &()) -> usize {
        0
    }
}

impl Processors {
    /// The last run of a processor that has ended and was written down.
    pub(crate) fn job(&self, processor: ProcessorId) -> Option<JobRun> {
        self.jobs.read().get(&processor).map(|row| row.run.clone())
    }

    /// Processors have run; one that was removed meanwhile has not. No run is later than now.
    ///
    /// # Errors
    ///
    /// [`DecodeError`] when there never was one of this number.
    pub(crate) fn ran(&self, rows: &[JobRan], now: Timestamp) -> Result<(), DecodeError> {
        for row in rows {
            if self.live(row.processor)?.is_some() {
                let mut row = row.clone();
                row.run.set_back(now);
                self.jobs.write().put(row);
            }
        }
        Ok(())
    }

    pub(super) fn forget_job(&self, processor: ProcessorId) {
        self.jobs.write().remove(&processor);
    }

    /// Engine time is set back: no run is later.
    pub(crate) fn set_jobs_back(&self, time: Timestamp) {
        let mut jobs = self.jobs.write();
        let later = jobs.iter().filter(|(_, row)| row.run.finished_at > time);
        let later: Vec<Slot> = later.map(|(slot, _)| slot).collect();
        later.into_iter().for_each(|slot| jobs.row_mut(slot).0.run.set_back(time));
    }

    /// Refuses restored runs that are yet to come.
    pub(super) fn check_restored_jobs(&self, engine_time: Timestamp) -> Result<(), DecodeError> {
        match self.jobs.read().iter().all(|(_, row)| row.run.finished_at <= engine_time) {
            true => Ok(()),
            false => Err(DecodeError::Malformed("a run that is yet to come")),
        }
    }

    /// Checks that whoever ran is there.
    pub(super) fn check_jobs(&self) -> Result<(), String> {
        let (rows, jobs) = (self.rows.read(), self.jobs.read());
        let is_there = |processor| rows.get(processor).is_some_and(|row| !row.removed);
        match jobs.iter().find(|(_, row)| !is_there(&row.processor)) {
            None => Ok(()),
            Some((_, row)) => Err(format!("processor {} ran and is not there", row.processor)),
        }
    }
}
