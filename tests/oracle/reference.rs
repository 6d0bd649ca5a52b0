//! An engine in memory that never crashes, and applies exactly the operations it is given.
//!
//! Knows: how to bring one to any number of operations. Must not know: what they mean.

use std::time::Duration;

use tidaldb::schema::Timestamp;
use tidaldb::{Clock, ManualClock, Options, TidalDb, TimeSource};

use crate::collections::{ITEMS_MAX, OWNED_MAX};
use crate::operation::{Answer, HOUR, Planned, refusal, schema};
use crate::plain::Plain;
use crate::sessions::{self, Hands};
use crate::time::START;

/// The reference engine, and the plain maps beside it.
#[derive(Debug)]
pub(crate) struct Reference {
    source: TimeSource,
    rejects: bool,
    db: TidalDb,
    clock: ManualClock,
    hands: Hands,
    pub(crate) plain: Plain,
    /// What is in the log, and matters.
    steps: Vec<Step>,
    /// How many operations are among it.
    operations: usize,
}

/// What is to be done again where operations are lost.
#[derive(Debug, Clone)]
enum Step {
    Operation(Planned),
    /// Somebody was given a session; the time is that of the clock, or of the events.
    Resume {
        aim: sessions::Aim,
        stamp: Timestamp,
    },
}

impl Reference {
    pub(crate) fn new(source: TimeSource, rejects: bool) -> Self {
        let clock = ManualClock::at(START);
        let mut options = Options::default();
        // A mark would be stamped as well.
        options.mark_after = HOUR * 24 * 365;
        (options.collection_items_max, options.collections_per_owner_max) = (ITEMS_MAX, OWNED_MAX);
        let db = TidalDb::builder()
            .with_schema(schema())
            .with_time_source(source)
            .with_clock(std::sync::Arc::new(clock.clone()))
            .with_options(options)
            .with_sessions(sessions::config(rejects))
            .ephemeral()
            .open()
            .expect("a database in memory opens");
        let (hands, plain) = (Hands::default(), Plain::new(source, rejects));
        Self { source, rejects, db, clock, hands, plain, steps: Vec::new(), operations: 0 }
    }

    /// How many operations are in the log.
    pub(crate) fn len(&self) -> u64 {
        self.operations as u64
    }

    /// Engine time.
    pub(crate) fn time(&self) -> Timestamp {
        self.db.engine_time()
    }

    /// The digest.
    pub(crate) fn digest(&self) -> [u8; 32] {
        self.db.state_digest().expect("the reference has a digest")
    }

    /// Applies an operation; what it must answer, and whether it is in the log.
    pub(crate) fn apply(&mut self, planned: &Planned) -> (Answer, bool) {
        let (expected, is_frame) = self.plain.apply(planned);
        if expected == Answer::Closed {
            // This engine was never closed.
            return (expected, is_frame);
        }
        self.show(planned.stamp);
        let before = self.db.status().operations;
        let answer = planned.perform(&self.db, &self.hands).expect("nothing fails in memory");
        assert_eq!(answer, expected, "the engine and the maps, after {planned:?}");
        let frames = self.db.status().operations - before;
        assert_eq!(frames, u64::from(is_frame), "frames of {planned:?}");
        if is_frame {
            self.steps.push(Step::Operation(planned.clone()));
            self.operations += 1;
            if self.source == TimeSource::Events {
                assert_eq!(self.time(), self.plain.time, "engine time after {planned:?}");
            }
        }
        (answer, is_frame)
    }

    /// Gives a session to somebody; what is to be answered. It is no operation.
    pub(crate) fn resume(&mut self, aim: sessions::Aim, stamp: Timestamp) -> Answer {
        let now = match self.source {
            TimeSource::Clock => stamp,
            TimeSource::Events => self.plain.time,
        };
        let expected = self.plain.courses.resume(aim, now);
        self.show(stamp);
        let before = self.digest();
        let answer = self.hands.resume(&self.db, aim).or_else(refusal);
        let answer = answer.expect("nothing fails in memory");
        assert_eq!(answer, expected, "the engine and the list, when {aim:?} was resumed");
        assert_eq!(self.digest(), before, "who holds a session leaves no trace in the digest");
        self.steps.push(Step::Resume { aim, stamp });
        answer
    }

    fn apply_again(&mut self, step: &Step) {
        match step {
            Step::Operation(planned) => drop(self.apply(planned)),
            Step::Resume { aim, stamp } => drop(self.resume(*aim, *stamp)),
        }
    }

    /// The steps through the operation of this number.
    fn through(&self, count: u64) -> Vec<Step> {
        let mut left = usize::try_from(count).expect("few operations");
        let is_within = |step: &&Step| {
            let within = left > 0;
            left -= usize::from(within && matches!(step, Step::Operation(_)));
            within
        };
        self.steps.iter().take_while(is_within).cloned().collect()
    }

    /// Goes back to the first so many operations: those of a process that is gone. What came behind them
    /// may be lost, and the time with it.
    pub(crate) fn rewind(&mut self, count: u64) {
        let kept = self.through(count);
        if kept.len() < self.steps.len() {
            *self = Self::new(self.source, self.rejects);
            kept.iter().for_each(|step| self.apply_again(step));
        }
        self.plain.courses.reopen();
    }

    /// The digest after the first so many operations.
    pub(crate) fn digest_after(&self, count: u64) -> [u8; 32] {
        if count == self.len() {
            return self.digest();
        }
        let mut shorter = Self::new(self.source, self.rejects);
        self.through(count).iter().for_each(|step| shorter.apply_again(step));
        shorter.digest()
    }

    /// The stamp of the last operation.
    pub(crate) fn last_stamp(&self) -> Timestamp {
        let stamp = |step: &Step| match step {
            Step::Operation(planned) => Some(planned.stamp),
            Step::Resume { .. } => None,
        };
        self.steps.iter().rev().find_map(stamp).unwrap_or(START)
    }

    /// Brings the clock to a time in such a way that it is believed.
    fn show(&self, time: Timestamp) {
        match time.as_nanos().checked_sub(self.clock.now().as_nanos()) {
            Some(passed_ns) => self.clock.advance(Duration::from_nanos(passed_ns)),
            None => self.clock.set(time),
        }
    }
}
