//! Reading the edges: an item's neighbours, and how near each is.
//!
//! Knows: rows of edges under a lock. Must not know: which items are hidden, who asks.

use super::row::{Edge, EdgeRow};
use super::similarity::Scale;
use super::weight::Weight;
use crate::ids::EntityId;
use crate::sync::RwLockReadGuard;
use crate::table::{Slab, Slot};

/// An item that is engaged with together with another one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Neighbour {
    /// The item.
    pub item: EntityId,
    /// How near it is, by the similarity that was asked for.
    pub similarity: f64,
    /// The decayed weight of the pairs: each is 1 by the distance of its items in their trail.
    pub weight: f64,
    /// How many pairs there were, all told, since the edge last came in.
    pub support: u32,
}

/// An edge, and how near its end is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Near {
    /// The row of the neighbour: a number for arrays; [`HeldEdges::item`] names it.
    pub(crate) slot: Slot,
    pub(crate) similarity: f64,
    pub(crate) weight: Weight,
    pub(crate) support: u32,
}

/// All edges, under a read lock.
pub(crate) struct HeldEdges<'a>(RwLockReadGuard<'a, Slab<EdgeRow>>);

impl<'a> HeldEdges<'a> {
    pub(super) const fn new(slab: RwLockReadGuard<'a, Slab<EdgeRow>>) -> Self {
        Self(slab)
    }

    /// How many edges there are, each direction counted.
    pub(crate) fn count(&self) -> u64 {
        self.0.side().edges
    }

    /// The row of an item that was engaged with.
    pub(crate) fn slot(&self, item: EntityId) -> Option<Slot> {
        self.0.find(&item)
    }

    /// The item of a row that an edge leads to.
    pub(crate) fn item(&self, slot: Slot) -> EntityId {
        self.0.side().items[slot as usize]
    }

    /// Every item that an edge leaves, ascending.
    pub(crate) fn items(&self) -> Vec<EntityId> {
        let leaving = self.0.iter().filter(|(_, row)| !row.edges.is_empty());
        let mut items: Vec<EntityId> = leaving.map(|(slot, _)| self.item(slot)).collect();
        items.sort_unstable();
        items
    }

    /// Every slot is below this.
    pub(crate) fn slots_end(&self) -> usize {
        self.0.side().items.len()
    }

    /// The edges that leave a row, in no order, each with its similarity.
    #[inline]
    pub(crate) fn of(&self, slot: Slot, scale: Scale) -> impl Iterator<Item = Near> {
        let side = self.0.side();
        let x = scale.weight(side.selves[slot as usize]);
        let near = move |edge: &Edge| Near {
            slot: edge.neighbour,
            similarity: scale.of(x, edge.weight, side.selves[edge.neighbour as usize]),
            weight: edge.weight,
            support: edge.support,
        };
        self.0.row(slot).edges.iter().map(near)
    }

    /// The `k` nearest neighbours of an item that have enough support and are eligible, the nearest
    /// first, ties by item.
    pub(crate) fn nearest(
        &self,
        item: EntityId,
        k: usize,
        scale: Scale,
        support_min: u32,
        eligible: impl Fn(EntityId) -> bool,
    ) -> Vec<Neighbour> {
        let Some(slot) = self.slot(item) else { return Vec::new() };
        let mut near: Vec<(Near, EntityId)> = self
            .of(slot, scale)
            .filter(|near| near.support >= support_min)
            .map(|near| (near, self.item(near.slot)))
            .filter(|(_, item)| eligible(*item))
            .collect();
        let order = |(left, left_item): &(Near, EntityId),
                     (right, right_item): &(Near, EntityId)| {
            right.similarity.total_cmp(&left.similarity).then(left_item.cmp(right_item))
        };
        if k < near.len() {
            near.select_nth_unstable_by(k, order);
            near.truncate(k);
        }
        near.sort_unstable_by(order);
        let neighbour = |(near, item): (Near, EntityId)| Neighbour {
            item,
            similarity: near.similarity,
            weight: scale.weight(near.weight),
            support: near.support,
        };
        near.into_iter().map(neighbour).collect()
    }
}
