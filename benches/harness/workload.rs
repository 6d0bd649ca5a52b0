//! The workload: a Zipf log with known skew, from a seed.

use std::sync::Arc;
use std::time::Duration;

use tidaldb::schema::{EntityId, Timestamp};
use tidaldb::{Batch, Event};

use crate::database::USERS;

/// Signal types and how many events of a hundred are of each.
pub const SIGNALS: [(&str, u64); 4] = [("view", 70), ("like", 15), ("share", 10), ("skip", 5)];

/// How many cohorts there are. Each user belongs to one.
pub const COHORTS: u64 = 8;

/// A million events take eight days, as in the prototypes: 691.2 ms each.
const EVENT_SPACING: Duration = Duration::from_nanos(691_200_000);

/// The first event of every log. Any time will do.
const START: Timestamp = Timestamp::from_secs(1_600_000_000);

/// The name of a cohort in reads.
pub fn cohort(number: u64) -> String {
    format!("group={number}")
}

/// An endless log: Zipf-distributed items (s = 1) with scattered ids, signals as in [`SIGNALS`],
/// uniform users, evenly spaced event times.
///
/// Clones share the distribution and continue at the same point.
#[derive(Debug, Clone)]
pub struct Workload {
    /// `cumulative[r]` is the share of events on the items of rank 0 to `r`.
    cumulative: Arc<[f64]>,
    random: u64,
    now: Timestamp,
}

impl Workload {
    /// A log over this many items. Equal seeds give equal logs.
    pub fn new(items: usize, seed: u64) -> Self {
        let mut sum = 0.0;
        let mut cumulative: Vec<f64> = (1..=items)
            .map(|rank| {
                sum += 1.0 / rank as f64;
                sum
            })
            .collect();
        cumulative.iter_mut().for_each(|share| *share /= sum);
        Self { cumulative: cumulative.into(), random: scatter(seed), now: START }
    }

    /// How many items there are.
    pub fn items(&self) -> usize {
        self.cumulative.len()
    }

    /// The id of the item of this rank; 0 is the most frequent one.
    pub const fn item(rank: usize) -> EntityId {
        EntityId::new(scatter(rank as u64))
    }

    /// The time of the next event. Each call lets time pass.
    pub fn tick(&mut self) -> Timestamp {
        self.now = self.now.saturating_add(EVENT_SPACING);
        self.now
    }

    /// The next event of the log.
    pub fn event(&mut self) -> Event<'static> {
        let item = Self::item(self.rank());
        Event::new(self.signal(), item, self.tick()).user(self.below(USERS))
    }

    /// The next `len` events of the log as one batch.
    pub fn group(&mut self, len: usize) -> Batch {
        let mut batch = Batch::new();
        for _ in 0..len {
            batch.push(self.event());
        }
        batch
    }

    /// The next `count` groups of `len` events.
    pub fn groups(&mut self, count: usize, len: usize) -> Vec<Batch> {
        (0..count).map(|_| self.group(len)).collect()
    }

    /// `count` different items, drawn as events draw theirs: what a candidate source returns.
    pub fn candidates(&mut self, count: usize) -> Vec<EntityId> {
        let mut candidates = Vec::with_capacity(count);
        while candidates.len() < count.min(self.items()) {
            let item = Self::item(self.rank());
            if !candidates.contains(&item) {
                candidates.push(item);
            }
        }
        candidates
    }

    fn rank(&mut self) -> usize {
        // 53 random bits make a uniform number in [0, 1).
        let uniform = (self.next() >> 11) as f64 / (1_u64 << 53) as f64;
        let rank = self.cumulative.partition_point(|&share| share <= uniform);
        rank.min(self.items() - 1)
    }

    fn signal(&mut self) -> &'static str {
        let mut draw = self.below(100);
        for (name, percent) in SIGNALS {
            if draw < percent {
                return name;
            }
            draw -= percent;
        }
        unreachable!("the shares of the signals sum to a hundred")
    }

    /// A number below `limit`; the bias of the remainder is far below what a bench could see.
    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        scatter(self.random)
    }
}

/// A bijection of 64-bit numbers that leaves no pattern (the finalizer of SplitMix64).
const fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}
