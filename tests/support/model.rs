//! A plain reference: every event in a list, every answer a walk over it.
//!
//! Knows: what counts, scores and rankings mean. Shares no code with the engine.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use tidaldb::schema::{EntityId, Timestamp, Window};
use tidaldb::{Ranked, ReadOptions, TidalDb};

/// The windows that are made of buckets: grain in minutes, and number of buckets.
pub const BUCKETED: [(Window, u64, u64); 4] = [
    (Window::OneHour, 1, 60),
    (Window::TwentyFourHours, 15, 96),
    (Window::SevenDays, 120, 84),
    (Window::ThirtyDays, 480, 90),
];

/// The prior of velocity, as documented.
pub const PRIOR: f64 = 10.0;

/// How far a score may be from the plain sum, relative to the decayed sum of absolute weights.
pub const TOLERANCE: f64 = 1e-9;

/// The smallest number that an `f64` can tell from zero.
const LEAST: f64 = f64::from_bits(1);

const MINUTE_NS: u64 = 60_000_000_000;

/// One event on one item.
#[derive(Debug, Clone, Copy)]
pub struct Seen {
    /// When it happened.
    pub at: Timestamp,
    /// What it adds.
    pub weight: f64,
}

/// The events of one signal in one scope, by item.
#[derive(Debug, Clone, Default)]
pub struct Column {
    /// Every event of every item.
    pub items: BTreeMap<EntityId, Vec<Seen>>,
}

/// Events in a window that ended `back` windows ago; all of them for all time.
pub fn count(events: &[Seen], window: Window, now: Timestamp, back: u64) -> u64 {
    let Some((_, grain, n)) = BUCKETED.iter().find(|(w, ..)| *w == window) else {
        return events.len() as u64;
    };
    let bucket = |time: Timestamp| (time.as_nanos() / (grain * MINUTE_NS)) as i64;
    let last = bucket(now) - (back * n) as i64;
    let counts = |seen: &&Seen| bucket(seen.at) > last - *n as i64 && bucket(seen.at) <= last;
    events.iter().filter(counts).count() as u64
}

/// Velocity over a window.
pub fn velocity(events: &[Seen], window: Window, now: Timestamp) -> f64 {
    (count(events, window, now, 0) as f64 + PRIOR) / (count(events, window, now, 1) as f64 + PRIOR)
}

/// The decayed sum, and how far a sum of the same terms may be from it: [`TOLERANCE`] of the decayed
/// sum of absolute weights, and the rounding of terms that are too small for a normal `f64`.
pub fn score(events: &[Seen], half_life: Duration, now: Timestamp) -> (f64, f64) {
    let mut sums = (0.0, 0.0);
    for seen in events {
        let age_ns = now.as_nanos() as i128 - seen.at.as_nanos() as i128;
        let factor = if half_life == Duration::MAX {
            1.0
        } else {
            (-(age_ns as f64) / half_life.as_nanos() as f64).exp2()
        };
        sums.0 += seen.weight * factor;
        sums.1 += seen.weight.abs() * factor;
    }
    let weights: f64 = events.iter().map(|seen| seen.weight.abs().max(1.0)).sum();
    (sums.0, TOLERANCE * sums.1 + weights * 2.0 * LEAST)
}

impl Column {
    /// Adds an event.
    pub fn push(&mut self, item: EntityId, at: Timestamp, weight: f64) {
        self.items.entry(item).or_default().push(Seen { at, weight });
    }

    /// The events of an item.
    pub fn of(&self, item: EntityId) -> &[Seen] {
        self.items.get(&item).map_or(&[], Vec::as_slice)
    }

    fn ranked(&self, hidden: &HashSet<EntityId>, value: impl Fn(&[Seen]) -> f64) -> Vec<Ranked> {
        let mut all: Vec<Ranked> = self
            .items
            .iter()
            .filter(|(item, _)| !hidden.contains(item))
            .map(|(&entity, events)| Ranked { entity, value: value(events) })
            .collect();
        // Stable, and the items are in order: ties stay in the order of items.
        all.sort_by(|left, right| right.value.total_cmp(&left.value));
        all
    }
}

/// One column of a database and what it must answer.
#[derive(Debug, Clone, Copy)]
pub struct Check<'a> {
    /// The database.
    pub db: &'a TidalDb,
    /// The signal.
    pub signal: &'a str,
    /// The cohort; `None` is everyone.
    pub cohort: Option<&'a str>,
    /// As of when.
    pub now: Timestamp,
    /// What happened.
    pub column: &'a Column,
    /// Items that are kept out of rankings.
    pub hidden: &'a HashSet<EntityId>,
}

