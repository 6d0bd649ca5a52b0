//! From the items of a session to what comes next.
//!
//! Knows: the formulas of both methods and of the way back. Must not know: hidden items, cohorts, who
//! asks.
//!
//! *Seeds* are a session's distinct items, the last touched first; p counts them from 1.
//!
//! - **Edges**: `s(y) = Σ_p sim(x_p, y) / p²`, after item-based collaborative filtering (Sarwar, Karypis,
//!   Konstan and Riedl, WWW 2001) with seeds weighted by position. Where that gives fewer candidates than
//!   were asked for, the neighbours of the best five stand behind them all ([`fill`]).
//! - **Sessions**: `k(y) / max k + s(y) / (2 max s)`, with k from the nearest trails ([`sessions`]).
//! - **The way back** ([`rank`]): a session often returns to one of its own items. How often, by how
//!   many others it has touched since, is counted, so nothing has to be tuned: where nobody returns,
//!   the order is that of the method.
//!
//! Sums are formed in the order of seeds and trails, ties broken by item, so an answer depends on the
//! state and on nothing else.

use super::neighbours::HeldEdges;
use super::sessions;
use super::similarity::Scale;
use super::sums::Sums;
use super::trails::HeldTrails;
use crate::decay::Decay;
use crate::ids::EntityId;
use crate::schema::HalfLife;
use crate::sync::Mutex;

/// The most seeds that give candidates: one bit each.
pub(crate) const SEEDS_MAX: usize = 32;

/// The fill's candidates come from the neighbours of so many.
const FILL_FROM: usize = 5;
/// The best of the fill against the least of the candidates.
const FILL_SHARE: f64 = 0.9;
/// What edges count for beside trails.
const EDGES_SHARE: f64 = 0.5;
/// What candidates count for beside the way back; and the least that is left for them.
const CANDIDATES_SHARE: f64 = 0.25;
const CANDIDATES_LEAST: f64 = 0.1;

/// How candidates are found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Method {
    /// By the edges of the seeds. Least work; measures best on baskets, and as well as sessions on
    /// clicks (`docs/quality.md`).
    #[default]
    Edges,
    /// By the trails that are most like the session, and edges beside them: a click is found by the
    /// next answer of anybody.
    Sessions,
}

/// What a recommendation is made from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request<'a> {
    /// Distinct, the last touched first.
    pub(crate) session: &'a [EntityId],
    pub(crate) method: Method,
    /// So many items of the session give candidates.
    pub(crate) seeds_max: usize,
    pub(crate) scale: Scale,
    pub(crate) support_min: u32,
    /// How often a session returns to its last item, to the one before, and so on; `None` when no item
    /// of the session may be answered.
    pub(crate) returns: Option<&'a [f64]>,
    /// How many candidates are hoped for.
    pub(crate) wanted: usize,
    pub(crate) half_life: HalfLife,
    pub(crate) now: Decay,
}

/// An item that may be answered.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Candidate {
    pub(crate) item: EntityId,
    pub(crate) score: f64,
    /// Bit p is set when seed p, counted from 0, speaks for it.
    pub(crate) seeds: u32,
}

/// What an answer is computed in.
#[derive(Debug, Default)]
struct Scratch {
    edges: Sums,
    fill: Sums,
    sessions: sessions::Scratch,
}

/// As many as there ever were answers at one time; an answer takes one and gives it back.
#[derive(Debug, Default)]
pub(super) struct Scratches(Mutex<Vec<Scratch>>);

impl Scratches {
    /// Memory of those that no answer has at the moment.
    pub(super) fn size_bytes(&self) -> u64 {
        let size = |scratch: &Scratch| {
            scratch.edges.size_bytes() + scratch.fill.size_bytes() + scratch.sessions.size_bytes()
        };
        self.0.lock().iter().map(size).sum()
    }

    /// All candidates, in no order.
    pub(super) fn candidates(
        &self,
        edges: &HeldEdges<'_>,
        trails: &HeldTrails<'_>,
        request: &Request<'_>,
    ) -> Vec<Candidate> {
        let mut scratch = self.0.lock().pop().unwrap_or_default();
        let found = candidates(edges, trails, request, &mut scratch);
        self.0.lock().push(scratch);
        found
    }
}

fn candidates(
    edges: &HeldEdges<'_>,
    trails: &HeldTrails<'_>,
    request: &Request<'_>,
    scratch: &mut Scratch,
) -> Vec<Candidate> {
    let Scratch { edges: sums, fill, sessions } = scratch;
    let seeds = &request.session[..request.session.len().min(request.seeds_max)];
    gather(edges, seeds, request, sums);
    fill_up(edges, request, sums, fill);
    if request.method == Method::Sessions {
        sessions::gather(trails, seeds, request, sessions);
        join(edges, trails, sums, sessions);
    }
    let found = sums.iter().map(|(slot, gathered)| Candidate {
        item: edges.item(slot),
        score: gathered.sum,
        seeds: gathered.seeds,
    });
    rank(edges, found.collect(), sums.largest(), request)
}

