//! Co-engagement: which items are engaged with together.
//!
//! Knows: what an engagement means to trails and edges, and how neighbours are read. Must not know: the
//! log, which signals are engagements, when sessions begin and end, hidden items, clocks.
//!
//! An engagement goes into its owner's *trail*, the user's or the session's; an item that was not in the trail yet is paired with
//! those touched last there, and each pair adds its term to two *edges*. So one engagement changes
//! `2 * recent_items` edges at most, however long a trail is. Beside that it is counted to what in
//! the trail it went back, or could have (*revisits*).

mod edges;
mod lightest;
mod neighbours;
mod recommend;
mod revisits;
mod row;
mod sessions;
mod similarity;
mod standalone;
mod sums;
#[cfg(test)]
mod tests;
mod trail;
mod trails;
mod weight;

pub(crate) use neighbours::HeldEdges;
pub use neighbours::Neighbour;
pub use recommend::Method;
pub(crate) use recommend::{Candidate, Request, SEEDS_MAX};
pub(crate) use revisits::Revisits;
pub(crate) use similarity::Scale;
pub use similarity::Similarity;
pub use standalone::CoEngagementIndex;
pub(crate) use trail::Owner;
pub(crate) use trails::HeldTrails;

use std::sync::Arc;

use edges::{Bounds, Edges};
use recommend::Scratches;
use revisits::{POSITIONS, RevisitCounts, Tally};
use trails::{Touch, Trails};

use crate::codec::DecodeError;
use crate::decay::Factor;
use crate::ids::{EntityId, Timestamp};
use crate::options::FUTURE_SKEW_MAX;
use crate::schema::CoEngagement;
use crate::table::{StateTable, TableId};

/// An event that connects an item with others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Engagement {
    pub(crate) owner: Owner,
    pub(crate) item: EntityId,
    pub(crate) at: Timestamp,
}

/// Readers wait while so many engagements are taken in, not longer.
const ENGAGEMENTS_PER_LOCK: usize = 64;

/// The trails and edges of a database.
pub(crate) struct CoEngagements {
    edges: Edges,
    trails: Trails,
    revisits: RevisitCounts,
    scratches: Scratches,
}

impl CoEngagements {
    /// The kind of table that edges are on disk.
    pub(crate) const EDGES: u8 = 10;
    /// The kind of table that trails are on disk.
    pub(crate) const TRAILS: u8 = 11;
    /// The kind of table that revisits are on disk.
    pub(crate) const REVISITS: u8 = 12;

    pub(crate) fn new() -> Self {
        Self {
            edges: Edges::new(TableId { kind: Self::EDGES, part: 0 }),
            trails: Trails::new(TableId { kind: Self::TRAILS, part: 0 }),
            revisits: RevisitCounts::new(TableId { kind: Self::REVISITS, part: 0 }),
            scratches: Scratches::default(),
        }
    }

    /// Takes engagements in, in their order.
    pub(crate) fn engage(&self, rules: &CoEngagement, engagements: &[Engagement]) {
        let (decay, bounds) = (rules.decay(), bounds_of(rules));
        // The tables' locks are held one after the other, never both.
        let mut entries: Vec<(Touch, usize)> = Vec::new();
        let mut others: Vec<EntityId> = Vec::new();
        for engagements in engagements.chunks(ENGAGEMENTS_PER_LOCK) {
            entries.clear();
            others.clear();
            let mut tally = Tally::default();
            self.trails.change(|slab| {
                for &Engagement { owner, item, at } in engagements {
                    let touch = Touch { owner, item, at, factor: Factor::at(at, decay) };
                    if trails::touch(slab, rules, &touch, &mut others, &mut tally) {
                        entries.push((touch, others.len()));
                    }
                }
            });
            self.revisits.add(&tally);
            self.edges.change(|slab| {
                let mut first = 0;
                for (touch, end) in &entries {
                    let others = &others[first..*end];
                    assert!(
                        others.len() <= rules.recent_items as usize,
                        "an engagement changes 2 * recent_items edges at most"
                    );
                    edges::enter(slab, bounds, touch.item, others, touch.factor);
                    first = *end;
                }
            });
        }
    }

