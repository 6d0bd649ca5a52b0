//! Which row has the lightest edge of all.
//!
//! Knows: rows by slot, and the weight that each one ranks by. Must not know: edges.
//!
//! A binary heap with the place of each row in it, so that a row whose lightest edge changes moves in
//! O(log rows). Rows of the same weight are ordered by item: which one is first depends on nothing
//! but what the rows are.

use std::cmp::Ordering;

use super::weight::Weight;
use crate::ids::EntityId;
use crate::table::Slot;

/// The place of a row that is not in the heap.
const NOWHERE: u32 = u32::MAX;

#[derive(Debug, Clone, Copy)]
struct Node {
    weight: Weight,
    row: Slot,
}

/// The rows that have an edge, the one with the lightest first.
#[derive(Debug, Default)]
pub(super) struct LightestRows {
    heap: Vec<Node>,
    /// By slot.
    places: Vec<u32>,
}

impl LightestRows {
    /// The row with the lightest edge.
    pub(super) fn first(&self) -> Option<Slot> {
        self.heap.first().map(|node| node.row)
    }

    /// A row's lightest edge weighs this now; `None` when it has none. `items` are the rows' items,
    /// by slot.
    pub(super) fn set(&mut self, row: Slot, weight: Option<Weight>, items: &[EntityId]) {
        if self.places.len() <= row as usize {
            self.places.resize(row as usize + 1, NOWHERE);
        }
        let place = self.places[row as usize];
        match (weight, place) {
            (None, NOWHERE) => {}
            (None, place) => self.remove(place as usize, items),
            (Some(weight), NOWHERE) => {
                self.heap.push(Node { weight, row });
                self.rise(self.heap.len() - 1, items);
            }
            (Some(weight), place) => {
                self.heap[place as usize].weight = weight;
                self.restore(place as usize, items);
            }
        }
    }

    pub(super) fn size_bytes(&self) -> usize {
        self.heap.capacity() * size_of::<Node>() + self.places.capacity() * size_of::<u32>()
    }

    /// Checks the order and the places against what each row's weight should be.
    pub(super) fn check(
        &self,
        rows: impl Iterator<Item = (Slot, Weight)>,
        items: &[EntityId],
    ) -> Result<(), String> {
        for at in 1..self.heap.len() {
            if order(&self.heap[at], &self.heap[(at - 1) / 2], items) == Ordering::Less {
                return Err(format!("the heap of lightest edges is out of order at {at}"));
            }
        }
        let mut count = 0;
        for (row, weight) in rows {
            count += 1;
            let place = self.places.get(row as usize).copied().unwrap_or(NOWHERE);
            let node = self.heap.get(place as usize);
            if node.is_none_or(|node| node.row != row || node.weight != weight) {
                return Err(format!("the heap of lightest edges is wrong about row {row}"));
            }
        }
        if count != self.heap.len() {
            return Err(format!("the heap of lightest edges has not {count} rows"));
        }
        Ok(())
    }

    fn remove(&mut self, place: usize, items: &[EntityId]) {
        self.places[self.heap[place].row as usize] = NOWHERE;
        self.heap.swap_remove(place);
        if place < self.heap.len() {
            self.restore(place, items);
        }
    }

    /// Moves a node that may be out of order in either direction.
    fn restore(&mut self, place: usize, items: &[EntityId]) {
        let place = self.rise(place, items);
        self.sink(place, items);
    }

    /// Moves a node up to where it belongs, and says where that is.
    fn rise(&mut self, mut place: usize, items: &[EntityId]) -> usize {
        let node = self.heap[place];
        while place > 0 {
            let parent = (place - 1) / 2;
            if order(&node, &self.heap[parent], items) != Ordering::Less {
                break;
            }
            self.put(place, self.heap[parent]);
            place = parent;
        }
        self.put(place, node);
        place
    }

    fn sink(&mut self, mut place: usize, items: &[EntityId]) {
        let node = self.heap[place];
        loop {
            let mut child = 2 * place + 1;
            let Some(left) = self.heap.get(child) else { break };
            if let Some(right) = self.heap.get(child + 1)
                && order(right, left, items) == Ordering::Less
            {
                child += 1;
            }
            if order(&self.heap[child], &node, items) != Ordering::Less {
                break;
            }
            self.put(place, self.heap[child]);
            place = child;
        }
        self.put(place, node);
    }

    fn put(&mut self, place: usize, node: Node) {
        self.heap[place] = node;
        self.places[node.row as usize] = place as u32;
    }
}

#[inline]
fn order(left: &Node, right: &Node, items: &[EntityId]) -> Ordering {
    let by_item = || items[left.row as usize].cmp(&items[right.row as usize]);
    left.weight.cmp(&right.weight).then_with(by_item)
}
