//! What the log says of jobs that ran.
//!
//! Knows: records and their bytes. Must not know: when a job is due, who runs it.
//!
//! ```text
//! jobs ran (132)   rows: count varint, each
//!                    processor u8 | started u64 (ns) | finished u64 (ns) | failures in a row varint
//!                    | outcome u8 (0 success, 1 failed, 2 panicked) | [error: length varint, UTF-8]
//! ```
//!
//! A row of the table of jobs has the same bytes as one of the record.

use super::read_u32;
use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{ProcessorId, Timestamp};

/// How a run of a job ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum JobOutcome {
    /// It did what there was to do, or some of it.
    Success,
    /// It did nothing of what there was to do; why, in at most 512 bytes.
    Failed(String),
    /// It panicked; with which words, in at most 512 bytes.
    Panicked(String),
}

/// The last run of a job that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRun {
    pub(crate) started_at: Timestamp,
    /// Not before it started.
    pub(crate) finished_at: Timestamp,
    /// How many runs have ended without success since one did, this one among them.
    pub(crate) failures: u32,
    pub(crate) outcome: JobOutcome,
}

/// The last run of a processor that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct JobRan {
    pub(crate) processor: ProcessorId,
    pub(crate) run: JobRun,
}

impl JobOutcome {
    /// No error is longer, in bytes.
    pub(crate) const ERROR_SIZE_BYTES_MAX: usize = 512;

    /// The same, with the longest beginning of its error that may be written down.
    pub(crate) fn shortened(mut self) -> Self {
        if let Self::Failed(error) | Self::Panicked(error) = &mut self {
            error.truncate(error.floor_char_boundary(Self::ERROR_SIZE_BYTES_MAX));
        }
        self
    }

    fn error(&self) -> Option<&str> {
        match self {
            Self::Success => None,
            Self::Failed(error) | Self::Panicked(error) => Some(error),
        }
    }
}

impl JobRun {
    /// What a run would be by a clock that has not passed `time`.
    pub(crate) fn set_back(&mut self, time: Timestamp) {
        self.finished_at = self.finished_at.min(time);
        self.started_at = self.started_at.min(self.finished_at);
    }
}

impl JobRan {
    /// The fewest bytes that one takes.
    const SIZE_BYTES_MIN: usize = 19;

    pub(crate) fn encode(&self, out: &mut Vec<u8>) {
        let JobRun { started_at, finished_at, failures, outcome } = &self.run;
        out.put_u8(self.processor.get());
        out.put_u64(started_at.as_nanos());
        out.put_u64(finished_at.as_nanos());
        out.put_varint(u64::from(*failures));
        out.put_u8(match outcome {
            JobOutcome::Success => 0,
            JobOutcome::Failed(_) => 1,
            JobOutcome::Panicked(_) => 2,
        });
        outcome.error().into_iter().for_each(|error| out.put_bytes(error.as_bytes()));
    }

    pub(crate) fn decode(reader: &mut Reader<'_>) -> Result<Self, DecodeError> {
        let processor = ProcessorId::new(reader.u8()?);
        let started_at = Timestamp::from_nanos(reader.u64()?);
        let finished_at = Timestamp::from_nanos(reader.u64()?);
        let failures = read_u32(reader)?;
        let outcome = match reader.u8()? {
            0 => JobOutcome::Success,
            1 => JobOutcome::Failed(read_error(reader)?),
            2 => JobOutcome::Panicked(read_error(reader)?),
            _ => return Err(DecodeError::Malformed("a run with no known outcome")),
        };
        if finished_at < started_at {
            return Err(DecodeError::Malformed("a run that ended before it began"));
        }
        if (failures == 0) != (outcome == JobOutcome::Success) {
            return Err(DecodeError::Malformed("a run whose outcome is not among those counted"));
        }
        Ok(Self { processor, run: JobRun { started_at, finished_at, failures, outcome } })
    }
}

fn read_error(reader: &mut Reader<'_>) -> Result<String, DecodeError> {
    let error = reader.str()?;
    match error.len() <= JobOutcome::ERROR_SIZE_BYTES_MAX {
        true => Ok(error.to_owned()),
        false => Err(DecodeError::Malformed("an error that is too long")),
    }
}