    /// Takes an item out of every trail and every row. What is left of it is what it did to others:
    /// edges that were evicted for its own, pairs that were further apart for it, revisits.
    pub(crate) fn forget(&self, item: EntityId) {
        if self.trails.held().number(item).is_some() {
            self.trails.change(|slab| trails::forget(slab, item));
        }
        if self.edges.held().find(&item).is_some() {
            self.edges.change(|slab| edges::forget(slab, item));
        }
    }

    /// Engine time is set back to `time`: no trail was touched later, and nothing weighs more than what
    /// fed it weighs at that time.
    pub(crate) fn drop_after(&self, rules: &CoEngagement, time: Timestamp) {
        let now = Factor::at(time, rules.decay());
        self.trails.change(|slab| trails::clamp(slab, time, now));
        self.edges.change(|slab| edges::clamp(slab, now));
    }

    /// The edges as they are now; they cannot change while this is held.
    pub(crate) fn edges(&self) -> HeldEdges<'_> {
        HeldEdges::new(self.edges.held())
    }

    /// The trails as they are now; they cannot change while this is held.
    pub(crate) fn trails(&self) -> HeldTrails<'_> {
        self.trails.held()
    }

    /// What a session goes on to, in no order; all of it is of one position.
    pub(crate) fn candidates(&self, request: &Request<'_>) -> Vec<Candidate> {
        self.scratches.candidates(&self.edges(), &self.trails(), request)
    }

    /// Memory of all of it, and of what answers are computed in.
    pub(crate) fn size_bytes(&self) -> u64 {
        let tables: u64 = self.tables().iter().map(|table| table.size().size_bytes).sum();
        tables + self.scratches.size_bytes()
    }

    /// How often people went back, by position.
    pub(crate) fn revisits(&self) -> [Revisits; POSITIONS] {
        self.revisits.all()
    }

    /// Every table.
    pub(crate) fn tables(&self) -> [Arc<dyn StateTable>; 3] {
        [self.edges.table(), self.trails.table(), self.revisits.table()]
    }

    pub(crate) fn edges_table(&self) -> Arc<dyn StateTable> {
        self.edges.table()
    }

    pub(crate) fn trails_table(&self) -> Arc<dyn StateTable> {
        self.trails.table()
    }

    pub(crate) fn revisits_table(&self) -> Arc<dyn StateTable> {
        self.revisits.table()
    }

    /// Refuses restored rows that no log leads to: more than the rules allow, or of a time far ahead
    /// of engine time. Without rules there are none.
    pub(crate) fn check_restored(
        &self,
        rules: Option<&CoEngagement>,
        engine_time: Timestamp,
    ) -> Result<(), DecodeError> {
        let Some(rules) = rules else {
            return match self.tables().iter().all(|table| table.size().rows == 0) {
                true => Ok(()),
                false => Err(DecodeError::Malformed("co-engagement that no signal makes")),
            };
        };
        let last = engine_time.saturating_add(FUTURE_SKEW_MAX);
        let now = Factor::at(last, rules.decay());
        let is_beyond = edges::is_beyond(&self.edges.held(), now)
            || trails::is_beyond(&self.trails.slab(), last, now);
        if is_beyond {
            return Err(DecodeError::Malformed("engagements far ahead of engine time"));
        }
        self.check_rows(rules)
            .map_err(|_| DecodeError::Malformed("co-engagement that the schema does not allow"))
    }

    /// Checks bounds, mirrors, and all that is derived; the tables check the rest.
    pub(crate) fn check(&self, rules: Option<&CoEngagement>) -> Result<(), String> {
        let Some(rules) = rules else { return Ok(()) };
        trails::check(&self.trails.slab())?;
        edges::check(&self.edges.held())?;
        self.check_rows(rules)
    }

    /// Checks what no log leads to: rows beyond the bounds, or that contradict each other.
    fn check_rows(&self, rules: &CoEngagement) -> Result<(), String> {
        trails::check_bounds(&self.trails.slab(), rules)?;
        let items = trails::items(&self.trails.slab());
        let edges = self.edges.held();
        if let Some(item) = items.into_iter().find(|item| edges.find(item).is_none()) {
            return Err(format!("item {item} is in a trail, and nothing is known of it"));
        }
        edges::check_bounds(&edges, bounds_of(rules))?;
        edges::check_mirrors(&edges)
    }
}

fn bounds_of(rules: &CoEngagement) -> Bounds {
    Bounds { neighbours_max: rules.neighbours_max as usize, capacity: rules.capacity }
}
