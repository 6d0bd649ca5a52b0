//! All edges: weighted pairs of items, within two bounds.
//!
//! Knows: how edges come, grow, leave. Must not know: trails, users, where pairs come from.
//!
//! Invariants: no row has more edges than [`Bounds::neighbours_max`], the table no more than
//! [`Bounds::capacity`]; a row leaves only when no edge names it. While nothing was evicted from
//! either row, the edge from x to y and its mirror from y to x have the same bits.
//!
//! A new edge always comes in. Where there is no room the lightest one leaves ([`make_room`]): of the
//! row, if the row is full, else of all. Which is the lightest depends on weights and items alone,
//! never on where they lie; and under forward decay it is the lightest at any time.

use std::sync::Arc;

use super::lightest::LightestRows;
use super::row::{Edge, EdgeRow, EdgeSide, is_lighter};
use super::weight::Weight;
use crate::decay::Factor;
use crate::ids::EntityId;
use crate::sync::RwLockReadGuard;
use crate::table::{Slab, Slot, StateTable, Table, TableId};

/// How many edges there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// Edges that leave one item.
    pub(super) neighbours_max: usize,
    /// Edges in all.
    pub(super) capacity: u64,
}

/// The edges of all items.
pub(super) struct Edges {
    table: Arc<Table<EdgeRow>>,
}

impl Edges {
    pub(super) fn new(id: TableId) -> Self {
        Self { table: Arc::new(Table::new(id, EdgeSide::default())) }
    }

    pub(super) fn held(&self) -> RwLockReadGuard<'_, Slab<EdgeRow>> {
        self.table.read()
    }

    /// The edges, to be changed.
    pub(super) fn change<T>(&self, change: impl FnOnce(&mut Slab<EdgeRow>) -> T) -> T {
        change(&mut self.table.write())
    }

    pub(super) fn table(&self) -> Arc<dyn StateTable> {
        Arc::clone(&self.table) as Arc<dyn StateTable>
    }
}

/// An item came into a trail, in which these others were touched last, the last one first. A pair of
/// items that are further apart weighs less: one by the distance.
pub(super) fn enter(
    slab: &mut Slab<EdgeRow>,
    bounds: Bounds,
    item: EntityId,
    others: &[EntityId],
    factor: Factor,
) {
    let slot = row_of(slab, item);
    let (row, side) = slab.row_mut(slot);
    row.support = row.support.saturating_add(1);
    let weight = &mut side.selves[slot as usize];
    *weight = weight.plus(Weight::of_terms(1, factor));
    for (i, &other) in others.iter().enumerate() {
        let term = Weight::of(factor.weighted(1.0 / (i + 1) as f64));
        let other = row_of(slab, other);
        add(slab, bounds, slot, other, term);
        add(slab, bounds, other, slot, term);
    }
}

/// The row of an item, made if missing.
pub(super) fn row_of(slab: &mut Slab<EdgeRow>, item: EntityId) -> Slot {
    if let Some(slot) = slab.find(&item) {
        return slot;
    }
    let slot = slab.insert_new(EdgeRow::new(item));
    slab.side_mut().begin(slot, item);
    slot
}

/// Adds to the edge from one row to another; it comes in if it is not there.
pub(super) fn add(slab: &mut Slab<EdgeRow>, bounds: Bounds, from: Slot, to: Slot, term: Weight) {
    match slab.row(from).position(to) {
        Some(at) => grow(slab, from, at, term),
        None => {
            make_room(slab, bounds, from, to);
            insert(slab, bounds, from, Edge { weight: term, neighbour: to, support: 1 });
        }
    }
}

fn grow(slab: &mut Slab<EdgeRow>, from: Slot, at: usize, term: Weight) {
    let (row, side) = slab.row_mut(from);
    let edge = &mut row.edges[at];
    edge.weight = edge.weight.plus(term);
    edge.support = edge.support.saturating_add(1);
    if side.lightest[from as usize] as usize == at {
        let lightest = row.find_lightest(&side.items);
        side.set_lightest(from, lightest, &row.edges);
    }
}