pub(super) fn put_rows(out: &mut Vec<u8>, rows: &[JobRan]) {
    out.put_varint(rows.len() as u64);
    rows.iter().for_each(|row| row.encode(out));
}

pub(super) fn read_rows(reader: &mut Reader<'_>) -> Result<Vec<JobRan>, DecodeError> {
    let count = reader.count(JobRan::SIZE_BYTES_MIN)?;
    (0..count).map(|_| JobRan::decode(reader)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Record;
    use proptest::prelude::*;

    fn outcome(kind: u8, error: &str) -> JobOutcome {
        match kind % 3 {
            0 => JobOutcome::Success,
            1 => JobOutcome::Failed(error.to_owned()),
            _ => JobOutcome::Panicked(error.to_owned()),
        }
    }

    fn ran(
        processor: u8,
        [started_at, took]: [u64; 2],
        kind: u8,
        failures: u32,
        error: &str,
    ) -> JobRan {
        let outcome = outcome(kind, error).shortened();
        let failures = if outcome == JobOutcome::Success { 0 } else { failures.max(1) };
        let finished_at = Timestamp::from_nanos(started_at.saturating_add(took));
        let started_at = Timestamp::from_nanos(started_at);
        let run = JobRun { started_at, finished_at, failures, outcome };
        JobRan { processor: ProcessorId::new(processor), run }
    }

    proptest! {
        #[test]
        fn records_of_jobs_come_back(
            rows in prop::collection::vec((any::<u8>(), any::<[u64; 2]>(), any::<u8>(), any::<u32>(), ".{0,400}"), 0..9),
        ) {
            let ran = |(processor, times, kind, failures, error): (u8, _, _, _, String)| {
                ran(processor, times, kind, failures, &error)
            };
            let record = Record::JobsRan(rows.into_iter().map(ran).collect());
            let (kind, bytes) = (record.kind() as u8, record.encode());
            let decoded = Record::decode(kind, &bytes);
            prop_assert_eq!(decoded.as_ref(), Ok(&record));
            for len in 0..bytes.len() {
                prop_assert!(Record::decode(kind, &bytes[..len]).is_err());
            }
            prop_assert!(Record::decode(kind, &[&bytes[..], &[0]].concat()).is_err());
        }
    }

    #[test]
    fn runs_that_nobody_made_are_malformed() {
        let sound = ran(1, [5, 2], 1, 3, "no");
        let refused = |change: fn(&mut JobRun)| {
            let mut row = sound.clone();
            change(&mut row.run);
            let mut bytes = Vec::new();
            put_rows(&mut bytes, &[row]);
            read_rows(&mut Reader::new(&bytes)).is_err()
        };
        assert!(!refused(|_| ()));
        assert!(refused(|run| run.finished_at = Timestamp::from_nanos(4)));
        assert!(refused(|run| run.failures = 0));
        assert!(refused(|run| run.outcome = JobOutcome::Success));
        assert!(refused(|run| run.outcome = JobOutcome::Failed("x".repeat(513))));
        let mut bytes = Vec::new();
        put_rows(&mut bytes, &[sound]);
        bytes[19] = 3;
        assert!(read_rows(&mut Reader::new(&bytes)).is_err(), "an outcome of no kind");
    }

    #[test]
    fn an_error_is_cut_between_two_characters() {
        let failed = JobOutcome::Failed("é".repeat(300) + "end").shortened();
        assert_eq!(failed, JobOutcome::Failed("é".repeat(256)));
        let panicked = JobOutcome::Panicked(format!("x{}", "é".repeat(300))).shortened();
        assert_eq!(panicked, JobOutcome::Panicked(format!("x{}", "é".repeat(255))));
    }

    #[test]
    fn a_run_by_a_clock_that_is_set_back_still_begins_before_it_ends() {
        let mut row = ran(1, [5, 4], 0, 0, "");
        row.run.set_back(Timestamp::from_nanos(7));
        assert_eq!((row.run.started_at.as_nanos(), row.run.finished_at.as_nanos()), (5, 7));
        row.run.set_back(Timestamp::from_nanos(3));
        assert_eq!((row.run.started_at.as_nanos(), row.run.finished_at.as_nanos()), (3, 3));
    }
}
