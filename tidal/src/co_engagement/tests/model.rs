//! Trails and edges as plain maps, weights as doubles.
//!
//! Knows: what the documentation says. Shares no code with the room, and takes time from what a step
//! says.

use std::collections::BTreeMap;

use super::super::{CoEngagements, Owner, Scale, Similarity};
use super::{START, Step};
use crate::decay::Decay;
use crate::ids::{EntityId, Timestamp, UserId};
use crate::schema::CoEngagement;

#[derive(Debug)]
struct Trail {
    owner: Owner,
    last: u64,
    items: Vec<u64>,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    weight: f64,
    support: u32,
}

impl Count {
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
pub(super) struct Model {
    rules: CoEngagement,
    /// The oldest first.
    trails: Vec<Trail>,
    selves: BTreeMap<u64, Count>,
    edges: BTreeMap<(u64, u64), Count>,
    started: f64,
    /// How many trails ever started.
    starts: u32,
    /// Seen and returned, by position.
    revisits: [(u64, u64); 20],
}

impl Model {
    pub(super) fn new(rules: CoEngagement) -> Self {
        let (trails, selves, edges) = (Vec::new(), BTreeMap::new(), BTreeMap::new());
        let (started, starts, revisits) = (0.0, 0, [(0, 0); 20]);
        Self { rules, trails, selves, edges, started, starts, revisits }
    }

    /// What one event at a time weighs, as of the start, which is a whole number of half-lives.
    #[expect(clippy::disallowed_methods, reason = "nothing is replayed from a model")]
    fn term(&self, at: u64) -> f64 {
        (at as f64 / self.rules.half_life.as_secs_f64()).exp2()
    }

    pub(super) fn apply(&mut self, step: &Step) {
        match step {
            Step::Engage(engagements) => {
                for e in engagements {
                    self.engage(e.owner, e.item.get(), seconds(e.at));
                }
            }
            Step::Forget(item) => {
                let item = item.get();
                self.trails.iter_mut().for_each(|trail| trail.items.retain(|&other| other != item));
                self.selves.remove(&item);
                self.edges.retain(|&(from, to), _| from != item && to != item);
            }
            Step::DropAfter(time) => self.drop_after(seconds(*time)),
        }
    }

    fn drop_after(&mut self, time: u64) {
        self.trails.iter_mut().for_each(|trail| trail.last = trail.last.min(time));
        let term = self.term(time);
        for count in self.selves.values_mut().chain(self.edges.values_mut()) {
            count.weight = count.weight.min(rounded(term * f64::from(count.support)));
        }
        self.started = self.started.min(term * f64::from(self.starts));
    }

    fn engage(&mut self, owner: Owner, item: u64, at: u64) {
        let idle = self.rules.trail_idle.as_secs();
        let term = self.term(at);
        let newest = self.trails.iter().rposition(|trail| trail.owner == owner);
        let at_trail = match newest {
            Some(newest) if at + idle < self.trails[newest].last => return,
            Some(newest) if at <= self.trails[newest].last + idle => newest,
            _ => {
                self.trails.push(Trail { owner, last: at, items: Vec::new() });
                if self.trails.len() > self.rules.trails_max as usize {
                    self.trails.remove(0);
                }
                self.started += term;
                self.starts += 1;
                self.trails.len() - 1
            }
        };
        let trail = &mut self.trails[at_trail];
        trail.last = trail.last.max(at);
        for (position, &other) in trail.items.iter().rev().take(20).enumerate() {
            self.revisits[position].0 += 1;
            self.revisits[position].1 += u64::from(other == item);
        }
        if let Some(known) = trail.items.iter().position(|&other| other == item) {
            trail.items.remove(known);
            trail.items.push(item);
            return;
        }
        let recent = self.rules.recent_items as usize;
        let others: Vec<u64> = trail.items.iter().rev().take(recent).copied().collect();
        trail.items.push(item);
        if trail.items.len() > self.rules.trail_items_max as usize {
            trail.items.remove(0);
        }
        self.selves.entry(item).or_default().add(term);
        for (distance, other) in (1u32..).zip(others) {
            self.add(item, other, term / f64::from(distance));
            self.add(other, item, term / f64::from(distance));
        }
    }

