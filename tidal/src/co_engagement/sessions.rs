//! Trails like a session, and what they go on to.
//!
//! Knows: how trails vote. Must not know: edges, who asks.
//!
//! In the manner of VS-kNN (Ludewig and Jannach, "Evaluation of session-based recommendation
//! algorithms", UMUAI 28, 2018) and VMIS-kNN (Kersbergen, Sprangers and Schelter, "Serenade", SIGMOD
//! 2022), over trails as they grow. With seeds x_p, the last touched first:
//!
//! 1. The [`TRAILS_PER_SEED`] newest trails with x_p get 1/p each; q(t) is the smallest p that trail t
//!    has.
//! 2. The sum, halved for every half-life since the trail was touched last, is v(t); the
//!    [`TRAILS_NEAREST`] with the largest v vote, ties by the newer.
//! 3. `k(y) = Σ_t v(t) / √q(t) / max(1, |place of y − place of x_q|)`, places in the order of touches.
//!
//! Nothing is built beforehand: trails and the lists of trails by item are what engagements left.

use super::recommend::Request;
use super::sums::Sums;
use super::trails::HeldTrails;
use crate::decay::Factor;
use crate::ids::EntityId;

/// So many of the newest trails of each seed are looked at.
const TRAILS_PER_SEED: usize = 100;
/// So many of the trails that are most like the session vote.
const TRAILS_NEAREST: usize = 100;

/// What [`gather`] computes in.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    /// By position of a trail.
    trails: Sums,
    nearest: Vec<(f64, u32)>,
    /// k(y), by item number.
    pub(super) items: Sums,
}

impl Scratch {
    /// Memory held, in bytes.
    pub(super) fn size_bytes(&self) -> u64 {
        let nearest = self.nearest.capacity() * size_of::<(f64, u32)>();
        self.trails.size_bytes() + self.items.size_bytes() + nearest as u64
    }
}

/// k(y), into `scratch.items`.
pub(super) fn gather(
    trails: &HeldTrails<'_>,
    seeds: &[EntityId],
    request: &Request<'_>,
    scratch: &mut Scratch,
) {
    let Scratch { trails: alike, nearest, items } = scratch;
    alike.begin(trails.len());
    items.begin(trails.numbers_end());
    for (p, &seed) in seeds.iter().enumerate() {
        let Some(number) = trails.number(seed) else { continue };
        let weight = 1.0 / (p + 1) as f64;
        for position in trails.with(number).take(TRAILS_PER_SEED) {
            alike.add(position, weight, 1 << p);
        }
    }
    nearest.clear();
    nearest.extend(alike.iter().map(|(position, gathered)| {
        let last = Factor::at(trails.at(position).last, request.half_life);
        (last.weighted(gathered.sum).at(request.now), position)
    }));
    let order = |left: &(f64, u32), right: &(f64, u32)| {
        right.0.total_cmp(&left.0).then(right.1.cmp(&left.1))
    };
    if nearest.len() > TRAILS_NEAREST {
        nearest.select_nth_unstable_by(TRAILS_NEAREST, order);
        nearest.truncate(TRAILS_NEAREST);
    }
    // Votes are added in this order, so that equal states give equal sums.
    nearest.sort_unstable_by(order);
    for &(alikeness, position) in &*nearest {
        let matched = alike.get(position).expect("it was alike").seeds;
        vote(trails, seeds, position, (alikeness, matched), items);
    }
}

fn vote(
    trails: &HeldTrails<'_>,
    seeds: &[EntityId],
    position: u32,
    (alikeness, matched): (f64, u32),
    items: &mut Sums,
) {
    let trail = trails.at(position);
    let q = matched.trailing_zeros() as usize;
    let number = trails.number(seeds[q]).expect("the trail has it");
    let place = trail.items.iter().position(|&item| item == number);
    let place = place.expect("an item's trails are those that have it");
    let voice = alikeness / ((q + 1) as f64).sqrt();
    for (at, &item) in trail.items.iter().enumerate() {
        items.add(item, voice / at.abs_diff(place).max(1) as f64, matched);
    }
}
