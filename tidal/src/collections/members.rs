//! Which chunk each item of a large collection is in.
//!
//! Knows: items and slots. Must not know: order.
//!
//! An entry is eight bytes: a slot, and half of the hash of the item in place of the item. Two items
//! of one collection may have the same half, so whoever looks asks the chunk; entries that are equal
//! in both parts are interchangeable.

use hashbrown::HashTable;

use crate::ids::EntityId;
use crate::table::{Slot, hash_u64};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Member {
    half: u32,
    slot: Slot,
}

impl Member {
    fn of(item: EntityId, slot: Slot) -> Self {
        Self { half: half_of(item), slot }
    }

    fn hash(&self) -> u64 {
        hash_of(self.half)
    }
}

fn half_of(item: EntityId) -> u32 {
    (hash_u64(item.get()) >> 32) as u32
}

fn hash_of(half: u32) -> u64 {
    hash_u64(u64::from(half))
}

/// The index.
#[derive(Debug)]
pub(super) struct Members {
    table: HashTable<Member>,
}

impl Members {
    pub(super) fn with_capacity(capacity: usize) -> Self {
        Self { table: HashTable::with_capacity(capacity) }
    }

    pub(super) fn len(&self) -> usize {
        self.table.len()
    }

    /// The slot of the chunk that has an item; `has` asks one.
    pub(super) fn find(&self, item: EntityId, has: impl Fn(Slot) -> bool) -> Option<Slot> {
        let half = half_of(item);
        let found =
            self.table.find(hash_of(half), |member| member.half == half && has(member.slot));
        found.map(|member| member.slot)
    }

    /// An item that is not there is in `slot`.
    pub(super) fn insert(&mut self, item: EntityId, slot: Slot) {
        let member = Member::of(item, slot);
        self.table.insert_unique(member.hash(), member, Member::hash);
    }

    /// An item that is in `slot` is there no more.
    pub(super) fn remove(&mut self, item: EntityId, slot: Slot) {
        let member = Member::of(item, slot);
        let Ok(entry) = self.table.find_entry(member.hash(), |other| *other == member) else {
            unreachable!("every item of a chunk has an entry");
        };
        entry.remove();
    }

    /// An item that is in one slot is in another.
    pub(super) fn relocate(&mut self, item: EntityId, from: Slot, to: Slot) {
        let member = Member::of(item, from);
        let entry = self.table.find_mut(member.hash(), |other| *other == member);
        entry.expect("every item of a chunk has an entry").slot = to;
    }

    pub(super) fn size_bytes(&self) -> usize {
        // hashbrown keeps 8 buckets for every 7 entries of capacity, a control byte for each.
        size_of::<Self>() + self.table.capacity() * 8 / 7 * (size_of::<Member>() + 1)
    }
}