fn insert(slab: &mut Slab<EdgeRow>, bounds: Bounds, from: Slot, edge: Edge) {
    let (row, side) = slab.row_mut(from);
    let at = row.edges.len();
    row.push(edge, bounds.neighbours_max);
    side.named_by[edge.neighbour as usize] += 1;
    side.edges += 1;
    let lightest = side.lightest[from as usize];
    if at == 0 || is_lighter(&edge, &row.edges[lightest as usize], &side.items) {
        side.set_lightest(from, at as u32, &row.edges);
    }
}

/// The rule: what leaves so that an edge between these rows can come in.
fn make_room(slab: &mut Slab<EdgeRow>, bounds: Bounds, from: Slot, to: Slot) {
    if slab.row(from).edges.len() >= bounds.neighbours_max {
        evict_lightest(slab, from, [from, to]);
    } else if slab.side().edges >= bounds.capacity {
        let row = first_row(slab);
        evict_lightest(slab, row, [from, to]);
    }
}

/// Evicts until the bounds hold.
pub(super) fn shrink(slab: &mut Slab<EdgeRow>, bounds: Bounds) {
    let slots: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
    for slot in slots {
        while slab.peek(slot).is_some_and(|row| row.edges.len() > bounds.neighbours_max) {
            evict_lightest(slab, slot, []);
        }
    }
    while slab.side().edges > bounds.capacity {
        let row = first_row(slab);
        evict_lightest(slab, row, []);
    }
}

/// The row with the lightest edge of all. From the first time that this is asked, a heap knows.
fn first_row(slab: &mut Slab<EdgeRow>) -> Slot {
    if slab.side().rows.is_none() {
        let mut rows = LightestRows::default();
        for (slot, weight) in lightest_weights(slab) {
            rows.set(slot, Some(weight), &slab.side().items);
        }
        slab.side_mut().rows = Some(rows);
    }
    let rows = slab.side().rows.as_ref().expect("it was just made");
    rows.first().expect("an index that is full has an edge")
}

fn lightest_weights(slab: &Slab<EdgeRow>) -> impl Iterator<Item = (Slot, Weight)> {
    slab.iter().filter_map(|(slot, row)| {
        let edge = row.edges.get(slab.side().lightest[slot as usize] as usize)?;
        Some((slot, edge.weight))
    })
}

/// Evicts a row's lightest edge. Rows that nothing is known of any more go with it, but for those to
/// be kept.
fn evict_lightest<const N: usize>(slab: &mut Slab<EdgeRow>, from: Slot, kept: [Slot; N]) {
    let (row, side) = slab.row_mut(from);
    row.evictions = row.evictions.saturating_add(1);
    let at = side.lightest[from as usize] as usize;
    let edge = take_out(slab, from, at);
    for slot in [from, edge.neighbour] {
        if !kept.contains(&slot) {
            remove_if_unknown(slab, slot);
        }
    }
}

fn take_out(slab: &mut Slab<EdgeRow>, from: Slot, at: usize) -> Edge {
    let (row, side) = slab.row_mut(from);
    let edge = row.take(at);
    side.named_by[edge.neighbour as usize] -= 1;
    side.edges -= 1;
    let lightest = row.find_lightest(&side.items);
    side.set_lightest(from, lightest, &row.edges);
    edge
}

fn remove_if_unknown(slab: &mut Slab<EdgeRow>, slot: Slot) {
    let row = slab.row(slot);
    if row.support == 0 && row.edges.is_empty() && slab.side().named_by[slot as usize] == 0 {
        let item = row.item;
        slab.remove(&item);
    }
}

/// Takes an item's row out, and every edge that names it. Its own neighbours are asked first; if edges
/// are left then, since mirrors were evicted, all rows are.
pub(super) fn forget(slab: &mut Slab<EdgeRow>, item: EntityId) {
    let Some(slot) = slab.find(&item) else { return };
    while let Some(edge) = slab.row(slot).edges.last().copied() {
        take_out(slab, slot, slab.row(slot).edges.len() - 1);
        take_out_edge(slab, edge.neighbour, slot);
    }
    if slab.side().named_by[slot as usize] > 0 {
        let rows: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
        rows.into_iter().for_each(|row| take_out_edge(slab, row, slot));
    }
    assert_eq!(slab.side().named_by[slot as usize], 0, "no edge names a row that leaves");
    slab.remove(&item);
}

fn take_out_edge(slab: &mut Slab<EdgeRow>, from: Slot, to: Slot) {
    if slab.side().named_by[to as usize] > 0
        && let Some(at) = slab.row(from).position(to)
    {
        take_out(slab, from, at);
    }
}

