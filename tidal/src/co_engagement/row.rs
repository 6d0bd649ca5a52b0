//! An item's edges: a row of the table of edges.
//!
//! Knows: how a row lies in memory and in a page. Must not know: trails, bounds, which edge leaves.
//!
//! In a page:
//!
//! ```text
//! item u64 | support varint | self weight u64 | evictions varint
//! | edges: count varint | (neighbour's slot varint, support varint, weight u64) each
//! ```
//!
//! An edge names its neighbour by the slot of the neighbour's row, in memory and in pages: slots are
//! stable, and a row leaves only after every edge that names it.

use super::lightest::LightestRows;
use super::weight::Weight;
use crate::codec::{DecodeError, Put, Reader};
use crate::ids::{EntityId, Timestamp};
use crate::table::{Row, Slab, Slot, hash_u64};

/// An edge to another item.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) weight: Weight,
    /// The row of the other item.
    pub(crate) neighbour: Slot,
    /// How many pairs it was fed by since it last came in.
    pub(crate) support: u32,
}

const _: () = assert!(size_of::<Edge>() == 16, "four edges to a cache line");

/// The fewest bytes of an edge in a page.
const EDGE_SIZE_BYTES_MIN: usize = 10;

/// An item and the edges that leave it, in no order. Its self weight is in the side.
#[derive(Debug)]
pub(crate) struct EdgeRow {
    pub(super) item: EntityId,
    /// In how many trails the item came.
    pub(super) support: u32,
    /// How many edges left for want of room. While it is 0, every edge has its mirror here.
    pub(super) evictions: u32,
    pub(super) edges: Vec<Edge>,
}

impl EdgeRow {
    pub(super) const fn new(item: EntityId) -> Self {
        Self { item, support: 0, evictions: 0, edges: Vec::new() }
    }

    #[inline]
    pub(super) fn position(&self, neighbour: Slot) -> Option<usize> {
        self.edges.iter().position(|edge| edge.neighbour == neighbour)
    }

    /// Appends an edge. The list grows by halves, and not beyond `edges_max`: most of the memory of an
    /// index is here.
    pub(super) fn push(&mut self, edge: Edge, edges_max: usize) {
        let len = self.edges.len();
        if len == self.edges.capacity() {
            let room = edges_max.saturating_sub(len).max(1);
            self.edges.reserve_exact((len / 2).clamp(2, 64).min(room));
        }
        self.edges.push(edge);
    }

    /// Takes the edge at a position out. A list that has become much shorter gives memory back, so that
    /// rows that were long once do not hold it for ever.
    pub(super) fn take(&mut self, at: usize) -> Edge {
        let edge = self.edges.swap_remove(at);
        let len = self.edges.len();
        if self.edges.capacity() > 2 * len + 4 {
            self.edges.shrink_to(len + len / 4 + 2);
        }
        edge
    }

    /// The position of the lightest edge, among equals that to the smallest item.
    pub(super) fn find_lightest(&self, items: &[EntityId]) -> u32 {
        let mut best = 0;
        for (at, edge) in self.edges.iter().enumerate().skip(1) {
            if is_lighter(edge, &self.edges[best], items) {
                best = at;
            }
        }
        best as u32
    }
}

/// Whether an edge leaves before another one of the same row.
#[inline]
pub(super) fn is_lighter(edge: &Edge, other: &Edge, items: &[EntityId]) -> bool {
    let item = |edge: &Edge| items[edge.neighbour as usize];
    edge.weight < other.weight || (edge.weight == other.weight && item(edge) < item(other))
}

/// What the table keeps beside the rows, by slot. What is read for every neighbour lies together.
#[derive(Debug, Default)]
pub(crate) struct EdgeSide {
    /// The items of the rows.
    pub(super) items: Vec<EntityId>,
    /// The self weights: what the trails of each item add up to.
    pub(super) selves: Vec<Weight>,
    /// How many edges name each row. Derived.
    pub(super) named_by: Vec<u32>,
    /// How many edges there are. Derived.
    pub(super) edges: u64,
    /// The positions of the rows' lightest edges; anything where there is none. Derived.
    pub(super) lightest: Vec<u32>,
    /// Derived, and only there once the index was full.
    pub(super) rows: Option<LightestRows>,
}

impl EdgeSide {
    /// The slot has a row of this item, with nothing to it yet.
    pub(super) fn begin(&mut self, slot: Slot, item: EntityId) {
        let at = slot as usize;
        if self.items.len() <= at {
            self.items.resize(at + 1, EntityId::new(0));
            self.selves.resize(at + 1, Weight::ZERO);
            self.named_by.resize(at + 1, 0);
            self.lightest.resize(at + 1, 0);
        }
        (self.items[at], self.selves[at]) = (item, Weight::ZERO);
    }

