//! An engine in memory that never crashes, and applies exactly the operations it is given.
//!
//! Knows: how to bring one to any number of operations. Must not know: what they mean.

use std::time::Duration;

use tidaldb::schema::Timestamp;
use tidaldb::{Clock, ManualClock, Options, TidalDb, TimeSource};

use crate::collections::{ITEMS_MAX, OWNED_MAX};
use crate::operation::{Answer, HOUR, Planned, schema};
use crate::plain::Plain;
use crate::time::START;

/// The reference engine, and the plain maps beside it.
#[derive(Debug)]
pub(crate) struct Reference {
    source: TimeSource,
    db: TidalDb,
    clock: ManualClock,
    pub(crate) plain: Plain,
    /// The operations that are in the log.
    applied: Vec<Planned>,
}

impl Reference {
    pub(crate) fn new(source: TimeSource) -> Self {
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
            .ephemeral()
            .open()
            .expect("a database in memory opens");
        Self { source, db, clock, plain: Plain::new(source), applied: Vec::new() }
    }

    /// How many operations are in the log.
    pub(crate) fn len(&self) -> u64 {
        self.applied.len() as u64
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
        self.show(planned.stamp);
        let before = self.db.status().operations;
        let answer = planned.perform(&self.db).expect("nothing fails in memory");
        assert_eq!(answer, expected, "the engine and the maps, after {planned:?}");
        let frames = self.db.status().operations - before;
        assert_eq!(frames, u64::from(is_frame), "frames of {planned:?}");
        if is_frame {
            self.applied.push(planned.clone());
            if self.source == TimeSource::Events {
                assert_eq!(self.time(), self.plain.time, "engine time after {planned:?}");
            }
        }
        (answer, is_frame)
    }

    /// Goes back to the first so many operations.
    pub(crate) fn rewind(&mut self, count: u64) {
        let count = usize::try_from(count).expect("few operations");
        if count == self.applied.len() {
            return;
        }
        let kept = self.applied[..count].to_vec();
        *self = Self::new(self.source);
        kept.iter().for_each(|planned| drop(self.apply(planned)));
    }

    /// The digest after the first so many operations.
    pub(crate) fn digest_after(&self, count: u64) -> [u8; 32] {
        if count == self.len() {
            return self.digest();
        }
        let mut shorter = Self::new(self.source);
        let count = usize::try_from(count).expect("few operations");
        self.applied[..count].iter().for_each(|planned| drop(shorter.apply(planned)));
        shorter.digest()
    }

    /// The stamp of the last operation.
    pub(crate) fn last_stamp(&self) -> Timestamp {
        self.applied.last().map_or(START, |planned| planned.stamp)
    }

    /// Brings the clock to a time in such a way that it is believed.
    fn show(&self, time: Timestamp) {
        match time.as_nanos().checked_sub(self.clock.now().as_nanos()) {
            Some(passed_ns) => self.clock.advance(Duration::from_nanos(passed_ns)),
            None => self.clock.set(time),
        }
    }
}