/// Time is set back to that of `now`: nothing weighs more than what fed it weighs at that time.
pub(super) fn clamp(slab: &mut Slab<EdgeRow>, now: Factor) {
    let slots: Vec<Slot> = slab.iter().map(|(slot, _)| slot).collect();
    for slot in slots {
        let row = slab.row(slot);
        let at_most = |support: u32| Weight::of_terms(u64::from(support), now);
        let is_heavy = |edge: &Edge| edge.weight > at_most(edge.support);
        let self_weight = slab.side().selves[slot as usize];
        if self_weight <= at_most(row.support) && !row.edges.iter().any(is_heavy) {
            continue;
        }
        let (row, side) = slab.row_mut(slot);
        side.selves[slot as usize] = self_weight.min(at_most(row.support));
        for edge in &mut row.edges {
            edge.weight = edge.weight.min(at_most(edge.support));
        }
        let lightest = row.find_lightest(&side.items);
        side.set_lightest(slot, lightest, &row.edges);
    }
}

/// Whether anything weighs more than events of the time `now` add up to.
pub(super) fn is_beyond(slab: &Slab<EdgeRow>, now: Factor) -> bool {
    slab.iter().any(|(slot, row)| {
        slab.side().selves[slot as usize].is_beyond(now)
            || row.edges.iter().any(|edge| edge.weight.is_beyond(now))
    })
}

/// Checks that there are no more edges than may be, of any item and in all.
pub(super) fn check_bounds(slab: &Slab<EdgeRow>, bounds: Bounds) -> Result<(), String> {
    let edges = slab.side().edges;
    if edges > bounds.capacity {
        return Err(format!("{edges} edges, {} allowed", bounds.capacity));
    }
    match slab.iter().find(|(_, row)| row.edges.len() > bounds.neighbours_max) {
        Some((_, row)) => Err(format!("item {} has {} edges", row.item, row.edges.len())),
        None => Ok(()),
    }
}

/// Checks what is derived against what it derives from.
pub(super) fn check(slab: &Slab<EdgeRow>) -> Result<(), String> {
    let side = slab.side();
    let (mut named_by, mut edges) = (vec![0; side.items.len()], 0);
    for (slot, row) in slab.iter() {
        if side.items[slot as usize] != row.item {
            return Err(format!("the row in slot {slot} is not known to be of item {}", row.item));
        }
        let lightest = side.lightest[slot as usize];
        if !row.edges.is_empty() && row.find_lightest(&side.items) != lightest {
            return Err(format!("edge {lightest} of item {} is not its lightest", row.item));
        }
        for edge in &row.edges {
            named_by[edge.neighbour as usize] += 1;
            edges += 1;
        }
    }
    let is_live = |slot: usize| slab.peek(slot as Slot).is_some();
    if (0..named_by.len()).any(|slot| is_live(slot) && named_by[slot] != side.named_by[slot]) {
        return Err("a row is named by another number of edges than it should be".to_owned());
    }
    if (0..named_by.len()).any(|slot| !is_live(slot) && named_by[slot] != 0) {
        return Err("an edge names a row that is gone".to_owned());
    }
    if edges != side.edges {
        return Err(format!("{edges} edges, {} counted", side.edges));
    }
    side.rows.as_ref().map_or(Ok(()), |rows| rows.check(lightest_weights(slab), &side.items))
}

/// Checks that edges come in pairs: one without its mirror only where the mirror's row has evicted,
/// two of the same weight and support where neither row has.
pub(super) fn check_mirrors(slab: &Slab<EdgeRow>) -> Result<(), String> {
    for (slot, row) in slab.iter() {
        for edge in &row.edges {
            let other = slab.row(edge.neighbour);
            if other.evictions > 0 {
                continue;
            }
            let mirror = other.position(slot).map(|at| other.edges[at]);
            let is_mirror = mirror.is_some_and(|mirror| {
                let same = (mirror.weight, mirror.support) == (edge.weight, edge.support);
                same || row.evictions > 0
            });
            if !is_mirror {
                return Err(format!(
                    "the edge from item {} to item {} has not its mirror",
                    row.item, other.item
                ));
            }
        }
    }
    Ok(())
}