    fn add(&mut self, from: u64, to: u64, term: f64) {
        if !self.edges.contains_key(&(from, to)) {
            let of_row = self.edges.range((from, 0)..=(from, u64::MAX)).count();
            if of_row >= self.rules.neighbours_max as usize {
                self.evict(|&(row, _)| row == from);
            } else if self.edges.len() as u64 >= self.rules.capacity {
                self.evict(|_| true);
            }
        }
        self.edges.entry((from, to)).or_default().add(term);
    }

    fn evict(&mut self, among: impl Fn(&(u64, u64)) -> bool) {
        let of = self.edges.iter().filter(|(edge, _)| among(edge));
        let lightest = of.min_by(|(edge, count), (other, other_count)| {
            count.weight.total_cmp(&other_count.weight).then(edge.cmp(other))
        });
        let lightest = *lightest.expect("there is one").0;
        self.edges.remove(&lightest);
    }

    /// Compares everything.
    pub(super) fn compare(&self, state: &CoEngagements) {
        self.compare_trails(state);
        let revisits = state.revisits().map(|of| (of.seen, of.returned));
        assert_eq!(revisits, self.revisits, "revisits");
        let now = Decay::at(Timestamp::from_secs(START), self.rules.decay());
        let started = state.trails().started();
        assert_close(started.at(&now), self.started, "trails in all");
        let edges = state.edges();
        assert_eq!(edges.count(), self.edges.len() as u64, "edges");
        let scale = Scale::new(Similarity::CoOccurrence, now, started);
        let lift = Scale::new(Similarity::Lift, now, started);
        for (&(from, to), count) in &self.edges {
            let near = edges.nearest(EntityId::new(from), usize::MAX, scale, 0, |_| true);
            let near = near.iter().find(|near| near.item.get() == to).expect("the edge is there");
            assert_eq!(near.support, count.support, "support of {from} to {to}");
            assert_close(near.weight, count.weight, "an edge");
            let lifted = edges.nearest(EntityId::new(from), usize::MAX, lift, 0, |_| true);
            let lifted = lifted.iter().find(|near| near.item.get() == to).expect("it is there");
            let by_chance = self.selves[&from].weight * self.selves[&to].weight / self.started;
            assert_close(lifted.similarity, count.weight / by_chance, "a lift");
        }
        for item in 0..12 {
            let known = edges.slot(EntityId::new(item)).is_some();
            assert_eq!(known, self.selves.contains_key(&item), "item {item} is known");
        }
    }

    fn compare_trails(&self, state: &CoEngagements) {
        let held = state.trails();
        assert_eq!(held.len(), self.trails.len(), "trails");
        for (position, trail) in self.trails.iter().enumerate() {
            let found = held.at(position as u32);
            let items: Vec<u64> = found.items.iter().map(|&n| held.item(n).get()).collect();
            assert_eq!((found.owner, &items), (trail.owner, &trail.items));
            assert_eq!(seconds(found.last), trail.last);
            let user = user_of(trail.owner);
            let of_user: Vec<u64> = held.of(user).map(|trail| trail.id).collect();
            let first = u64::from(self.starts) + 1 - self.trails.len() as u64;
            let expected = (0..self.trails.len()).rev();
            let expected = expected.filter(|&at| user_of(self.trails[at].owner) == user);
            assert_eq!(of_user, expected.map(|at| first + at as u64).collect::<Vec<_>>());
        }
        for item in 0..12 {
            let with: Vec<u32> = (0..self.trails.len() as u32)
                .rev()
                .filter(|&at| self.trails[at as usize].items.contains(&item))
                .collect();
            let number = held.number(EntityId::new(item));
            let found: Option<Vec<u32>> = number.map(|number| held.with(number).collect());
            assert_eq!(found.unwrap_or_default(), with, "trails with item {item}");
        }
    }
}

/// Whose trails are read together.
fn user_of(owner: Owner) -> Option<UserId> {
    match owner {
        Owner::User(user) | Owner::Session { user, .. } => Some(user),
        Owner::Anonymous => None,
    }
}

fn seconds(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000 - START
}

fn assert_close(found: f64, expected: f64, what: &str) {
    let error = (found - expected).abs();
    assert!(error <= 1e-9 * expected, "{what}: {found}, not {expected}");
}
