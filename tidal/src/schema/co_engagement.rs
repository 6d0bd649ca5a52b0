//! Co-engagement: which bounds and times its trails and edges have.
//!
//! Knows: the settings, which of them are accepted, which may change later. Must not know: how trails
//! and edges are kept.

use std::ops::RangeInclusive;
use std::time::Duration;

use super::decay::HalfLife;
use crate::ids::duration_nanos;

/// How "people who engaged with X also engaged with Y" is kept, for the signals that are declared
/// [`engaging`](super::SignalBuilder::engaging).
///
/// A *trail* is what one user engages with in one visit; an *edge* leads from an item to another one of
/// the same trail. These numbers bound how many there are of both, so they are part of the schema: a
/// replay of the log must compute the same under any options. An item that was ever engaged with keeps
/// a row, of some 90 bytes, until it is [deleted](crate::TidalDb::delete_item).
///
/// ```
/// use std::time::Duration;
/// use tidaldb::schema::CoEngagement;
///
/// let mut settings = CoEngagement::default();
/// settings.neighbours_max = 50;
/// settings.half_life = Duration::from_secs(7 * 86_400);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CoEngagement {
    /// With how many items, the last ones touched in the trail, a new one is paired: 1 to 100 (10).
    /// An event changes at most twice as many edges. May be changed later.
    pub recent_items: u32,
    /// Edges that leave one item: 1 to 1,000 (100). May be raised later.
    pub neighbours_max: u32,
    /// Edges in all, each direction counted: 1 to 1,000,000,000 (1,000,000). May be raised later.
    pub capacity: u64,
    /// After which time a pair weighs half: 1 h to 100 years, or [`Duration::MAX`] for ever (30 d).
    /// Never changes.
    pub half_life: Duration,
    /// Without an engagement for longer than this a trail ends: 1 s to 365 d (30 min). May be changed
    /// later.
    pub trail_idle: Duration,
    /// Items of one trail: `recent_items` to 1,000 (100). The one that was not touched for longest
    /// leaves. May be raised later.
    pub trail_items_max: u32,
    /// Trails that are kept, ended ones too: 1 to 10,000,000 (200,000). The oldest leaves. May be
    /// raised later.
    pub trails_max: u32,
    /// Whether all events without a user share one trail: right for an application with a single
    /// user, wrong for any other (false). Its items are recommended from as a session, not
    /// [for a user](crate::TidalDb::for_user). May be changed later.
    pub anonymous_trail: bool,
}

impl Default for CoEngagement {
    fn default() -> Self {
        Self {
            recent_items: 10,
            neighbours_max: 100,
            capacity: 1_000_000,
            half_life: DAY * 30,
            trail_idle: Duration::from_secs(30 * 60),
            trail_items_max: 100,
            trails_max: 200_000,
            anonymous_trail: false,
        }
    }
}

const DAY: Duration = Duration::from_secs(86_400);

/// The most edges that may leave one item: finding one is a pass over them.
const NEIGHBOURS_LIMIT: u64 = 1_000;
/// The most items of a trail, for the same reason.
const TRAIL_ITEMS_LIMIT: u64 = 1_000;

/// A weight counts half-lives since the epoch in 24 bits.
const HALF_LIFE_MIN: Duration = Duration::from_secs(3_600);
const TRAIL_IDLE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(365 * 86_400);

impl CoEngagement {
    /// The half-life, as scores know it.
    ///
    /// # Panics
    ///
    /// When it is none, which no schema has.
    pub(crate) fn decay(&self) -> HalfLife {
        HalfLife::from_duration(self.half_life).expect("a schema has valid half-lives only")
    }

    /// What is wrong with it, a sentence each.
    pub(super) fn problems(&self) -> Vec<String> {
        let mut problems: Vec<String> =
            self.counts().into_iter().filter_map(Count::problem).collect();
        let decays = HalfLife::from_duration(self.half_life).is_ok();
        if !decays || self.half_life < HALF_LIFE_MIN {
            problems.push(format!(
                "co-engagement has a half-life of {:?}: give it one hour to 100 years, or \
                 Duration::MAX for none",
                self.half_life
            ));
        }
        if !TRAIL_IDLE.contains(&self.trail_idle) {
            problems.push(format!(
                "co-engagement has trails that end after {:?}: give trail_idle 1 s to 365 d",
                self.trail_idle
            ));
        }
        problems
    }

    /// What of `stored` may not become what it is here, a sentence each.
    pub(super) fn differences(&self, stored: &Self) -> Vec<String> {
        let lowered = stored.counts().into_iter().zip(self.counts()).filter_map(|(old, new)| {
            (old.only_rises && new.value < old.value).then(|| {
                format!(
                    "co-engagement has {} {} stored but {} given: it can only be raised",
                    old.name, old.value, new.value
                )
            })
        });
        let mut differences: Vec<String> = lowered.collect();
        if self.half_life != stored.half_life {
            differences.push(format!(
                "co-engagement has the half-life {:?} stored but {:?} given: it never changes",
                stored.half_life, self.half_life
            ));
        }
        differences
    }

    fn counts(&self) -> [Count; 5] {
        let count = |name, value, limits, only_rises| Count { name, value, limits, only_rises };
        let recent = u64::from(self.recent_items);
        [
            count("recent_items", recent, 1..=100, false),
            count("neighbours_max", self.neighbours_max.into(), 1..=NEIGHBOURS_LIMIT, true),
            count("capacity", self.capacity, 1..=1_000_000_000, true),
            count("trail_items_max", self.trail_items_max.into(), recent..=TRAIL_ITEMS_LIMIT, true),
            count("trails_max", self.trails_max.into(), 1..=10_000_000, true),
        ]
    }

    pub(super) fn trail_idle_ns(&self) -> u64 {
        duration_nanos(self.trail_idle)
    }
}

/// One of the numbers, and what it may be.
struct Count {
    name: &'static str,
    value: u64,
    limits: RangeInclusive<u64>,
    only_rises: bool,
}

impl Count {
    fn problem(self) -> Option<String> {
        (!self.limits.contains(&self.value)).then(|| {
            format!(
                "co-engagement has {} {}: give it {} to {}",
                self.name,
                self.value,
                self.limits.start(),
                self.limits.end()
            )
        })
    }
}