    /// The lightest edge of a row is at this position now.
    #[inline]
    pub(super) fn set_lightest(&mut self, slot: Slot, at: u32, edges: &[Edge]) {
        self.lightest[slot as usize] = at;
        if let Some(rows) = &mut self.rows {
            rows.set(slot, edges.get(at as usize).map(|edge| edge.weight), &self.items);
        }
    }
}

impl Row for EdgeRow {
    type Key = EntityId;
    type Side = EdgeSide;

    #[inline]
    fn key(&self) -> &EntityId {
        &self.item
    }

    #[inline]
    fn hash(key: &EntityId) -> u64 {
        hash_u64(key.get())
    }

    fn encode(&self, slot: Slot, side: &EdgeSide, out: &mut Vec<u8>) {
        encode_head(self, slot, side, out);
        for edge in &self.edges {
            out.put_varint(u64::from(edge.neighbour));
            out.put_varint(u64::from(edge.support));
            out.put_u64(edge.weight.bits());
        }
    }

    fn decode(
        slot: Slot,
        reader: &mut Reader<'_>,
        side: &mut EdgeSide,
    ) -> Result<Self, DecodeError> {
        let mut row = Self::new(EntityId::new(reader.u64()?));
        side.begin(slot, row.item);
        row.support = decode_u32(reader)?;
        side.selves[slot as usize] = Weight::decode(reader)?;
        row.evictions = decode_u32(reader)?;
        let count = reader.count(EDGE_SIZE_BYTES_MIN)?;
        row.edges.reserve_exact(count);
        for _ in 0..count {
            let (neighbour, support) = (decode_u32(reader)?, decode_u32(reader)?);
            row.edges.push(Edge { weight: Weight::decode(reader)?, neighbour, support });
        }
        Ok(row)
    }

    fn canonical(&self, slot: Slot, side: &EdgeSide, _: Timestamp, out: &mut Vec<u8>) {
        encode_head(self, slot, side, out);
        let item = |edge: &Edge| side.items[edge.neighbour as usize];
        let mut edges: Vec<(EntityId, &Edge)> =
            self.edges.iter().map(|edge| (item(edge), edge)).collect();
        edges.sort_unstable_by_key(|&(item, _)| item);
        for (item, edge) in edges {
            out.put_u64(item.get());
            out.put_u32(edge.support);
            out.put_u64(edge.weight.bits());
        }
    }

    fn rebuild(slab: &mut Slab<Self>) -> Result<(), DecodeError> {
        let mut named_by = vec![0u32; slab.side().items.len()];
        // The last row that named each slot: no row names one twice.
        let mut namer = vec![Slot::MAX; named_by.len()];
        let mut edges = 0;
        for (slot, row) in slab.iter() {
            for edge in &row.edges {
                let at = edge.neighbour as usize;
                if slab.peek(edge.neighbour).is_none() || edge.neighbour == slot {
                    return Err(DecodeError::Malformed("an edge that leads nowhere"));
                }
                if namer[at] == slot || edge.weight == Weight::ZERO {
                    return Err(DecodeError::Malformed("an edge that no writer makes"));
                }
                namer[at] = slot;
                named_by[at] += 1;
                edges += 1;
            }
        }
        let items = &slab.side().items;
        let mut lightest = vec![0; items.len()];
        for (slot, row) in slab.iter() {
            lightest[slot as usize] = row.find_lightest(items);
        }
        let side = slab.side_mut();
        (side.named_by, side.edges, side.lightest, side.rows) = (named_by, edges, lightest, None);
        Ok(())
    }

    fn heap_size_bytes(&self) -> usize {
        self.edges.capacity() * size_of::<Edge>()
    }

    fn side_size_bytes(side: &EdgeSide) -> usize {
        side.items.capacity() * size_of::<EntityId>()
            + side.selves.capacity() * size_of::<Weight>()
            + side.named_by.capacity() * size_of::<u32>()
            + side.lightest.capacity() * size_of::<u32>()
            + side.rows.as_ref().map_or(0, LightestRows::size_bytes)
    }
}

fn encode_head(row: &EdgeRow, slot: Slot, side: &EdgeSide, out: &mut Vec<u8>) {
    out.put_u64(row.item.get());
    out.put_varint(u64::from(row.support));
    out.put_u64(side.selves[slot as usize].bits());
    out.put_varint(u64::from(row.evictions));
    out.put_varint(row.edges.len() as u64);
}

fn decode_u32(reader: &mut Reader<'_>) -> Result<u32, DecodeError> {
    u32::try_from(reader.varint()?).map_err(|_| DecodeError::Malformed("a number beyond 32 bits"))
}