impl Check<'_> {
    fn options(&self) -> ReadOptions {
        let options = ReadOptions::new().now(self.now);
        match self.cohort {
            Some(cohort) => options.cohort(cohort),
            None => options,
        }
    }

    fn what(&self) -> String {
        format!("{} of {} at {:?}", self.signal, self.cohort.unwrap_or("everyone"), self.now)
    }

    /// The counts of these items in all of these windows.
    pub fn counts(&self, items: &[EntityId], windows: &[Window]) {
        let mut out = vec![0; items.len()];
        for &window in windows {
            self.db
                .windowed_counts(items, self.signal, window, &self.options(), &mut out)
                .expect("counts are read");
            for (&item, &found) in items.iter().zip(&out) {
                let expected = count(self.column.of(item), window, self.now, 0);
                assert_eq!(found, expected, "{window} count of item {item}, {}", self.what());
            }
        }
    }

    /// The velocities of these items.
    pub fn velocities(&self, items: &[EntityId], windows: &[Window]) {
        for &window in windows {
            for &item in items {
                let found = self.db.velocity(item, self.signal, window, &self.options());
                let expected = velocity(self.column.of(item), window, self.now);
                let found = found.expect("velocity is read");
                assert_eq!(found, expected, "{window} velocity of {item}, {}", self.what());
            }
        }
    }

    /// The scores of these items under these half-lives.
    pub fn scores(&self, items: &[EntityId], half_lives: &[Duration]) {
        let mut out = vec![0.0; items.len()];
        for &half_life in half_lives {
            let options = self.options().half_life(half_life);
            self.db.scores(items, self.signal, &options, &mut out).expect("scores are read");
            for (&item, &found) in items.iter().zip(&out) {
                let (expected, slack) = score(self.column.of(item), half_life, self.now);
                assert!(
                    (found - expected).abs() <= slack,
                    "score of item {item} under {half_life:?} is {found:e}, not {expected:e}, {}",
                    self.what()
                );
            }
        }
    }

    /// The top items by count, exactly.
    pub fn top(&self, windows: &[Window], k: usize) {
        for &window in windows {
            let found = self.db.top(self.signal, window, k, &self.options()).expect("top is read");
            let all = self.column.ranked(self.hidden, |e| count(e, window, self.now, 0) as f64);
            let expected: Vec<Ranked> = all.into_iter().filter(|r| r.value > 0.0).take(k).collect();
            assert_eq!(found, expected, "top {k} of {window}, {}", self.what());
        }
    }

    /// The trending items, exactly.
    pub fn trending(&self, windows: &[Window], k: usize) {
        for &window in windows {
            let found = self.db.trending(self.signal, window, k, &self.options());
            let all = self.column.ranked(self.hidden, |e| velocity(e, window, self.now));
            let expected: Vec<Ranked> = all.into_iter().filter(|r| r.value > 1.0).take(k).collect();
            assert_eq!(found.expect("read"), expected, "trending {k} of {window}, {}", self.what());
        }
    }

    /// The hot items. Two sums of the same terms may differ in their last bits, so items may change
    /// places only where the plain sums are that close.
    pub fn hot(&self, half_lives: &[Duration], k: usize) {
        for &half_life in half_lives {
            let options = self.options().half_life(half_life);
            let found = self.db.hot(self.signal, k, &options).expect("hot is read");
            self.hot_is(&found, half_life, k);
        }
    }

    fn hot_is(&self, found: &[Ranked], half_life: Duration, k: usize) {
        let what = || format!("hot {k} under {half_life:?}, {}: {found:?}", self.what());
        let of = |item| score(self.column.of(item), half_life, self.now);
        for ranked in found {
            let (expected, slack) = of(ranked.entity);
            assert!((ranked.value - expected).abs() <= slack, "value in {}", what());
            assert!(!self.hidden.contains(&ranked.entity), "a hidden item in {}", what());
        }
        for pair in found.windows(2) {
            let falls = pair[0].value > pair[1].value
                || (pair[0].value == pair[1].value && pair[0].entity < pair[1].entity)
                || pair[0].value == 0.0;
            // Scores that read the same may differ before they are rounded to f64.
            let close = (pair[0].value - pair[1].value).abs() <= of(pair[0].entity).1;
            assert!(falls || close, "order in {}", what());
        }
        let listed: HashSet<EntityId> = found.iter().map(|ranked| ranked.entity).collect();
        assert_eq!(listed.len(), found.len(), "an item twice in {}", what());
        let eligible =
            self.column.items.keys().filter(|i| !listed.contains(i) && !self.hidden.contains(i));
        for &item in eligible {
            let (value, slack) = of(item);
            let full = |found: &[Ranked]| found.last().map_or(f64::INFINITY, |last| last.value);
            let least = if found.len() < k { 0.0 } else { full(found) };
            assert!(value <= least + slack, "{item} ({value}) is missing in {}", what());
        }
        assert!(found.len() <= k, "too many in {}", what());
    }
}
