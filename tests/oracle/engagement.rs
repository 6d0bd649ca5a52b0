//! What engagements mean, by plain maps.
//!
//! Knows: trails, edges, revisits, and how a weight is rounded. Shares no code with the engine.

use std::collections::{BTreeMap, HashSet};

use tidaldb::TidalDb;
use tidaldb::co_engagement::Similarity;
use tidaldb::schema::{CoEngagement, EntityId, Timestamp};

use crate::operation::{HOUR, ITEMS};

/// Bounds that a story reaches. Events without a user share one trail.
pub(crate) fn settings() -> CoEngagement {
    let mut settings = CoEngagement::default();
    (settings.recent_items, settings.trail_items_max, settings.trails_max) = (3, 4, 6);
    (settings.neighbours_max, settings.capacity) = (3, 14);
    (settings.trail_idle, settings.anonymous_trail) = (HOUR, true);
    settings
}

/// Whose visit a trail is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    Nobody,
    User(u8),
    Session(u64),
}

#[derive(Debug, Clone)]
struct Trail {
    owner: Owner,
    last: Timestamp,
    items: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Sum {
    weight: f64,
    support: u32,
}

impl Sum {
    fn add(&mut self, term: f64) {
        self.weight = rounded(self.weight + rounded(term));
        self.support += 1;
    }
}

/// A weight has 41 bits; which of two is lighter may hang on the last.
fn rounded(weight: f64) -> f64 {
    f64::from_bits((weight.to_bits() + (1 << 11)) & !((1 << 12) - 1))
}

/// Everything, by item.
#[derive(Debug, Clone, Default)]
pub(crate) struct Engagements {
    /// The oldest first.
    trails: Vec<Trail>,
    selves: BTreeMap<u64, Sum>,
    edges: BTreeMap<(u64, u64), Sum>,
}

/// A half-life, and a whole number of them before all stories.
const HALF_LIFE_S: u64 = 30 * 86_400;
const BASE_S: u64 = 1_600_000_000 / HALF_LIFE_S * HALF_LIFE_S;

/// What an event weighs, as of the base.
fn term(at: Timestamp) -> f64 {
    let seconds = at.as_nanos() as f64 / 1e9 - BASE_S as f64;
    (seconds / HALF_LIFE_S as f64).exp2()
}

impl Engagements {
    /// Somebody engages with an item.
    pub(crate) fn engage(&mut self, owner: Owner, item: u64, at: Timestamp) {
        let rules = settings();
        let newest = self.trails.iter().rposition(|trail| trail.owner == owner);
        let trail = match newest.map(|newest| (newest, self.trails[newest].last)) {
            Some((_, last)) if at.saturating_add(rules.trail_idle) < last => return,
            Some((newest, last)) if at <= last.saturating_add(rules.trail_idle) => newest,
            _ => {
                self.trails.push(Trail { owner, last: at, items: Vec::new() });
                if self.trails.len() > rules.trails_max as usize {
                    self.trails.remove(0);
                }
                self.trails.len() - 1
            }
        };
        let trail = &mut self.trails[trail];
        trail.last = trail.last.max(at);
        let known = trail.items.iter().position(|&other| other == item);
        if let Some(at) = known {
            trail.items.remove(at);
        }
        let recent = trail.items.iter().rev().take(rules.recent_items as usize);
        let others: Vec<u64> = recent.copied().collect();
        trail.items.push(item);
        if trail.items.len() > rules.trail_items_max as usize {
            trail.items.remove(0);
        }
        if known.is_some() {
            return;
        }
        self.selves.entry(item).or_default().add(term(at));
        for (distance, other) in (1u32..).zip(others) {
            self.add(item, other, term(at) / f64::from(distance));
            self.add(other, item, term(at) / f64::from(distance));
        }
    }

    fn add(&mut self, from: u64, to: u64, term: f64) {
        let rules = settings();
        if !self.edges.contains_key(&(from, to)) {
            let of_row = self.edges.range((from, 0)..=(from, u64::MAX)).count();
            let is_full = of_row >= rules.neighbours_max as usize;
            if is_full || self.edges.len() as u64 >= rules.capacity {
                let among = |(row, _): &(u64, u64)| !is_full || *row == from;
                let of = self.edges.iter().filter(|(edge, _)| among(edge));
                let lightest = of.min_by(|(edge, sum), (other, other_sum)| {
                    sum.weight.total_cmp(&other_sum.weight).then(edge.cmp(other))
                });
                let lightest = *lightest.expect("it is full").0;
                self.edges.remove(&lightest);
            }
        }
        self.edges.entry((from, to)).or_default().add(term);
    }

    /// An item is deleted.
    pub(crate) fn forget(&mut self, item: u64) {
        self.trails.iter_mut().for_each(|trail| trail.items.retain(|&other| other != item));
        self.selves.remove(&item);
        self.edges.retain(|&(from, to), _| from != item && to != item);
    }

    /// Engine time is set back.
    pub(crate) fn set_back(&mut self, time: Timestamp) {
        self.trails.iter_mut().for_each(|trail| trail.last = trail.last.min(time));
        for sum in self.selves.values_mut().chain(self.edges.values_mut()) {
            sum.weight = sum.weight.min(rounded(term(time) * f64::from(sum.support)));
        }
    }

    /// Compares a database with the maps.
    pub(crate) fn check(&self, db: &TidalDb, hidden: &HashSet<EntityId>) {
        let found = db.co_engagement().now(db.engine_time());
        assert_eq!(found.trail_count(), self.trails.len() as u64, "trails");
        assert_eq!(found.edge_count(), self.edges.len() as u64, "edges");
        let now = term(db.engine_time());
        for item in 0..ITEMS {
            let mut expected: Vec<(u64, Sum)> = self
                .edges
                .range((item, 0)..=(item, u64::MAX))
                .map(|(&(_, to), &sum)| (to, sum))
                .filter(|(to, _)| !hidden.contains(&EntityId::new(*to)))
                .collect();
            let nearest = found.neighbours(EntityId::new(item), 100, Similarity::CoOccurrence);
            let mut nearest = nearest.expect("a similarity");
            nearest.sort_by_key(|near| near.item);
            expected.sort_by_key(|(to, _)| *to);
            assert_eq!(nearest.len(), expected.len(), "neighbours of {item}");
            for (near, (to, sum)) in nearest.into_iter().zip(expected) {
                assert_eq!((near.item.get(), near.support), (to, sum.support), "of {item}");
                let error = (near.weight - sum.weight / now).abs();
                assert!(error <= 1e-9 * sum.weight / now, "{item} to {to}: {}", near.weight);
            }
        }
    }
}