/// The weight of seed p, counted from 0.
fn seed_weight(p: usize) -> f64 {
    let place = (p + 1) as f64;
    1.0 / (place * place)
}

/// s(y): what the edges of the seeds lead to.
fn gather(edges: &HeldEdges<'_>, seeds: &[EntityId], request: &Request<'_>, sums: &mut Sums) {
    sums.begin(edges.slots_end());
    for (p, &seed) in seeds.iter().enumerate() {
        let Some(slot) = edges.slot(seed) else { continue };
        let weight = seed_weight(p);
        for near in edges.of(slot, request.scale) {
            if near.support >= request.support_min {
                sums.add(near.slot, weight * near.similarity, 1 << p);
            }
        }
    }
}

/// The neighbours of the best candidates, where fewer new items were found than are wanted: none is
/// above any candidate. A seed may be among the best, since what leads back to it leads on from it.
fn fill_up(edges: &HeldEdges<'_>, request: &Request<'_>, sums: &mut Sums, fill: &mut Sums) {
    let of_session = |item: &&EntityId| edges.slot(**item).is_some_and(|at| sums.get(at).is_some());
    let new = sums.numbers.len() - request.session.iter().filter(of_session).count();
    if new >= request.wanted {
        return;
    }
    let mut best: Vec<(f64, EntityId, u32)> =
        sums.iter().map(|(slot, g)| (g.sum, edges.item(slot), slot)).collect();
    best.sort_unstable_by(|left, right| right.0.total_cmp(&left.0).then(left.1.cmp(&right.1)));
    let least = best.last().map_or(0.0, |&(sum, ..)| sum);
    fill.begin(edges.slots_end());
    for &(sum, _, slot) in best.iter().take(FILL_FROM) {
        let seeds = sums.get(slot).map_or(0, |gathered| gathered.seeds);
        for near in edges.of(slot, request.scale) {
            if near.support >= request.support_min
                && sums.get(near.slot).is_none()
                && !request.session.contains(&edges.item(near.slot))
            {
                fill.add(near.slot, sum * near.similarity, seeds);
            }
        }
    }
    let largest = fill.largest();
    if largest > 0.0 {
        let scale = FILL_SHARE * least / largest;
        fill.iter().for_each(|(slot, g)| sums.add(slot, g.sum * scale, g.seeds));
    }
}

/// Candidates of trails before candidates of edges, both by the best of their kind.
fn join(
    edges: &HeldEdges<'_>,
    trails: &HeldTrails<'_>,
    sums: &mut Sums,
    sessions: &sessions::Scratch,
) {
    let (of_edges, of_trails) = (sums.largest(), sessions.items.largest());
    if of_trails == 0.0 {
        return;
    }
    if of_edges > 0.0 {
        sums.scale(EDGES_SHARE / of_edges);
    }
    for (number, gathered) in sessions.items.iter() {
        // Whatever is in a trail has a row.
        if let Some(slot) = edges.slot(trails.item(number)) {
            sums.add(slot, gathered.sum / of_trails, gathered.seeds);
        }
    }
}

/// Joins what the method found and the way back. Without the latter, scores are those of the method
/// by the best of them.
fn rank(
    edges: &HeldEdges<'_>,
    mut found: Vec<Candidate>,
    largest: f64,
    request: &Request<'_>,
) -> Vec<Candidate> {
    if largest > 0.0 {
        found.iter_mut().for_each(|candidate| candidate.score /= largest);
    }
    let Some(returns) = request.returns else {
        found.retain(|candidate| !request.session.contains(&candidate.item));
        return found;
    };
    let recent = request.session.iter().zip(returns);
    let all: f64 = recent.clone().map(|(_, share)| share).sum();
    let left = CANDIDATES_SHARE * (1.0 - all).max(CANDIDATES_LEAST);
    found.iter_mut().for_each(|candidate| candidate.score *= left);
    // What leads to the current item is no sign that it comes again.
    found.retain(|candidate| Some(&candidate.item) != request.session.first());
    // Nobody goes back to what was never engaged with, or was deleted since.
    for (&item, &share) in recent.filter(|&(&item, _)| edges.slot(item).is_some()) {
        match found.iter_mut().find(|candidate| candidate.item == item) {
            Some(candidate) => candidate.score += share,
            None if share > 0.0 => found.push(Candidate { item, score: share, seeds: 0 }),
            None => {}
        }
    }
    found
}
